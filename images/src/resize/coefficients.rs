//! Which source pixels an output pixel is made of, and with which weights.

use std::ops::Range;

/// Fixed-point bits of a weight: 32 less 8 of the pixel less 2 for overshoot.
pub(super) const WEIGHT_BITS: u32 = 32 - 8 - 2;

/// A resampling filter, named as Pillow names it; all of them antialias (widen) when the image shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// Mean of the covered pixels.
    Box,
    /// Triangle.
    Bilinear,
    /// Keys' cubic with a = -0.5.
    Bicubic,
    /// Sinc windowed to three lobes.
    Lanczos,
}

impl Interpolation {
    /// Half the filter's width, in source pixels when enlarging.
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// Weight at distance `x`. The order of operations is Pillow's, so that the weights are the same doubles.
    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => bicubic(x.abs()),
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// Rounds half away from zero by adding 0.5 and truncating, as Pillow does.
fn to_fixed(weight: &f64) -> i32 {
    (weight * f64::from(1 << WEIGHT_BITS) + 0.5f64.copysign(*weight)) as i32
}

/// The weighted source pixels of a range of output pixels along one axis.
///
/// Weights that round to zero at either end of a filter are left out: they cannot change a sum.
pub(super) struct Taps {
    starts: Vec<usize>,
    counts: Vec<usize>,
    weights: Vec<i32>,
    /// Weights reserved for each output pixel; those past its count are 0.
    capacity: usize,
    sources: Range<usize>,
}

impl Taps {
    /// Taps of the output pixels `wanted` when `from` pixels become `to`.
    pub(super) fn new(
        from: usize,
        to: usize,
        wanted: Range<usize>,
        interpolation: Interpolation,
    ) -> Self {
        let scale = from as f64 / to as f64;
        let filter = Filter {
            interpolation,
            from,
            scale,
            widening: scale.max(1.0),
        };
        let capacity = filter.support().ceil() as usize * 2 + 1;
        let mut taps = Self {
            starts: Vec::with_capacity(wanted.len()),
            counts: Vec::with_capacity(wanted.len()),
            weights: Vec::with_capacity(wanted.len() * capacity),
            capacity,
            sources: from..0,
        };
        let mut exact = Vec::with_capacity(capacity);
        for output in wanted {
            let start = filter.weigh(output, &mut exact);
            taps.push(start, &exact);
        }
        taps
    }

    fn push(&mut self, start: usize, exact: &[f64]) {
        let kept_from = exact.iter().position(|w| to_fixed(w) != 0).unwrap_or(0);
        let kept_to = exact.iter().rposition(|w| to_fixed(w) != 0).unwrap_or(0) + 1;
        let end = self.weights.len() + self.capacity;
        self.weights
            .extend(exact[kept_from..kept_to].iter().map(to_fixed));
        self.weights.resize(end, 0);
        self.starts.push(start + kept_from);
        self.counts.push(kept_to - kept_from);
        self.sources.start = self.sources.start.min(start + kept_from);
        self.sources.end = self.sources.end.max(start + kept_to);
    }

    /// Number of output pixels.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The most source pixels that one output pixel has.
    pub(super) fn longest(&self) -> usize {
        self.counts.iter().copied().max().unwrap_or(0)
    }

    /// First source pixel of output pixel `index`, and the weights from there on.
    pub(super) fn at(&self, index: usize) -> (usize, &[i32]) {
        let first = index * self.capacity;
        (
            self.starts[index],
            &self.weights[first..first + self.counts[index]],
        )
    }

    /// The source pixels that any of the output pixels depends on.
    pub(super) fn sources(&self) -> Range<usize> {
        self.sources.clone()
    }
}

/// A filter laid over a source axis.
struct Filter {
    interpolation: Interpolation,
    from: usize,
    scale: f64,
    widening: f64,
}

impl Filter {
    fn support(&self) -> f64 {
        self.interpolation.support() * self.widening
    }

    /// Puts the normalised weights of `output` in `weights`; returns the source pixel of the first.
    fn weigh(&self, output: usize, weights: &mut Vec<f64>) -> usize {
        let centre = (output as f64 + 0.5) * self.scale;
        let support = self.support();
        let start = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(self.from);
        let narrowing = 1.0 / self.widening;
        weights.clear();
        weights.extend((start..end).map(|source| {
            let distance = source as f64 - centre + 0.5;
            self.interpolation.weight(distance * narrowing)
        }));
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        start
    }
}
