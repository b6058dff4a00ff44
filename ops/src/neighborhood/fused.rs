//! The kernel for shifted windows: softmax and weighted sum of one query after another, from values that a band of rows shares.

use crate::grouped_attention::simd::{Computation, Isa, Simd};
use crate::grouped_attention::view::{Number, View};
use crate::threads;
use half::bf16;
use std::f32::consts::LOG2_E;
use tch::{Device, Kind, Tensor};

/// Rows of queries that share loaded values.
const BAND: usize = 8;
/// Rows of scratch are padded to whole vectors of the largest set.
const WIDEST: usize = 16;

/// [`super::Neighborhood::attend`] for windows of `kernel`.
pub(super) fn attend(
    isa: Isa,
    kernel: [i64; 2],
    logits: &Tensor,
    bias: Option<&Tensor>,
    v: &Tensor,
) -> Tensor {
    match v.kind() {
        Kind::Float => Problem::<f32>::new(kernel, logits, bias, v).run(isa),
        Kind::BFloat16 => Problem::<bf16>::new(kernel, logits, bias, v).run(isa),
        kind => panic!("the neighbourhood's kernel takes f32 and bf16, not {kind:?}"),
    }
}

struct Problem<'a, T> {
    /// [B, G, H, W, slots].
    logits: View<'a, T, 5>,
    /// [G, H, W, slots].
    bias: Option<View<'a, T, 4>>,
    /// [B, G, H, W, D].
    values: View<'a, T, 5>,
    kernel: [usize; 2],
}

/// Rows from `first` on, at most [`BAND`].
#[derive(Clone, Copy)]
struct Item {
    batch: usize,
    group: usize,
    first: usize,
}

/// The scratch of one thread.
struct Work {
    /// Values of the rows from `from` on, [.., W, stride].
    values: Vec<f32>,
    from: usize,
    /// Logits and then weights of one query, padded.
    weights: Vec<f32>,
    /// [stride].
    out: Vec<f32>,
}

/// Where items write, [B, H, W, G, D]; every query of every group belongs to one item.
struct Output<T>(*mut T);

// SAFETY: items write to disjoint places, and nobody reads before all are done.
unsafe impl<T: Send> Sync for Output<T> {}

struct Step<'a, T> {
    problem: &'a Problem<'a, T>,
    item: Item,
    work: &'a mut Work,
    target: &'a Output<T>,
}

impl<T: Number> Computation for Step<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            self.problem.process::<S>(self.item, self.work, self.target);
        }
    }
}

impl<'a, T: Number> Problem<'a, T> {
    fn new(kernel: [i64; 2], logits: &'a Tensor, bias: Option<&'a Tensor>, v: &'a Tensor) -> Self {
        for t in [Some(logits), bias, Some(v)].into_iter().flatten() {
            assert_eq!(t.kind(), T::KIND, "logits, bias and values of mixed kinds");
        }
        let problem = Problem {
            logits: View::new(logits),
            bias: bias.map(View::new),
            values: View::new(v),
            kernel: kernel.map(|n| n as usize),
        };
        problem.check();
        problem
    }

    /// Panics where shapes do not fit together.
    fn check(&self) {
        let [batch, groups, height, width, _] = self.values.size;
        let slots = self.kernel[0] * self.kernel[1];
        let wanted = [batch, groups, height, width, slots];
        assert_eq!(self.logits.size, wanted, "shape of the logits");
        assert_eq!(self.logits.stride[4], 1, "slots are not side by side");
        if let Some(bias) = &self.bias {
            assert_eq!(
                bias.size,
                [groups, height, width, slots],
                "shape of the bias"
            );
            assert_eq!(bias.stride[3], 1, "slots are not side by side");
        }
        let fits = self.kernel[0] <= height && self.kernel[1] <= width;
        assert!(
            fits,
            "a map of {height} x {width} is smaller than the window"
        );
    }

    /// Width of a value, padded.
    fn stride(&self) -> usize {
        self.values.size[4].next_multiple_of(WIDEST)
    }

    fn run(&self, isa: Isa) -> Tensor {
        let [batch, groups, height, width, dim] = self.values.size;
        let shape = [batch, height, width, groups, dim].map(|n| n as i64);
        let out = Tensor::empty(shape, (T::KIND, Device::Cpu));
        let target = Output(out.data_ptr() as *mut T);
        let bands = height.div_ceil(BAND);
        let item = |i: usize| Item {
            group: i % groups,
            first: i / groups % bands * BAND,
            batch: i / groups / bands,
        };
        let rows = (BAND + self.kernel[0] - 1).min(height);
        let slots = self.kernel[0] * self.kernel[1];
        let work = || Work {
            values: vec![0.0; rows * width * self.stride()],
            from: 0,
            weights: vec![0.0; slots.next_multiple_of(WIDEST)],
            out: vec![0.0; self.stride()],
        };
        threads::for_each(batch * bands * groups, 1, work, |work, i| {
            let step = Step {
                problem: self,
                item: item(i),
                work,
                target: &target,
            };
            // SAFETY: callers give sets that the CPU has.
            unsafe { isa.run(step) }
        });
        out.permute([0, 3, 1, 2, 4])
    }

    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    unsafe fn process<S: Simd>(&self, item: Item, work: &mut Work, target: &Output<T>) {
        let [_, groups, height, width, dim] = self.values.size;
        let last = (item.first + BAND).min(height);
        self.load_values(item, last, work);
        for row in item.first..last {
            for column in 0..width {
                self.load_logits(item, [row, column], work);
                // SAFETY: the caller vouches for the instruction set.
                let sum = unsafe {
                    let sum = soften::<S>(&mut work.weights);
                    self.mix::<S>([row, column], work);
                    sum
                };
                let place = ((item.batch * height + row) * width + column) * groups + item.group;
                // SAFETY: these `dim` elements are in the output, and no other item has this query of this group.
                let out = unsafe { std::slice::from_raw_parts_mut(target.0.add(place * dim), dim) };
                let share = 1.0 / sum;
                for (out, x) in out.iter_mut().zip(&work.out) {
                    *out = T::narrow(x * share);
                }
            }
        }
    }

