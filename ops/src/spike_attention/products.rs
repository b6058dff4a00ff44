//! Spiking self-attention (SSA): scale * q k^T v per head.

use crate::work::{self, Site};
use crate::{join_heads, split_heads};
use tch::Tensor;

/// Which product comes first. Of spikes all partial sums are integers, so that both orders give the same bits as long as
/// the sums stay below 2^24 (float32) and the scale is a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// (q k^T) v: N^2 products for each channel.
    Scores,
    /// q (k^T v): N d products for each channel.
    Context,
}

/// scale * q k^T v per head, "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023, arXiv 2209.15425.
#[derive(Debug)]
pub struct SpikeAttention {
    heads: i64,
    scale: f64,
    published: Order,
    site: Site,
}

impl SpikeAttention {
    /// `published` is the order of the official code: the one that is counted when work is recorded.
    pub fn new(site: Site, heads: i64, scale: f64, published: Order) -> Self {
        SpikeAttention {
            heads,
            scale,
            published,
            site,
        }
    }

    /// Queries, keys and values [B, N, C] to [B, N, C]: the cheaper order.
    pub fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let size = q.size();
        let cheaper = if size[1] <= size[2] / self.heads {
            Order::Scores
        } else {
            Order::Context
        };
        let order = if work::recording() {
            self.published
        } else {
            cheaper
        };
        self.forward_in(order, q, k, v)
    }

    fn forward_in(&self, order: Order, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let [q, k, v] = [q, k, v].map(|t| split_heads(t, self.heads));
        let mixed = match order {
            Order::Scores => {
                let scores = self.site.matmul(&q, &k.transpose(-1, -2)) * self.scale;
                self.site.matmul(&scores, &v)
            }
            Order::Context => {
                let context = self.site.matmul(&k.transpose(-1, -2), &v);
                self.site.matmul(&q, &context) * self.scale
            }
        };
        join_heads(&mixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn};

    #[test]
    fn both_orders_give_the_same_bits() {
        tch::manual_seed(2);
        let vs = nn::VarStore::new(Device::Cpu);
        let attention = SpikeAttention::new(Site::at(&vs.root()), 3, 0.125, Order::Scores);
        for tokens in [5, 64] {
            let spikes = || {
                let p = Tensor::full([2, tokens, 24], 0.3, (Kind::Float, Device::Cpu));
                p.bernoulli()
            };
            let (q, k, v) = (spikes(), spikes(), spikes());
            let [a, b] = [Order::Scores, Order::Context]
                .map(|order| attention.forward_in(order, &q, &k, &v));
            assert!(a.equal(&b));
            assert!(attention.forward(&q, &k, &v).equal(&a));
            let head = |t: &Tensor| t.select(0, 1).narrow(1, 8, 8);
            let expected = head(&q).matmul(&head(&k).tr()).matmul(&head(&v)) * 0.125;
            assert!(head(&a).equal(&expected));
        }
    }
}
