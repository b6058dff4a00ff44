//! Connectivity masks: every query predicts, at low rank, which keys it needs, and attends to those only.
//!
//! Source: "Sparsifiner", CVPR 2023, arXiv 2303.13755; official code lim142857/Sparsifiner, `src/models/sparsifiner.py`.
//!
//! The composed form makes the whole map of scores and masks it: a gather would copy the kept keys and values once for
//! every query, a quarter of an N x N x D volume at the published keep rate, to save less arithmetic than it moves.
//! So it executes all N keys of a query where the paper claims only the kept ones. Tokens that are pruned are another
//! matter: they are never computed, only the live ones are passed in.
//!
//! The fused form (CPU, f32 and bf16) computes the kept pairs only, and never holds scores, mask or map. Choosing is then
//! what costs: the scores of all N keys and the search for the best of them take about as long as attending does.

use crate::attention::{pairs_of, streaming_applies};
use crate::{Derived, Linear};
use crate::{onednn, taps, work};
use tch::{Kind, Tensor, nn};

mod kernel;
mod select;

/// Which entries of a row stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    /// The so many largest, or all of them where there are fewer.
    Largest(i64),
    /// Those strictly above a threshold: possibly none.
    Above(f64),
}

/// Sizes and thresholds of a [`ConnectivityPredictor`].
#[derive(Debug, Clone, Copy)]
pub struct ConnectivityConfig {
    /// Tokens, the class token included (N).
    pub tokens: i64,
    /// Tokens after down-projection, and entries of the basis (K).
    pub reduced_tokens: i64,
    /// Heads (H).
    pub heads: i64,
    /// Width of a head (D).
    pub head_width: i64,
    /// Width of a head after down-projection (c).
    pub reduced_width: i64,
    /// Which coefficients of the basis stay; their values are not renormalised.
    pub coefficients: Keep,
    /// Entries of the basis that are not strictly larger count as zero.
    pub basis_above: f64,
    /// Which keys a query is connected with.
    pub connections: Keep,
}

/// Predicts which keys each query needs.
///
/// Names: `proj_c_q` and `proj_c_k`, linear layers D to c shared by the heads; `proj_n` and `proj_back_n` [N, K].
#[derive(Debug)]
pub struct ConnectivityPredictor {
    proj_c_q: Linear,
    proj_c_k: Linear,
    proj_n: Tensor,
    proj_back_n: Tensor,
    config: ConnectivityConfig,
    folded: Option<Folded>,
}

/// What a [`ConnectivityPredictor`] found for L live patch tokens and 1 + L keys, the class token's first.
#[derive(Debug)]
pub struct Connectivity {
    /// Coefficients of the basis that were kept, the others zero: [B, H, L, K].
    pub coefficients: Tensor,
    /// Score of every pair: [B, H, L, 1 + L].
    pub scores: Tensor,
    /// Whether the pair is connected, Bool: [B, H, L, 1 + L].
    pub mask: Tensor,
    may_be_empty: bool,
}

impl ConnectivityPredictor {
    /// A predictor at path `p`.
    pub fn new(p: &nn::Path, config: ConnectivityConfig) -> Self {
        let table = |name| {
            let init = nn::Init::Randn {
                mean: 0.0,
                stdev: 0.02,
            };
            p.var(name, &[config.tokens, config.reduced_tokens], init)
        };
        let channels =
            |name: &str| Linear::new(p / name, config.head_width, config.reduced_width, true);
        ConnectivityPredictor {
            proj_c_q: channels("proj_c_q"),
            proj_c_k: channels("proj_c_k"),
            proj_n: table("proj_n"),
            proj_back_n: table("proj_back_n"),
            config,
            folded: None,
        }
    }

    /// Queries [B, H, L, D] of patch tokens against keys [B, H, 1 + L, D] of the class token and the same patch tokens.
    ///
    /// `live` [B, 1 + L] gives the keys' positions among the N tokens; without it they are all there, in order.
    /// With it a query keeps no more than L keys, one of which may be the class token: the official budget.
    pub fn predict(&self, q: &Tensor, k: &Tensor, live: Option<&Tensor>) -> Connectivity {
        let cheap = self.low_rank_scores(q, k, live);
        let coefficients = self
            .config
            .coefficients
            .apply(&cheap.softmax(-1, None::<Kind>));
        let basis = self.basis(&coefficients);
        let scores = match live {
            None => work::matmul(&coefficients, &basis),
            Some(live) => {
                let columns = rows_at(&basis.tr(), live).transpose(1, 2);
                work::matmul(&coefficients, &columns.unsqueeze(1))
            }
        };
        let connections = match live {
            None => self.config.connections,
            Some(_) => self.config.connections.at_most(q.size()[2]),
        };
        Connectivity {
            mask: connections.mask(&scores),
            coefficients,
            scores,
            may_be_empty: matches!(self.config.connections, Keep::Above(_)),
        }
    }

