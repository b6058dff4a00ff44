//! The units: r x N learnable univariate functions per head, summed over the N keys.

use super::{Basis, transposed};
use crate::{Derived, work};
use std::f64::consts::PI;
use tch::{Device, Kind, Tensor, nn};

/// Values of a spline's interval: knots -4 + 0.8 (i - 3).
const SPLINE_LIMIT: f64 = 4.0;
const SPLINE_STEP: f64 = 0.8;
/// Intervals plus degree.
const SPLINES: i64 = 13;

const NORMAL: nn::Init = nn::Init::Randn {
    mean: 0.0,
    stdev: 1.0,
};

/// The mother wavelet psi(z).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wavelet {
    /// 2 / (sqrt(3) pi^(1/4)) (z^2 - 1) exp(-z^2 / 2).
    MexicanHat,
    /// cos(5 z) exp(-z^2 / 2).
    Morlet,
    /// z exp(-z^2 / 2), a derivative of a Gaussian.
    Dog,
    /// sin(pi |z|) m(|z|), where m falls from 1 at 1/2 to 0 at 1 as cos(pi/2 nu(2 |z| - 1)),
    /// nu(t) = t^4 (35 - 84 t + 70 t^2 - 20 t^3).
    Meyer,
    /// sin(z) / z, times a Hamming window over the keys.
    Shannon,
}

impl Wavelet {
    fn psi(self, z: &Tensor) -> Tensor {
        match self {
            Wavelet::MexicanHat => {
                let square = z.square();
                let norm = 2.0 / (3f64.sqrt() * PI.powf(0.25));
                (&square - 1.0) * (square * -0.5).exp() * norm
            }
            Wavelet::Morlet => (z * 5.0).cos() * gaussian(z),
            Wavelet::Dog => z * gaussian(z),
            Wavelet::Meyer => {
                let z = z.abs();
                let t = (&z * 2.0 - 1.0).clamp(0.0, 1.0);
                let cubic = ((&t * -20.0 + 70.0) * &t - 84.0) * &t + 35.0;
                let nu = t.square().square() * cubic;
                (z * PI).sin() * (nu * (PI / 2.0)).cos()
            }
            Wavelet::Shannon => (z * (1.0 / PI)).sinc(),
        }
    }

    /// What the wavelet's value is multiplied with at each of the keys, where it is.
    fn window(self, tokens: i64) -> Option<Derived> {
        (self == Wavelet::Shannon).then(|| {
            let q = Tensor::arange(tokens, (Kind::Double, Device::Cpu));
            let last = (tokens - 1).max(1) as f64;
            Derived::new((q * (2.0 * PI / last)).cos() * -0.46 + 0.54)
        })
    }
}

fn gaussian(z: &Tensor) -> Tensor {
    (z.square() * -0.5).exp()
}

/// The units' parameters.
#[derive(Debug)]
pub(super) enum Units {
    Fourier(Fourier),
    Rational(Rational),
    Wavelet(Wavelets),
    Spline(Spline),
}

impl Units {
    /// `shape` is [H, r, N].
    pub(super) fn new(p: &nn::Path, basis: Basis, shape: [i64; 3]) -> Self {
        match basis {
            Basis::Fourier { grid } => Units::Fourier(Fourier::new(p, grid, shape)),
            Basis::Rational => Units::Rational(Rational::new(p, shape)),
            Basis::Wavelet(wavelet) => Units::Wavelet(Wavelets::new(p, wavelet, shape)),
            Basis::Spline => Units::Spline(Spline::new(p, shape)),
        }
    }

    /// Scores [B, H, M, N] to the sums over the keys, [B, H, M, r].
    pub(super) fn sums(&self, x: &Tensor) -> Tensor {
        match self {
            Units::Fourier(units) => units.sums(x),
            Units::Rational(units) => units.sums(x),
            Units::Wavelet(units) => units.sums(x),
            Units::Spline(units) => units.sums(x),
        }
    }

    pub(super) fn fuse(&mut self) {
        match self {
            Units::Fourier(units) => units.fuse(),
            Units::Spline(units) => units.fuse(),
            // Nothing to prepare: every unit has its own non-linearity.
            Units::Rational(_) | Units::Wavelet(_) => {}
        }
    }
}

/// Products of the same harmonics with every unit's coefficients: no value per score and unit is ever made.
#[derive(Debug)]
pub(super) struct Fourier {
    a: Tensor,
    b: Tensor,
    grid: i64,
    /// For each frequency the matrices [H, N, r] of cosine and sine.
    prepared: Option<Vec<[Derived; 2]>>,
}

impl Fourier {
    fn new(p: &nn::Path, grid: i64, [heads, rank, tokens]: [i64; 3]) -> Self {
        let shape = [heads, rank, tokens, grid];
        Fourier {
            a: p.var("a", &shape, NORMAL),
            b: p.var("b", &shape, NORMAL),
            grid,
            prepared: None,
        }
    }

    fn sums(&self, x: &Tensor) -> Tensor {
        match &self.prepared {
            Some(prepared) => by_recurrence(prepared, x),
            None => (1..=self.grid)
                .map(|m| {
                    let angle = x * m as f64;
                    let of = |t: &Tensor| t.select(3, m - 1).transpose(1, 2);
                    work::matmul(&angle.cos(), &of(&self.a))
                        + work::matmul(&angle.sin(), &of(&self.b))
                })
                .reduce(|sum, term| sum + term)
                .unwrap_or_else(|| x.narrow(3, 0, 1) * 0.0),
        }
    }

    fn fuse(&mut self) {
        let of = |t: &Tensor, m: i64| transposed(&t.select(3, m));
        self.prepared = Some(
            (0..self.grid)
                .map(|m| [of(&self.a, m), of(&self.b, m)])
                .collect(),
        );
    }
}

