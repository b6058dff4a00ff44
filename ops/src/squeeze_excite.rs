//! Squeeze-and-excitation (Hu et al., 2018).

use crate::{Activation, Conv2d, ConvConfig};
use tch::{Kind, Tensor, nn};

/// The nearest multiple of `divisor`, at least one `divisor`; timm's `make_divisible` with round_limit 0.
pub fn round_channels(channels: f64, divisor: i64) -> i64 {
    let half = divisor as f64 / 2.0;
    (((channels + half) / divisor as f64) as i64 * divisor).max(divisor)
}

/// x * sigmoid(fc2(relu(fc1(mean(x))))). Names: `fc1`, `fc2`, 1x1 convolutions with bias (timm's SqueezeExcite).
#[derive(Debug)]
pub struct SqueezeExcite {
    fc1: Conv2d,
    fc2: Conv2d,
}

impl SqueezeExcite {
    /// `channels` gated through `reduced` at path `p`.
    pub fn new(p: nn::Path, channels: i64, reduced: i64) -> Self {
        let pointwise = ConvConfig::pointwise().with_bias();
        SqueezeExcite {
            fc1: Conv2d::new(&p / "fc1", channels, reduced, pointwise),
            fc2: Conv2d::new(&p / "fc2", reduced, channels, pointwise),
        }
    }

    /// [B, C, H, W] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let pooled = x.mean_dim([2i64, 3].as_slice(), true, None::<Kind>);
        let hidden = self.fc1.forward_then(&pooled, Activation::Relu);
        x * self.fc2.forward_then(&hidden, Activation::Sigmoid)
    }

    /// Declares the weights final.
    pub fn fuse(&mut self) {
        self.fc1.fuse();
        self.fc2.fuse();
    }
}
