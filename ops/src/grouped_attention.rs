//! Attention in groups: queries that share one list of key blocks.
//!
//! Windows (a list of one block, the window itself), routed regions (the blocks that routing chose) and global
//! attention (one block, the map) are the same operator with other lists.

mod fused;
mod kernel;
mod simd;
#[cfg(test)]
mod tests;

pub use fused::{Bias, Pattern, Tiles, applies, attend};

use crate::Regions;
use crate::routing::gather_regions;
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
        if self.fused && applies(&[q, k, v]) {
            return self.attend(q, k, v, index);
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
        let out = softmax_attention(&q, &k, &v, self.scale);
        crate::crop(&self.regions.merge(&join_heads(&out)), map)
    }

    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, index: Option<&Tensor>) -> Tensor {
        let by_head = |x: &Tensor| x.unflatten(-1, [self.heads, -1]);
        let pattern = Pattern {
            queries: self.regions.into(),
            keys: self.regions.into(),
            index,
            scale: self.scale,
            bias: Bias::None,
        };
        attend(&by_head(q), &by_head(k), &by_head(v), &pattern)
    }

    fn partition(&self, x: &Tensor) -> Tensor {
        self.regions.partition(&self.regions.pad(x))
    }

    fn gather(&self, x: &Tensor, index: &Tensor) -> Tensor {
        gather_regions(&self.partition(x), index)
    }
}

/// softmax(scale * q k^T) v over the last two axes: [.., Q, D], [.., K, D], [.., K, E] to [.., Q, E].
pub fn softmax_attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Tensor {
    let scores = (q * scale).matmul(&k.transpose(-2, -1));
    scores.softmax(-1, None::<Kind>).matmul(v)
}

/// [.., T, heads * D] to a view [.., heads, T, D].
pub fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    x.unflatten(-1, [heads, -1]).transpose(-3, -2)
}

/// The inverse of [`split_heads`].
pub fn join_heads(x: &Tensor) -> Tensor {
    x.transpose(-3, -2).flatten(-2, -1)
}
