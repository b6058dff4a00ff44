//! Re-parametrisable convolutions in place of an attention's linear layers: STEP's `repconv_attn`.
//!
//! A 1x1 convolution, a norm that pads with what it makes of zero, a depthwise 3x3, a 1x1, and a norm. The official code
//! pads behind the norm; padding the 1x1 convolution's input with zeros is the same, exactly. Merged to one dense 3x3 it
//! would cost more than four times as much at 384 channels, so it stays in parts.

use super::parts::{map, tokens};
use super::time::{Neurons, Spikes, Time};
use tch::{Tensor, nn};
use zoo_ops::{Conv2d, ConvBn, ConvConfig};

/// The currents of one projection.
#[derive(Debug)]
pub(super) struct RepConv {
    first: ConvBn,
    depthwise: Conv2d,
    last: ConvBn,
}

impl RepConv {
    /// Convolutions and inner norm at `conv`.0 to `conv`.3, the outer norm at `norm`.
    pub fn new(conv: nn::Path, norm: nn::Path, width: i64) -> Self {
        let pointwise = ConvConfig::pointwise();
        let depthwise = ConvConfig::same(3).with_padding(0).with_groups(width);
        let inner = &conv / 1 / "bn";
        RepConv {
            first: ConvBn::new(&conv / 0, inner, width, width, pointwise.with_padding(1)),
            depthwise: Conv2d::new(&conv / 2, width, width, depthwise),
            last: ConvBn::new(&conv / 3, norm, width, width, pointwise),
        }
    }

    /// Maps to maps of the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.last
            .forward(&self.depthwise.forward(&self.first.forward(x)))
    }

    /// Tokens of a `grid` to tokens.
    pub fn forward_tokens(&self, x: &Tensor, grid: [i64; 2]) -> Tensor {
        tokens(&self.forward(&map(x, grid)))
    }

    /// The same where the official code has height and width swapped.
    pub fn forward_swapped(&self, x: &Tensor, grid: [i64; 2]) -> Tensor {
        let swapped = map(x, grid).transpose(2, 3);
        tokens(&self.forward(&swapped).transpose(2, 3))
    }

    /// Folds the norms.
    pub fn fuse(&mut self) {
        self.first.fuse();
        self.depthwise.fuse();
        self.last.fuse();
    }
}

/// S(BN(RepConv(x))) on tokens: `NAME_suffix`, `NAME_bn`, `NAME_lif`.
#[derive(Debug)]
pub(super) struct RepUnit {
    conv: RepConv,
    lif: Spikes,
}

impl RepUnit {
    /// Below `p`.
    pub fn new(p: &nn::Path, name: &str, suffix: &str, width: i64, neurons: &Neurons) -> Self {
        let at = |what: &str| p / format!("{name}_{what}");
        RepUnit {
            conv: RepConv::new(at(suffix), at("bn"), width),
            lif: neurons.layer(at("lif"), width),
        }
    }

    /// Tokens to spikes.
    pub fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        self.lif.forward(&self.conv.forward_tokens(x, grid), time)
    }

    /// The same where the official code has height and width swapped.
    pub fn forward_swapped(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        self.lif.forward(&self.conv.forward_swapped(x, grid), time)
    }

    /// Folds the norms.
    pub fn fuse(&mut self) {
        self.conv.fuse();
    }
}
