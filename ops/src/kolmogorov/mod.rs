//! Kolmogorov-Arnold attention: a learnable map of low rank in the place of the softmax (arXiv 2503.10632).
//!
//! For a row of scores s over N keys, phi_p = sum over q of unit_pq(s_q) for p = 1..r, and the attention row is
//! sigma = W phi, of any sign and sum. The units of a head are r x N univariate functions of one [`Basis`].

mod simplex;
mod units;

use crate::{Derived, onednn, work};
use tch::{Kind, Tensor, nn};
use units::Units;

pub use simplex::Simplex;
pub use units::Wavelet;

/// The family of functions that the units are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// sum over m = 1..grid of a_m cos(m x) + b_m sin(m x). Names: `a`, `b` [H, r, N, grid].
    Fourier {
        /// Number of frequencies.
        grid: i64,
    },
    /// (a_0 + .. + a_5 x^5) / (1 + |b_1 x + .. + b_4 x^4|). Names: `a` [H, r, N, 6], `b` [H, r, N, 4].
    Rational,
    /// u psi((x - tau) / scale). Names: `u`, `tau` [H, r, N], `scale` [H r N].
    Wavelet(Wavelet),
    /// u (silu(x) + sum over m of c_m B_m(x)), cubic B-splines on 10 intervals of [-4, 4]. Names: `c` [H, r, N, 13],
    /// `u` [H, r, N].
    Spline,
}

/// A function added to every unit, without a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// None.
    Zero,
    /// x.
    Identity,
    /// x sigmoid(x).
    Silu,
    /// Exact GELU.
    Gelu,
}

impl Base {
    /// The sum over the keys, [B, H, M, 1]: the same for every unit of a row.
    fn sum(self, scores: &Tensor) -> Option<Tensor> {
        let values = match self {
            Base::Zero => return None,
            Base::Identity => scores.shallow_clone(),
            Base::Silu => scores.silu(),
            Base::Gelu => scores.gelu("none"),
        };
        Some(values.sum_dim_intlist(-1, true, None::<Kind>))
    }
}

/// Shape and functions of a [`ScoreMap`].
#[derive(Debug, Clone, Copy)]
pub struct ScoreMapConfig {
    /// Attention heads, H.
    pub heads: i64,
    /// Keys, N: fixed by the parameters.
    pub tokens: i64,
    /// Sums per row, r.
    pub rank: i64,
    /// The units' functions.
    pub basis: Basis,
    /// What every unit has besides.
    pub base: Base,
    /// Whether phi is projected on the probability simplex.
    pub simplex: bool,
}

/// The learnable map from scores to attention. Names: those of the [`Basis`], and `w` [H, N, r].
#[derive(Debug)]
pub struct ScoreMap {
    units: Units,
    base: Base,
    simplex: Option<Simplex>,
    w: Tensor,
    fused: bool,
}

/// Scores that each thread has in hand at a time, so that the maps made of them stay in its cache.
const TILE: i64 = 1 << 17;

impl ScoreMap {
    /// The operator of one block, or of all, at path `p`.
    pub fn new(p: &nn::Path, config: &ScoreMapConfig) -> Self {
        let ScoreMapConfig {
            heads,
            tokens,
            rank,
            ..
        } = *config;
        ScoreMap {
            units: Units::new(p, config.basis, [heads, rank, tokens]),
            base: config.base,
            simplex: config.simplex.then(|| Simplex::new(rank)),
            w: p.var(
                "w",
                &[heads, tokens, rank],
                nn::init::DEFAULT_KAIMING_UNIFORM,
            ),
            fused: false,
        }
    }

    /// Scores [B, H, M, N] of M queries to phi [B, H, M, r]. Nothing larger than the scores is made.
    ///
    /// The fused form goes through the batch a few images at a time.
    pub fn phi(&self, scores: &Tensor) -> Tensor {
        let batch = scores.size()[0];
        let image: i64 = scores.size()[1..].iter().product();
        let images = (TILE * i64::from(tch::get_num_threads()) / image).max(1);
        if !self.fused || batch <= images || !onednn::applies(scores) {
            return self.phi_of(scores);
        }
        let tiles: Vec<Tensor> = scores
            .split(images, 0)
            .iter()
            .map(|tile| self.phi_of(tile))
            .collect();
        Tensor::cat(&tiles, 0)
    }

    fn phi_of(&self, scores: &Tensor) -> Tensor {
        let sums = self.units.sums(scores);
        let phi = match self.base.sum(scores) {
            Some(base) => sums + base,
            None => sums,
        };
        match &self.simplex {
            Some(simplex) => simplex.project(&phi),
            None => phi,
        }
    }

    /// The attention sigma = phi W^T, [B, H, M, r] to [B, H, M, N].
    pub fn sigma(&self, phi: &Tensor) -> Tensor {
        work::matmul(phi, &self.w.transpose(1, 2))
    }

    /// sigma v = phi (W^T v) without sigma: phi [B, H, M, r] and v [B, H, N, D] to [B, H, M, D].
    pub fn gather(&self, phi: &Tensor, v: &Tensor) -> Tensor {
        work::matmul(phi, &work::matmul(&self.w.transpose(1, 2), v))
    }

    /// Declares the weights final: coefficients are kept as the products want them.
    pub fn fuse(&mut self) {
        self.units.fuse();
        self.fused = true;
    }
}

/// A matrix [H, N, r] from coefficients [H, r, N].
fn transposed(coefficients: &Tensor) -> Derived {
    Derived::new(coefficients.detach().transpose(1, 2).contiguous())
}

#[cfg(test)]
mod tests;
