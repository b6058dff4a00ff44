//! Global self-attention with relative positions (Bottleneck Transformers, Srinivas et al., 2021), as timm's
//! `BottleneckAttn` defines it.

use crate::relative_position::RelativePosition2d;
use crate::taps::Tap;
use crate::{Conv2d, ConvConfig, work};
use tch::{Kind, Tensor, nn};

/// softmax(q k^T / sqrt(d) + position) v over all positions of a map whose size is fixed.
///
/// Names: `qkv` (1x1 convolution without bias: all queries, all keys, all values, each head by head), `pos_embed`.
#[derive(Debug)]
pub struct BottleneckAttention {
    qkv: Conv2d,
    position: RelativePosition2d,
    channels: i64,
    heads: i64,
    map: [i64; 2],
    attn: Tap,
}

impl BottleneckAttention {
    /// `channels` to as many, maps of `map` (height, width), at path `p`.
    pub fn new(p: nn::Path, channels: i64, heads: i64, map: [i64; 2]) -> Self {
        let qkv = Conv2d::new(&p / "qkv", channels, 3 * channels, ConvConfig::pointwise());
        BottleneckAttention {
            qkv,
            position: RelativePosition2d::new(&p / "pos_embed", map, map, channels / heads),
            channels,
            heads,
            map,
            attn: Tap::new(&p, "attn"),
        }
    }

    /// [B, C, H, W] to the same shape; H and W must be the map's.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [height, width] = self.map;
        let dim = self.channels / self.heads;
        let qkv = self
            .qkv
            .forward(x)
            .flatten(2, 3)
            .transpose(1, 2)
            .unflatten(2, [3, self.heads, dim])
            .permute([2, 0, 3, 1, 4]);
        let [q, k, v] = [0, 1, 2].map(|i| qkv.get(i).flatten(0, 1));
        let position = self.position.logits(&q.unflatten(1, [height, width]));
        let scores = work::matmul(&(q * (dim as f64).powf(-0.5)), &k.transpose(1, 2));
        let attn = position.add_to(&scores).softmax(-1, None::<Kind>);
        self.attn.see(&attn);
        work::matmul(&attn, &v)
            .unflatten(0, [-1, self.heads])
            .transpose(1, 2)
            .flatten(2, 3)
            .transpose(1, 2)
            .unflatten(2, [height, width])
    }

    /// Absorbs a scale of the output channels (`[C]`, float64) into the values; call before `fuse`.
    pub fn fold_output_scale(&mut self, scale: &Tensor) {
        let ones = Tensor::ones([2 * self.channels], (Kind::Double, scale.device()));
        let scale = Tensor::cat(&[&ones, scale], 0);
        self.qkv.fold_output(&scale, &scale.zeros_like());
    }

    /// Declares the weights final.
    pub fn fuse(&mut self) {
        self.qkv.fuse();
        self.position.fuse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_scale_of_the_output_goes_into_the_values() {
        let _no_grad = tch::no_grad_guard();
        let mut store = nn::VarStore::new(Device::Cpu);
        let mut attention = BottleneckAttention::new(store.root(), 8, 2, [3, 5]);
        store.double();
        let options = (Kind::Double, Device::Cpu);
        let x = Tensor::randn([2, 8, 3, 5], options);
        let scale = Tensor::randn([8], options);
        let expected = attention.forward(&x) * scale.reshape([1, -1, 1, 1]);
        attention.fold_output_scale(&scale);
        attention.fuse();
        let error = (attention.forward(&x) - expected).abs().max();
        assert!(error.double_value(&[]) < 1e-12);
    }
}