    /// The first key of a query's window along an axis.
    #[inline(always)]
    fn first_key(&self, axis: usize, at: usize) -> usize {
        let (length, kernel) = (self.values.size[2 + axis], self.kernel[axis]);
        at.saturating_sub(kernel / 2).min(length - kernel)
    }

    /// Loads the values of all windows of a band.
    #[inline(always)]
    fn load_values(&self, item: Item, last: usize, work: &mut Work) {
        let ([_, _, _, width, dim], stride) = (self.values.size, self.stride());
        work.from = self.first_key(0, item.first);
        let to = self.first_key(0, last - 1) + self.kernel[0];
        let step = self.values.stride[4].max(1);
        for (row, place) in (work.from..to).zip(0..) {
            for column in 0..width {
                let start = self.values.offset([item.batch, item.group, row, column, 0]);
                let from = self.values.data[start..].iter().step_by(step);
                let to = &mut work.values[(place * width + column) * stride..][..dim];
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from.widen();
                }
            }
        }
    }

    /// Loads a query's logits times log2(e), bias included.
    #[inline(always)]
    fn load_logits(&self, item: Item, [row, column]: [usize; 2], work: &mut Work) {
        let slots = self.logits.size[4];
        let start = self.logits.offset([item.batch, item.group, row, column, 0]);
        let logits = &self.logits.data[start..start + slots];
        let (weights, padding) = work.weights.split_at_mut(slots);
        padding.fill(f32::NEG_INFINITY);
        match &self.bias {
            None => {
                for (to, x) in weights.iter_mut().zip(logits) {
                    *to = x.widen() * LOG2_E;
                }
            }
            Some(bias) => {
                let start = bias.offset([item.group, row, column, 0]);
                let bias = &bias.data[start..start + slots];
                for (to, (x, b)) in weights.iter_mut().zip(logits.iter().zip(bias)) {
                    *to = (x.widen() + b.widen()) * LOG2_E;
                }
            }
        }
    }

    /// The weighted sum of a window's values.
    ///
    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    unsafe fn mix<S: Simd>(&self, [row, column]: [usize; 2], work: &mut Work) {
        /// Sums that do not wait for each other.
        const SUMS: usize = 4;
        let (stride, width) = (self.stride(), self.values.size[3]);
        let [rows, columns] = self.kernel;
        let first = self.first_key(0, row) - work.from;
        let start = first * width + self.first_key(1, column);
        for (i, out) in work.out.chunks_exact_mut(S::LANES).enumerate() {
            // SAFETY: the caller vouches for the instruction set; slices are whole vectors.
            unsafe {
                let mut sums = [S::splat(0.0); SUMS];
                for a in 0..rows {
                    let values = &work.values[(start + a * width) * stride + i * S::LANES..];
                    let weights = &work.weights[a * columns..][..columns];
                    let mut b = 0;
                    while b + SUMS <= columns {
                        for (j, sum) in sums.iter_mut().enumerate() {
                            let value = &values[(b + j) * stride..][..S::LANES];
                            let weight = S::splat(weights[b + j]);
                            *sum = S::mul_add(weight, S::load(value.as_ptr()), *sum);
                        }
                        b += SUMS;
                    }
                    for b in b..columns {
                        let value = &values[b * stride..][..S::LANES];
                        let weight = S::splat(weights[b]);
                        sums[0] = S::mul_add(weight, S::load(value.as_ptr()), sums[0]);
                    }
                }
                let pairs = [S::add(sums[0], sums[1]), S::add(sums[2], sums[3])];
                S::store(out.as_mut_ptr(), S::add(pairs[0], pairs[1]));
            }
        }
    }
}

/// Logits to exponentials relative to the greatest; returns their sum.
///
/// # Safety
/// The CPU has the instruction set `S`.
#[inline(always)]
unsafe fn soften<S: Simd>(weights: &mut [f32]) -> f32 {
    // SAFETY: the caller vouches for the instruction set; chunks and arrays are whole vectors.
    unsafe {
        let mut greatest = S::splat(f32::NEG_INFINITY);
        for part in weights.chunks_exact(S::LANES) {
            greatest = S::max(S::load(part.as_ptr()), greatest);
        }
        let mut lanes = [f32::NEG_INFINITY; WIDEST];
        S::store(lanes.as_mut_ptr(), greatest);
        let max = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = S::splat(0.0);
        for part in weights.chunks_exact_mut(S::LANES) {
            let weight = S::exp2(S::sub(S::load(part.as_ptr()), S::splat(max)));
            S::store(part.as_mut_ptr(), weight);
            sum = S::add(sum, weight);
        }
        S::sum(sum)
    }
}
