//! Connectivity masks: every query predicts, at low rank, which keys it needs, and attends to those only.
//!
//! Source: "Sparsifiner", CVPR 2023, arXiv 2303.13755; official code lim142857/Sparsifiner, `src/models/sparsifiner.py`.
//!
//! The composed form makes the whole map of scores and masks it: a gather would copy the kept keys and values once for
//! every query, a quarter of an N x N x D volume at the published keep rate, to save less arithmetic than it moves.
//! So it executes all N keys of a query where the paper claims only the kept ones. Tokens that are pruned are another
//! matter: they are never computed, only the live ones are passed in.

use crate::attention::streaming_applies;
use crate::{Derived, Linear};
use tch::{Kind, Tensor, nn};

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
            None => coefficients.matmul(&basis),
            Some(live) => {
                let columns = rows_at(&basis.tr(), live).transpose(1, 2);
                coefficients.matmul(&columns.unsqueeze(1))
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

    /// |proj_back_n|^T [K, N] with its small entries zeroed, like `x`.
    pub fn basis(&self, x: &Tensor) -> Tensor {
        match &self.folded {
            Some(folded) => folded.basis.like(x),
            None => sparse_basis(&self.proj_back_n, self.config.basis_above),
        }
    }

    /// Coefficients of the basis before softmax, [B, H, L, K]. The scale is H^-1/2, as the official code has it.
    fn low_rank_scores(&self, q: &Tensor, k: &Tensor, live: Option<&Tensor>) -> Tensor {
        let down = match live {
            None => self.proj_n.shallow_clone(),
            Some(live) => rows_at(&self.proj_n, live).unsqueeze(1),
        };
        if let Some(folded) = &self.folded {
            return folded.low_rank_scores(q, k, &down);
        }
        let q = self.proj_c_q.forward(q);
        let k = self.proj_c_k.forward(k).transpose(-2, -1).matmul(&down);
        q.matmul(&k) * self.scale()
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
            keys: Derived::new(wk.tr().matmul(&queries)),
            offset: Derived::new(bk.unsqueeze(0).matmul(&queries)),
        }
    }

    fn low_rank_scores(&self, q: &Tensor, k: &Tensor, down: &Tensor) -> Tensor {
        let weight = down.sum_dim_intlist(-2, false, None::<Kind>).unsqueeze(-1);
        let keys = down.transpose(-2, -1).matmul(k).matmul(&self.keys.like(k))
            + weight * self.offset.like(k);
        let width = q.size().last().copied().unwrap_or(0);
        let keys = keys.transpose(-2, -1);
        q.matmul(&keys.narrow(-2, 0, width)) + keys.narrow(-2, width, 1)
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
        let scores = (q * scale).matmul(&k.transpose(-2, -1));
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
            return Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, false, scale, false);
        }
        self.weights(q, k, scale).matmul(v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
    const CONFIG: ConnectivityConfig = ConnectivityConfig {
        tokens: 13,
        reduced_tokens: 4,
        heads: 3,
        head_width: 6,
        reduced_width: 5,
        coefficients: Keep::Largest(2),
        basis_above: 0.2,
        connections: Keep::Largest(5),
    };

    fn predictor(config: ConnectivityConfig) -> (nn::VarStore, ConnectivityPredictor) {
        tch::manual_seed(11);
        let mut vs = nn::VarStore::new(Device::Cpu);
        let predictor = ConnectivityPredictor::new(&vs.root(), config);
        vs.double();
        tch::no_grad(|| {
            vs.variables()
                .values_mut()
                .for_each(|t| drop(t.normal_(0.0, 0.6)))
        });
        (vs, predictor)
    }

    fn tokens(count: i64) -> Tensor {
        Tensor::randn([2, 3, count, 6], F64)
    }

    fn rows(t: &Tensor) -> Vec<Vec<f64>> {
        let width = t.size().last().copied().unwrap_or(1);
        Vec::<Vec<f64>>::try_from(t.to_kind(Kind::Double).reshape([-1, width])).expect("a matrix")
    }

    fn error(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn kept_entries_are_the_largest_or_those_above() {
        tch::manual_seed(5);
        let x = Tensor::randn([4, 9], F64);
        for (kept, mask, row) in kept_rows(&Keep::Largest(3), &x) {
            let mut sorted = row.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for ((k, m), v) in kept.iter().zip(mask).zip(row) {
                let stays = v >= sorted[2];
                assert_eq!(m == 1.0, stays);
                assert_eq!(*k, if stays { v } else { 0.0 });
            }
        }
        for (kept, mask, row) in kept_rows(&Keep::Above(0.4), &x) {
            for ((k, m), v) in kept.iter().zip(mask).zip(row) {
                assert_eq!(m == 1.0, v > 0.4);
                assert_eq!(*k, if v > 0.4 { v } else { 0.0 });
            }
        }
        assert!(Keep::Largest(9).apply(&x).equal(&x));
        assert_eq!(
            Keep::Largest(20).mask(&x).sum(Kind::Int64).int64_value(&[]),
            36
        );
    }

    fn kept_rows(keep: &Keep, x: &Tensor) -> Vec<(Vec<f64>, Vec<f64>, Vec<f64>)> {
        let (kept, mask) = (rows(&keep.apply(x)), rows(&keep.mask(x)));
        kept.into_iter()
            .zip(mask)
            .zip(rows(x))
            .map(|((k, m), r)| (k, m, r))
            .collect()
    }

    #[test]
    fn the_folded_predictor_equals_the_composed_one() {
        for coefficients in [Keep::Largest(2), Keep::Above(0.2)] {
            let (_vs, mut predictor) = predictor(ConnectivityConfig {
                coefficients,
                ..CONFIG
            });
            let (q, k) = (tokens(12), tokens(13));
            let composed = predictor.predict(&q, &k, None);
            predictor.fuse();
            let folded = predictor.predict(&q, &k, None);
            assert!(error(&composed.coefficients, &folded.coefficients) < 1e-12);
            assert!(error(&composed.scores, &folded.scores) < 1e-12);
            assert!(composed.mask.equal(&folded.mask));
        }
    }

    /// Pruned tokens as the official code has them: zero after the channel projection, never selected.
    #[test]
    fn live_tokens_alone_equal_zeroed_tokens_among_all() {
        let (_vs, mut predictor) = predictor(ConnectivityConfig {
            connections: Keep::Largest(9),
            ..CONFIG
        });
        let live = Tensor::from_slice2(&[[0i64, 2, 3, 7, 11, 12], [0, 9, 1, 4, 5, 8]]);
        let (q, k) = (tokens(5), tokens(6));
        let scale = (3f64).powf(-0.5);
        let budget = Keep::Largest(5);
        for fused in [false, true] {
            if fused {
                predictor.fuse();
            }
            let ours = predictor.predict(&q, &k, Some(&live));
            for b in 0..2 {
                let position = live.get(b);
                let kc = predictor.proj_c_k.forward(&k.get(b));
                let all = Tensor::zeros([3, 13, 5], F64).index_add(1, &position, &kc);
                let cheap = predictor
                    .proj_c_q
                    .forward(&q.get(b))
                    .matmul(&all.transpose(1, 2).matmul(&predictor.proj_n))
                    * scale;
                let coefficients = Keep::Largest(2).apply(&cheap.softmax(-1, None::<Kind>));
                let scores = coefficients.matmul(&sparse_basis(&predictor.proj_back_n, 0.2));
                let scores = scores.index_select(2, &position);
                assert!(error(&scores, &ours.scores.get(b)) < 1e-12);
                assert!(budget.mask(&scores).equal(&ours.mask.get(b)));
            }
        }
    }

    #[test]
    fn weights_are_a_softmax_over_connected_keys_and_zero_where_there_are_none() {
        let (_vs, predictor) = predictor(ConnectivityConfig {
            connections: Keep::Above(0.9),
            ..CONFIG
        });
        let (q, k, v) = (tokens(12), tokens(13), tokens(13));
        let found = predictor.predict(&q, &k, None);
        let weights = found.weights(&q, &k, 0.4);
        let scores = (q.matmul(&k.transpose(2, 3)) * 0.4).exp();
        let mut empty = 0;
        for ((w, s), m) in rows(&weights)
            .iter()
            .zip(rows(&scores))
            .zip(rows(&found.mask))
        {
            let total: f64 = s.iter().zip(&m).map(|(s, m)| s * m).sum();
            empty += usize::from(total == 0.0);
            for ((w, s), m) in w.iter().zip(&s).zip(&m) {
                let expected = if total == 0.0 { 0.0 } else { s * m / total };
                assert!((w - expected).abs() < 1e-12);
            }
        }
        assert!(
            empty > 0,
            "no row without a connection: the test tests nothing"
        );
        assert!(error(&found.attend(&q, &k, &v, 0.4, true), &weights.matmul(&v)) < 1e-12);
    }

    #[test]
    fn the_streaming_form_equals_the_composed_one() {
        let (_vs, predictor) = predictor(CONFIG);
        let (q, k, v) = (tokens(12), tokens(13), tokens(13));
        let found = predictor.predict(&q, &k, None);
        let [q, k, v] = [q, k, v].map(|t| t.to_kind(Kind::Float));
        let composed = found.attend(&q, &k, &v, 0.4, false);
        assert!(error(&composed, &found.attend(&q, &k, &v, 0.4, true)) < 1e-5);
    }
}