    /// Attention of 1 + L tokens, the class token first and connected with all, by the fused kernel: q, k, v
    /// [B, H, 1 + L, D] to merged heads [B, 1 + L, H * D]. `live` as in [`ConnectivityPredictor::predict`].
    ///
    /// Pairs that are not connected are not computed; the `absent` tokens that are not live weigh in the class token's
    /// softmax with score and value zero. Of equal scores at the border the first keys stay.
    ///
    /// None where the kernel does not apply: before [`ConnectivityPredictor::fuse`], off the CPU, in f64, while
    /// gradients or taps are recorded, for head widths other than 32 and 64.
    pub fn attend(
        &self,
        [q, k, v]: [&Tensor; 3],
        live: Option<&Tensor>,
        scale: f64,
    ) -> Option<Tensor> {
        let folded = self.folded.as_ref()?;
        if taps::recording() || !onednn::applies(q) || !kernel::applies(q) {
            return None;
        }
        let keys = q.size()[2];
        let patches = q.slice(2, 1, None, 1);
        if work::recording() {
            self.report(&patches, [q, k, v], live);
        }
        let basis = folded.basis.like(q);
        let (basis, connections) = match live {
            None => (basis.unsqueeze(0), self.config.connections),
            Some(live) => (
                rows_at(&basis.tr(), live).transpose(1, 2),
                self.config.connections.at_most(keys - 1),
            ),
        };
        Some(kernel::attend(&kernel::Inputs {
            low_rank: &self.low_rank_scores(&patches, k, live),
            basis: &basis,
            q,
            k,
            v,
            coefficients: self.config.coefficients,
            connections,
            scale,
            absent: self.config.tokens - keys,
        }))
    }

    /// Reports the products of the fused kernel: only the pairs that are connected, and all of the class token.
    fn report(&self, patches: &Tensor, [q, k, v]: [&Tensor; 3], live: Option<&Tensor>) {
        let found = work::aside(|| self.predict(patches, k, live));
        let connected = found.mask.sum(Kind::Int64).int64_value(&[]) as u64;
        let of_class = pairs_of(&q.narrow(2, 0, 1), k);
        work::attention(q, v, connected + of_class, pairs_of(q, k));
    }

    /// |proj_back_n|^T [K, N] with its small entries zeroed, like `x`.
    pub fn basis(&self, x: &Tensor) -> Tensor {
        match &self.folded {
            Some(folded) => folded.basis.like(x),
            None => sparse_basis(&self.proj_back_n, self.config.basis_above),
        }
    }

    /// Coefficients of the basis before softmax, [B, H, L, K]. The scale is H^-1/2, as the official code has it.
    fn low_rank_scores(&self, q: &Tensor, k: &Tensor, live: Option<&Tensor>) -> Tensor {
        let down = match &self.folded {
            Some(folded) => folded.down.like(k),
            None => self.proj_n.shallow_clone(),
        };
        let down = match live {
            Some(live) => rows_at(&down, live).unsqueeze(1),
            None => down,
        };
        if let Some(folded) = &self.folded {
            return folded.low_rank_scores(q, k, &down);
        }
        let q = self.proj_c_q.forward(q);
        let k = work::matmul(&self.proj_c_k.forward(k).transpose(-2, -1), &down);
        work::matmul(&q, &k) * self.scale()
    }

    fn scale(&self) -> f64 {
        (self.config.heads as f64).powf(-0.5)
    }

    /// Makes the basis once, projects keys over tokens before channels, and moves the queries' projection to the
    /// keys' side: per head (2N + D)KD multiply-adds instead of 2(D + K)Nc.
    pub fn fuse(&mut self) {
        if self.folded.is_none() {
            self.folded = Some(Folded::new(self));
        }
    }
}

/// The predictor's projections, folded in float64.
#[derive(Debug)]
struct Folded {
    /// [K, N].
    basis: Derived,
    /// `proj_n` [N, K].
    down: Derived,
    /// [D, D + 1]: a down-projected key to what the queries meet, and to its own offset.
    keys: Derived,
    /// [1, D + 1]: the same of the key projection's bias, for each unit of down-projection weight.
    offset: Derived,
}

