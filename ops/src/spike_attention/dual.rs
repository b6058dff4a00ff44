//! Dual spike self-attention (DSSA): scores between spikes and a coarser map made from them.

use crate::work::Site;
use tch::Tensor;

/// Keys y1 and values y2 come from one product of the spikes, at L places that each stand for a patch of the N places
/// of the spikes; queries are the spikes themselves.
///
/// "SpikingResformer: Bridging ResNet and Vision Transformer in Spiking Neural Networks", CVPR 2024, arXiv 2403.14302.
#[derive(Debug)]
pub struct DualAttention {
    heads: i64,
    site: Site,
}

impl DualAttention {
    /// `heads` divide the channels.
    pub fn new(site: Site, heads: i64) -> Self {
        DualAttention { heads, site }
    }

    /// y1^T s per head, unscaled: `y` [B, 2C, L], of each head first y1 then y2, and spikes [B, C, N] to [B, heads, L, N].
    pub fn scores(&self, y: &Tensor, spikes: &Tensor) -> Tensor {
        let [keys, _values] = self.halves(y);
        let spikes = spikes.unflatten(1, [self.heads, -1]);
        self.site.matmul(&keys.transpose(-1, -2), &spikes)
    }

    /// y2 a per head, unscaled: `y` [B, 2C, L] and the scores' spikes [B, heads, L, N] to [B, C, N].
    pub fn mix(&self, y: &Tensor, scores: &Tensor) -> Tensor {
        let [_keys, values] = self.halves(y);
        self.site.matmul(&values, scores).flatten(1, 2)
    }

    /// Keys and values [B, heads, d, L].
    fn halves(&self, y: &Tensor) -> [Tensor; 2] {
        let y = y.unflatten(1, [self.heads, 2, -1]);
        [y.select(2, 0), y.select(2, 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn};

    #[test]
    fn each_head_multiplies_its_own_halves() {
        tch::manual_seed(5);
        let vs = nn::VarStore::new(Device::Cpu);
        let attention = DualAttention::new(Site::at(&vs.root()), 2);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Double, Device::Cpu));
        // Two heads of three channels; 4 coarse places, 9 fine ones.
        let (y, s, a) = (
            random(&[2, 12, 4]),
            random(&[2, 6, 9]),
            random(&[2, 2, 4, 9]),
        );
        let (scores, mixed) = (attention.scores(&y, &s), attention.mix(&y, &a));
        for (image, head) in [(0, 0), (1, 1)] {
            let channels = |t: &Tensor, first| t.get(image).narrow(0, first, 3);
            let keys = channels(&y, 6 * head);
            let expected = keys.tr().matmul(&channels(&s, 3 * head));
            assert!(
                scores
                    .get(image)
                    .get(head)
                    .allclose(&expected, 1e-12, 1e-12, false)
            );
            let expected = channels(&y, 6 * head + 3).matmul(&a.get(image).get(head));
            assert!(channels(&mixed, 3 * head).allclose(&expected, 1e-12, 1e-12, false));
        }
    }
}
