//! Spiking self-attention (SSA): scale * q k^T v per head.

use super::packed;
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

    /// Queries, keys and values [B, N, C] to [B, N, C]: as bits where they are bits, else in the cheaper order.
    pub fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        if let Some(mixed) = self.packed(q, k, v) {
            return mixed;
        }
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

    /// The fused form; not while work is recorded, which is that of the published order.
    fn packed(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Option<Tensor> {
        if work::recording() {
            return None;
        }
        packed::attend([q, k, v], self.heads, self.scale)
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
    use crate::simd::with_all_lanes;
    use proptest::prelude::*;
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
            let fused = attention.packed(&q, &k, &v).expect("spikes");
            assert!(fused.equal(&a));
            let head = |t: &Tensor| t.select(0, 1).narrow(1, 8, 8);
            let expected = head(&q).matmul(&head(&k).tr()).matmul(&head(&v)) * 0.125;
            assert!(head(&a).equal(&expected));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn bits_give_the_dense_product(
            batch in 1..3i64,
            tokens in 1..150i64,
            heads in 1..4i64,
            width in 1..70i64,
            rates in [0.0..=1.0f64, 0.0..=1.0, 0.0..=1.0],
            strided in any::<bool>(),
        ) {
            let vs = nn::VarStore::new(Device::Cpu);
            let site = Site::at(&vs.root());
            let attention = SpikeAttention::new(site, heads, 0.25, Order::Scores);
            let [q, k, v] = rates.map(|rate| {
                let shape = [batch, heads * width, tokens];
                let p = Tensor::full(shape, rate, (Kind::Float, Device::Cpu));
                let spikes = p.bernoulli().transpose(1, 2);
                if strided { spikes } else { spikes.contiguous() }
            });
            let dense = attention.forward_in(Order::Scores, &q, &k, &v);
            with_all_lanes(|| {
                let fused = attention.packed(&q, &k, &v).expect("spikes");
                assert!(fused.equal(&dense));
            });
        }
    }

    #[test]
    fn counts_and_analog_values_are_left_to_the_dense_form() {
        let vs = nn::VarStore::new(Device::Cpu);
        let attention = SpikeAttention::new(Site::at(&vs.root()), 2, 0.5, Order::Context);
        let ones = Tensor::ones([1, 3, 8], (Kind::Float, Device::Cpu));
        assert!(attention.packed(&ones, &ones, &ones).is_some());
        for odd in [2.0, 0.5, -1.0, f64::NAN] {
            let other = ones.copy();
            let _ = other.get(0).get(2).get(7).fill_(odd);
            assert!(attention.packed(&other, &ones, &ones).is_none());
            assert!(attention.packed(&ones, &other, &ones).is_none());
            assert!(attention.packed(&ones, &ones, &other).is_none());
        }
        let double = ones.to_kind(Kind::Double);
        assert!(attention.packed(&double, &double, &double).is_none());
    }
}
