//! Layer and group normalisation.

use tch::{Tensor, nn};

/// LayerNorm over the last axis. Names: `weight`, `bias`.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// `width` entries at path `p`.
    pub fn new(p: nn::Path, width: i64, eps: f64) -> Self {
        LayerNorm {
            weight: p.ones("weight", &[width]),
            bias: p.zeros("bias", &[width]),
            eps,
        }
    }

    /// [.., width] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let shape = self.weight.size();
        x.layer_norm(shape, Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

/// GroupNorm: statistics over each group's channels and all positions. Names: `weight`, `bias`.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// `channels` in `groups` at path `p`.
    pub fn new(p: nn::Path, groups: i64, channels: i64, eps: f64) -> Self {
        GroupNorm {
            weight: p.ones("weight", &[channels]),
            bias: p.zeros("bias", &[channels]),
            groups,
            eps,
        }
    }

    /// [B, C, ..] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.group_norm(
            self.groups,
            Some(&self.weight),
            Some(&self.bias),
            self.eps,
            true,
        )
    }
}
