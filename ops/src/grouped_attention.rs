//! Attention in groups: queries that share one list of key blocks.
//!
//! Windows (a list of one block, the window itself), routed regions (the blocks that routing chose) and global
//! attention (one block, the map) are the same operator with other lists.

mod added;
mod bias;
mod fused;
pub(crate) mod kernel;
mod pattern;
pub(crate) mod simd;
#[cfg(test)]
mod tests;
pub(crate) mod view;

pub use fused::{applies, attend};
pub use pattern::{Bias, Pattern, Tiles};

use crate::routing::gather_regions;
use crate::{Regions, work};
use tch::{Kind, Tensor};

/// Softmax attention of each region's queries over the tokens of the regions listed for it.
///
/// Head m has channels m * C / heads up to (m + 1) * C / heads. Regions that stick out of the map hold zero vectors there:
/// as keys they keep their share of the softmax.
#[derive(Debug, Clone, Copy)]
pub struct GroupedAttention {
    /// The groups of queries, and the key blocks.
    pub regions: Regions,
    /// Number of heads.
    pub heads: i64,
    /// Factor of the dot products.
    pub scale: f64,
    /// Whether the fused form may be taken where it applies.
    pub fused: bool,
}

impl GroupedAttention {
    /// Queries, keys and values [B, H, W, C] to [B, H, W, C].
    ///
    /// `index` [B, regions, K] (int64) lists the key blocks of each group; without it each region sees itself.
    pub fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor, index: Option<&Tensor>) -> Tensor {
        self.either(q, k, v, index, None)
    }

    /// Each region sees itself, and `bias` [heads, tokens, tokens] is added to the scores of queries and keys.
    pub fn forward_biased(&self, q: &Tensor, k: &Tensor, v: &Tensor, bias: &Tensor) -> Tensor {
        self.either(q, k, v, None, Some(bias))
    }

    fn either(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        index: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Tensor {
        if self.fused && applies(&[q, k, v]) && !bias.is_some_and(Tensor::requires_grad) {
            return self.attend(q, k, v, index, bias);
        }
        let map = [q.size()[1], q.size()[2]];
        let queries = self.partition(q);
        let (keys, values) = match index {
            None => (self.partition(k), self.partition(v)),
            Some(index) => (self.gather(k, index), self.gather(v, index)),
        };
        let q = split_heads(&queries, self.heads);
        let k = split_heads(&keys, self.heads);
        let v = split_heads(&values, self.heads);
        let out = softmax_attention(&q, &k, &v, self.scale, bias);
        crate::crop(&self.regions.merge(&join_heads(&out)), map)
    }

    fn attend(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        index: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Tensor {
        let by_head = |x: &Tensor| x.unflatten(-1, [self.heads, -1]);
        let bias = bias.map(|t| {
            let each = [q.size()[0], self.regions.len(), -1, -1, -1];
            t.to_kind(Kind::Float).expand(each, false)
        });
        let pattern = Pattern {
            queries: self.regions.into(),
            keys: self.regions.into(),
            index,
            scale: self.scale,
            bias: bias.as_ref().map_or(Bias::None, Bias::Pairs),
            gates: None,
        };
        let regions = self.regions.len();
        let tokens = regions * self.regions.tokens();
        let listed = index.map_or(1, |index| index.size()[2]);
        let dense = (q.size()[0] * self.heads * tokens * tokens) as u64;
        let [q, k, v] = [by_head(q), by_head(k), by_head(v)];
        work::attention(&q, &v, dense * listed as u64 / regions as u64, dense);
        attend(&q, &k, &v, &pattern)
    }

    fn partition(&self, x: &Tensor) -> Tensor {
        self.regions.partition(&self.regions.pad(x))
    }

    fn gather(&self, x: &Tensor, index: &Tensor) -> Tensor {
        gather_regions(&self.partition(x), index)
    }
}

/// softmax(scale * q k^T + bias) v over the last two axes: [.., Q, D], [.., K, D], [.., K, E] to [.., Q, E].
pub fn softmax_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    bias: Option<&Tensor>,
) -> Tensor {
    let scores = work::matmul(&(q * scale), &k.transpose(-2, -1));
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    work::matmul(&scores.softmax(-1, None::<Kind>), v)
}

/// [.., T, heads * D] to a view [.., heads, T, D].
pub fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    x.unflatten(-1, [heads, -1]).transpose(-3, -2)
}

/// The inverse of [`split_heads`].
pub fn join_heads(x: &Tensor) -> Tensor {
    x.transpose(-3, -2).flatten(-2, -1)
}
