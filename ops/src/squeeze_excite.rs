//! Squeeze-and-excitation (Hu et al., 2018).

use crate::{Activation, Conv2d, ConvConfig};
use tch::{Kind, Tensor, nn};

/// The nearest multiple of `divisor`, at least one `divisor`; timm's `make_divisible` with round_limit 0.
pub fn round_channels(channels: f64, divisor: i64) -> i64 {
    let half = divisor as f64 / 2.0;
    (((channels + half) / divisor as f64) as i64 * divisor).max(divisor)
}

/// x * sigmoid(fc2(activation(fc1(mean(x))))), with ReLU unless told otherwise. Names: `fc1`, `fc2`, 1x1 convolutions with bias (timm's SqueezeExcite).
#[derive(Debug)]
pub struct SqueezeExcite {
    fc1: Conv2d,
    fc2: Conv2d,
    activation: Activation,
}

impl SqueezeExcite {
    /// `channels` gated through `reduced` at path `p`.
    pub fn new(p: nn::Path, channels: i64, reduced: i64) -> Self {
        let (fc1, fc2) = (&p / "fc1", &p / "fc2");
        Self::with_names(fc1, fc2, [channels, reduced], Activation::Relu)
    }

    /// The same with the two convolutions at other paths and another activation; widths are [channels, reduced].
    pub fn with_names(
        fc1: nn::Path,
        fc2: nn::Path,
        [channels, reduced]: [i64; 2],
        activation: Activation,
    ) -> Self {
        let pointwise = ConvConfig::pointwise().with_bias();
        SqueezeExcite {
            fc1: Conv2d::new(fc1, channels, reduced, pointwise),
            fc2: Conv2d::new(fc2, reduced, channels, pointwise),
            activation,
        }
    }

    /// [B, C, H, W] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let pooled = x.mean_dim([2i64, 3].as_slice(), true, None::<Kind>);
        let hidden = self.fc1.forward_then(&pooled, self.activation);
        x * self.fc2.forward_then(&hidden, Activation::Sigmoid)
    }

    /// Declares the weights final.
    pub fn fuse(&mut self) {
        self.fc1.fuse();
        self.fc2.fuse();
    }
}
