//! The fused form: one pass over time for a block of neurons, whose potentials stay in the cache.

use crate::grouped_attention::view::Number;
use crate::simd::{self, Lanes};
use crate::{inference, threads};
use half::bf16;
use tch::{Device, Kind, Tensor};

/// How a current moves the potential.
#[derive(Debug, Clone, Copy)]
pub(super) enum Charge {
    /// v += x.
    Sum,
    /// v += (x - v) / tau.
    Leak { tau: f32 },
    /// v += (x - v) * rate.
    Rate { rate: f32 },
}

/// A layer's constants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    pub charge: Charge,
    pub threshold: f32,
    /// Whether a potential at the threshold fires.
    pub inclusive: bool,
}

/// Neurons that one task takes through time: currents, spikes and potentials of a block stay in the first caches.
const BLOCK: usize = 2048;

/// Blocks from which other threads are woken.
const WORTH_THREADS: usize = 8;

/// Whether the kernel may take these currents: CPU, f32 or bf16, dense with time slowest, nothing to differentiate or to trace.
pub(super) fn applies(x: &Tensor, steps: i64, potential: Option<&Tensor>) -> bool {
    plain(x)
        && steps > 0
        && x.size().first().is_some_and(|rows| rows % steps == 0)
        && potential.is_none_or(|v| plain(v) && v.kind() == x.kind() && v.stride() == x.stride())
        && !inference::tracing()
}

fn plain(t: &Tensor) -> bool {
    t.device() == Device::Cpu
        && matches!(t.kind(), Kind::Float | Kind::BFloat16)
        && !t.requires_grad()
        && dense(t)
}

/// Whether rows follow one another and each is without gaps, in whatever order its axes are stored (NCHW or NHWC).
fn dense(t: &Tensor) -> bool {
    if t.is_contiguous() {
        return t.numel() > 0;
    }
    let (size, stride) = (t.size(), t.stride());
    let row: i64 = size[1..].iter().product();
    let mut inner: Vec<(i64, i64)> = size[1..]
        .iter()
        .copied()
        .zip(stride[1..].iter().copied())
        .collect();
    inner.retain(|(size, _)| *size != 1);
    inner.sort_by_key(|(_, stride)| *stride);
    let mut expected = 1;
    let packed = inner.iter().all(|(size, stride)| {
        let fits = *stride == expected;
        expected *= size;
        fits
    });
    t.numel() > 0 && packed && stride[0] == row
}

/// The value of a 0-dim tensor.
pub(super) fn number(t: &Tensor) -> f32 {
    t.double_value(&[]) as f32
}

/// Spikes [T * B, ..] and the potentials [B, ..] after the last step, stored in the order of `x`'s axes.
///
/// The arithmetic is that of the composed form, operation by operation: equal to the last bit.
pub(super) fn fire(
    x: &Tensor,
    steps: i64,
    potential: Option<&Tensor>,
    layer: Layer,
) -> (Tensor, Tensor) {
    let (mut size, stride) = (x.size(), x.stride());
    let options = (x.kind(), Device::Cpu);
    let spikes = Tensor::empty_strided(&size, &stride, options);
    size[0] /= steps;
    let mut after = Tensor::empty_strided(&size, &stride, options);
    match potential {
        Some(v) => after.copy_(v),
        None => _ = after.zero_(),
    }
    match x.kind() {
        Kind::BFloat16 => through_time::<bf16>(x, &spikes, &after, layer),
        _ => through_time::<f32>(x, &spikes, &after, layer),
    }
    (spikes, after)
}

fn through_time<T: Number>(x: &Tensor, spikes: &Tensor, potential: &Tensor, layer: Layer) {
    let neurons = potential.numel();
    let steps = x.numel() / neurons;
    let views = Views {
        x: x.data_ptr() as *const T,
        spikes: spikes.data_ptr() as *mut T,
        potential: potential.data_ptr() as *mut T,
    };
    let blocks = neurons.div_ceil(BLOCK);
    let run = |block: usize| {
        let from = block * BLOCK;
        simd::dispatch(Task {
            views: &views,
            from,
            count: BLOCK.min(neurons - from),
            neurons,
            steps,
            layer,
        });
    };
    if blocks < WORTH_THREADS || tch::get_num_threads() == 1 {
        (0..blocks).for_each(run);
    } else {
        threads::for_each(blocks, 1, || (), |(), i| run(i));
    }
}

struct Views<T> {
    x: *const T,
    spikes: *mut T,
    potential: *mut T,
}

// SAFETY: tasks write to disjoint neurons, and nobody reads before all are done.
unsafe impl<T: Number> Sync for Views<T> {}

/// Neurons `from` .. `from + count` through all steps.
struct Task<'a, T> {
    views: &'a Views<T>,
    from: usize,
    count: usize,
    neurons: usize,
    steps: usize,
    layer: Layer,
}

/// Rounds to the format, as libtorch does after each operation.
#[inline(always)]
fn round<T: Number>(x: f32) -> f32 {
    T::narrow(x).widen()
}

impl<T: Number> simd::Kernel for Task<'_, T> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        match self.layer.charge {
            Charge::Sum => self.through(|v, x| round::<T>(v + x)),
            // The quotient by a power of two is the product with its reciprocal, exactly.
            Charge::Leak { tau } if tau.to_bits() << 9 == 0 && tau.is_normal() => {
                let rate = tau.recip();
                self.through(|v, x| leak::<T>(v, round::<T>(x - v) * rate));
            }
            Charge::Leak { tau } => self.through(|v, x| leak::<T>(v, round::<T>(x - v) / tau)),
            Charge::Rate { rate } => self.through(|v, x| leak::<T>(v, round::<T>(x - v) * rate)),
        }
    }
}

#[inline(always)]
fn leak<T: Number>(v: f32, by: f32) -> f32 {
    round::<T>(v + round::<T>(by))
}

impl<T: Number> Task<'_, T> {
    #[inline(always)]
    fn through(&self, charge: impl Fn(f32, f32) -> f32 + Copy) {
        let threshold = self.layer.threshold;
        if self.layer.inclusive {
            self.fire(charge, |v| v >= threshold);
        } else {
            self.fire(charge, |v| v > threshold);
        }
    }

    #[inline(always)]
    fn fire(&self, charge: impl Fn(f32, f32) -> f32, fires: impl Fn(f32) -> bool) {
        // SAFETY: the potentials hold `neurons` values, of which from .. from + count are this task's alone.
        let potential = unsafe {
            std::slice::from_raw_parts_mut(self.views.potential.add(self.from), self.count)
        };
        for step in 0..self.steps {
            let at = step * self.neurons + self.from;
            // SAFETY: currents and spikes hold steps * neurons values; these spikes are this task's alone.
            let (x, spikes) = unsafe {
                (
                    std::slice::from_raw_parts(self.views.x.add(at), self.count),
                    std::slice::from_raw_parts_mut(self.views.spikes.add(at), self.count),
                )
            };
            for ((v, x), spike) in potential.iter_mut().zip(x).zip(spikes) {
                let charged = charge(v.widen(), x.widen());
                let fired = if fires(charged) { 1.0 } else { 0.0 };
                *v = T::narrow(charged * (1.0 - fired));
                *spike = T::narrow(fired);
            }
        }
    }
}