impl Folded {
    /// s (W_q q + b_q) . (W_k k_j + w_j b_k), with k_j = sum_n proj_n[n, j] k_n and w_j = sum_n proj_n[n, j].
    fn new(predictor: &ConnectivityPredictor) -> Self {
        let ((wq, bq), (wk, bk)) = (predictor.proj_c_q.exact(), predictor.proj_c_k.exact());
        let queries = match bq {
            Some(bq) => Tensor::cat(&[wq, bq.unsqueeze(1)], 1),
            None => wq.constant_pad_nd([0, 1]),
        } * predictor.scale();
        let bk = bk.unwrap_or_else(|| wk.narrow(1, 0, 1).squeeze_dim(1).zeros_like());
        let back = predictor.proj_back_n.detach().to_kind(Kind::Double);
        Folded {
            basis: Derived::new(sparse_basis(&back, predictor.config.basis_above).contiguous()),
            down: Derived::new(predictor.proj_n.detach().copy()),
            keys: Derived::new(wk.tr().matmul(&queries)),
            offset: Derived::new(bk.unsqueeze(0).matmul(&queries)),
        }
    }

    fn low_rank_scores(&self, q: &Tensor, k: &Tensor, down: &Tensor) -> Tensor {
        let weight = down.sum_dim_intlist(-2, false, None::<Kind>).unsqueeze(-1);
        let reduced = work::matmul(&down.transpose(-2, -1), k);
        let keys = work::matmul(&reduced, &self.keys.like(k)) + weight * self.offset.like(k);
        let width = q.size().last().copied().unwrap_or(0);
        let keys = keys.transpose(-2, -1);
        work::matmul(q, &keys.narrow(-2, 0, width)) + keys.narrow(-2, width, 1)
    }
}

/// |back|^T with entries that are not strictly above `threshold` set to zero.
fn sparse_basis(back: &Tensor, threshold: f64) -> Tensor {
    back.tr().abs().threshold(threshold, 0.0)
}

/// Rows of `table` [N, ..] at `index` [B, M]: [B, M, ..].
fn rows_at(table: &Tensor, index: &Tensor) -> Tensor {
    let count = index.size()[1];
    table
        .index_select(0, &index.flatten(0, 1))
        .unflatten(0, [-1, count])
}

impl Keep {
    /// `x` with the entries of each row (last axis) that do not stay set to zero.
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Keep::Above(threshold) => x.threshold(threshold, 0.0),
            Keep::Largest(_) if self.keeps_all(x) => x.shallow_clone(),
            Keep::Largest(count) => {
                let (values, index) = x.topk(count, -1, true, false);
                x.zeros_like().scatter(-1, &index, &values)
            }
        }
    }

    /// Which entries of each row (last axis) stay, Bool. Of equal entries at the border libtorch's `topk` chooses.
    pub fn mask(self, x: &Tensor) -> Tensor {
        match self {
            Keep::Above(threshold) => x.gt(threshold),
            Keep::Largest(_) if self.keeps_all(x) => x.ones_like().to_kind(Kind::Bool),
            Keep::Largest(count) => {
                let (_, index) = x.topk(count, -1, true, false);
                x.zeros_like()
                    .to_kind(Kind::Bool)
                    .scatter_value(-1, &index, 1)
            }
        }
    }

    fn at_most(self, limit: i64) -> Self {
        match self {
            Keep::Largest(count) => Keep::Largest(count.min(limit)),
            above => above,
        }
    }

    fn keeps_all(self, x: &Tensor) -> bool {
        let row = x.size().last().copied().unwrap_or(0);
        matches!(self, Keep::Largest(count) if count >= row)
    }
}

impl Connectivity {
    /// Attention weights [B, H, L, 1 + L]: softmax of q k^T * scale over the connected keys; zeros in a row without any.
    pub fn weights(&self, q: &Tensor, k: &Tensor, scale: f64) -> Tensor {
        let cut = self.mask.logical_not();
        let scores = work::matmul(&(q * scale), &k.transpose(-2, -1));
        let weights = scores
            .masked_fill(&cut, f64::NEG_INFINITY)
            .softmax(-1, None::<Kind>);
        if self.may_be_empty {
            weights.masked_fill(&cut, 0.0)
        } else {
            weights
        }
    }

    /// [`Connectivity::weights`] times `v`: [B, H, L, D]. `fused` allows libtorch's streaming kernel.
    pub fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f64, fused: bool) -> Tensor {
        if fused && !self.may_be_empty && streaming_applies(q) {
            let mask = Some(&self.mask);
            let pairs = pairs_of(q, k);
            work::attention(q, v, pairs, pairs);
            return Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, false, scale, false);
        }
        work::matmul(&self.weights(q, k, scale), v)
    }
}

#[cfg(test)]
mod tests;
