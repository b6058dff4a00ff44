//! Convolutions with what stands beside or before them.

use crate::{Activation, BatchNorm, Conv2d, ConvConfig};
use tch::{Tensor, nn};

/// x + depthwise convolution with bias, stride 1; one convolution once fused. Names: those of [`Conv2d`].
#[derive(Debug)]
pub struct ResidualConv {
    conv: Conv2d,
    residual_folded: bool,
}

impl ResidualConv {
    /// `channels` with an odd `kernel` at path `p`.
    pub fn new(p: nn::Path, channels: i64, kernel: i64) -> Self {
        let config = ConvConfig::same(kernel).with_groups(channels).with_bias();
        ResidualConv {
            conv: Conv2d::new(p, channels, channels, config),
            residual_folded: false,
        }
    }

    /// [B, C, H, W] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if self.residual_folded {
            self.conv.forward(x)
        } else {
            self.conv
                .forward_add(x, x.shallow_clone(), Activation::None)
        }
    }

    /// Adds the identity to every kernel's centre.
    pub fn fuse(&mut self) {
        if !self.residual_folded {
            self.conv.fold_identity();
            self.conv.fuse();
            self.residual_folded = true;
        }
    }
}

/// A batch norm and the convolution behind it, which must not pad.
#[derive(Debug)]
pub struct NormConv {
    norm: Option<BatchNorm>,
    conv: Conv2d,
}

impl NormConv {
    /// The norm (eps 1e-5) at `norm`, the convolution at `conv`.
    pub fn new(norm: nn::Path, conv: nn::Path, inputs: i64, out: i64, config: ConvConfig) -> Self {
        NormConv {
            norm: Some(BatchNorm::new(norm, inputs, 1e-5)),
            conv: Conv2d::new(conv, inputs, out, config),
        }
    }

    /// [B, in, H, W] to [B, out, H', W'].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match &self.norm {
            Some(norm) => self.conv.forward(&norm.forward(x)),
            None => self.conv.forward(x),
        }
    }

    /// The convolution, for folding at its output.
    pub fn conv_mut(&mut self) -> &mut Conv2d {
        &mut self.conv
    }

    /// Folds the norm into the convolution.
    pub fn fuse(&mut self) {
        if let Some(norm) = self.norm.take() {
            let (scale, shift) = norm.scale_shift();
            self.conv.fold_input(&scale, &shift);
        }
        self.conv.fuse();
    }
}
