//! Efficient channel attention (ECA-Net, Wang et al., 2020).

use crate::start;
use crate::work;
use tch::{Kind, Tensor, nn};

/// x * sigmoid(conv1d(mean(x))), where the convolution runs along the channels. Name: `conv.weight` [1, 1, k].
#[derive(Debug)]
pub struct EfficientChannelAttention {
    weight: Tensor,
    padding: i64,
}

impl EfficientChannelAttention {
    /// For `channels` at path `p`; they determine the kernel.
    pub fn new(p: nn::Path, channels: i64) -> Self {
        let kernel = Self::kernel(channels);
        EfficientChannelAttention {
            weight: start::kaiming(&(p / "conv"), "weight", &[1, 1, kernel]),
            padding: kernel / 2,
        }
    }

    /// (log2 C + 1) / 2 rounded down, the next odd number if even, at least 3.
    fn kernel(channels: i64) -> i64 {
        let half = (((channels as f64).log2() + 1.0) / 2.0) as i64;
        (half + 1 - half % 2).max(3)
    }

    /// [B, C, H, W] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let pooled = x.mean_dim([2i64, 3].as_slice(), false, None::<Kind>);
        let row = pooled.unsqueeze(1);
        let logits = row.conv1d(&self.weight, None::<&Tensor>, 1, self.padding, 1, 1);
        work::convolution(&row, &self.weight, false, &logits);
        let gate = logits.sigmoid();
        x * gate.transpose(1, 2).unsqueeze(-1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_grows_with_the_channels() {
        let kernels = [16, 64, 128, 256, 2048].map(EfficientChannelAttention::kernel);
        assert_eq!(kernels, [3, 3, 5, 5, 7]);
    }
}