/// One cosine and one sine per score; the harmonics follow: cos (m+1)x = cos mx cos x - sin mx sin x, and so for sin.
fn by_recurrence(prepared: &[[Derived; 2]], x: &Tensor) -> Tensor {
    let (cos, sin) = (x.cos(), x.sin());
    let term = |[a, b]: &[Derived; 2], c: &Tensor, s: &Tensor| {
        work::matmul(c, &a.like(x)) + work::matmul(s, &b.like(x))
    };
    let (mut c, mut s) = (cos.shallow_clone(), sin.shallow_clone());
    let mut sum = term(&prepared[0], &c, &s);
    for matrices in &prepared[1..] {
        (c, s) = (&c * &cos - &s * &sin, &s * &cos + &c * &sin);
        sum = &sum + term(matrices, &c, &s);
    }
    sum
}

/// "Safe Pade" units of degrees 5 and 4.
#[derive(Debug)]
pub(super) struct Rational {
    a: Tensor,
    b: Tensor,
}

impl Rational {
    fn new(p: &nn::Path, [heads, rank, tokens]: [i64; 3]) -> Self {
        Rational {
            a: p.var("a", &[heads, rank, tokens, 6], NORMAL),
            b: p.var("b", &[heads, rank, tokens, 4], NORMAL),
        }
    }

    fn sums(&self, x: &Tensor) -> Tensor {
        row_by_row(self.a.size()[1], |p| {
            let numerator = polynomial(&self.a, p, x);
            let denominator = (polynomial(&self.b, p, x) * x).abs() + 1.0;
            (numerator / denominator).sum_dim_intlist(-1, false, None::<Kind>)
        })
    }
}

/// Horner's rule with the coefficients of row `p`, lowest first: [B, H, M, N].
fn polynomial(coefficients: &Tensor, p: i64, x: &Tensor) -> Tensor {
    let row = coefficients.narrow(1, p, 1);
    let degree = row.size()[3] - 1;
    let of = |i: i64| row.select(3, i);
    (0..degree)
        .rev()
        .fold(of(degree), |value, i| of(i).addcmul(&value, x))
}

/// Joins the sums [B, H, M] of every row of units; one map of the scores' size is alive at a time.
fn row_by_row(rank: i64, row: impl Fn(i64) -> Tensor) -> Tensor {
    let rows: Vec<Tensor> = (0..rank).map(row).collect();
    Tensor::stack(&rows, -1)
}

/// Units u psi((x - tau) / scale).
#[derive(Debug)]
pub(super) struct Wavelets {
    wavelet: Wavelet,
    u: Tensor,
    tau: Tensor,
    scale: Tensor,
    window: Option<Derived>,
}

impl Wavelets {
    fn new(p: &nn::Path, wavelet: Wavelet, shape: [i64; 3]) -> Self {
        Wavelets {
            wavelet,
            u: p.var("u", &shape, NORMAL),
            tau: p.zeros("tau", &shape),
            scale: p.ones("scale", &[shape.iter().product()]),
            window: wavelet.window(shape[2]),
        }
    }

    fn sums(&self, x: &Tensor) -> Tensor {
        let scale = self.scale.view_as(&self.u);
        let u = match &self.window {
            Some(window) => &self.u * window.like(x),
            None => self.u.shallow_clone(),
        };
        row_by_row(self.u.size()[1], |p| {
            let z = (x - self.tau.narrow(1, p, 1)) / scale.narrow(1, p, 1);
            let weights = u.select(1, p).unsqueeze(2);
            work::matmul(&self.wavelet.psi(&z), &weights).squeeze_dim(3)
        })
    }
}

/// Cubic B-splines on one grid for all units, so that their values are shared and weighted by a product.
#[derive(Debug)]
pub(super) struct Spline {
    c: Tensor,
    u: Tensor,
    /// [H, N, r]: u, then u c_m for each spline.
    prepared: Option<Vec<Derived>>,
}

impl Spline {
    fn new(p: &nn::Path, [heads, rank, tokens]: [i64; 3]) -> Self {
        Spline {
            c: p.var("c", &[heads, rank, tokens, SPLINES], NORMAL),
            u: p.var("u", &[heads, rank, tokens], NORMAL),
            prepared: None,
        }
    }

    fn sums(&self, x: &Tensor) -> Tensor {
        let matrix = |i: i64| match &self.prepared {
            Some(prepared) => prepared[i as usize].like(x),
            None => self.coefficients(i).transpose(1, 2),
        };
        (0..SPLINES).fold(work::matmul(&x.silu(), &matrix(0)), |sum, m| {
            sum + work::matmul(&spline(x, m), &matrix(m + 1))
        })
    }

    /// [H, r, N]: u for the first, then u c_m.
    fn coefficients(&self, i: i64) -> Tensor {
        match i {
            0 => self.u.shallow_clone(),
            m => &self.u * self.c.select(3, m - 1),
        }
    }

    fn fuse(&mut self) {
        let matrices = (0..=SPLINES).map(|i| transposed(&self.coefficients(i)));
        self.prepared = Some(matrices.collect());
    }
}

/// B_m(x): the cardinal cubic spline (max(2 - |y|, 0)^3 - 4 max(1 - |y|, 0)^3) / 6 around the middle of its 5 knots,
/// y in intervals.
fn spline(x: &Tensor, m: i64) -> Tensor {
    let middle = -SPLINE_LIMIT + SPLINE_STEP * (m - 1) as f64;
    let distance = ((x - middle) * (1.0 / SPLINE_STEP)).abs();
    let cube = |reach: f64| {
        let t = (reach - &distance).relu();
        t.square() * t
    };
    (cube(2.0) - cube(1.0) * 4.0) * (1.0 / 6.0)
}
