//! Layer and group normalisation.

use crate::Linear;
use tch::{Kind, Tensor, nn};

/// LayerNorm over the last axis. Names: `weight`, `bias`.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    affine_folded: bool,
}

impl LayerNorm {
    /// `width` entries at path `p`.
    pub fn new(p: nn::Path, width: i64, eps: f64) -> Self {
        LayerNorm {
            weight: p.ones("weight", &[width]),
            bias: p.zeros("bias", &[width]),
            eps,
            affine_folded: false,
        }
    }

    /// [.., width] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let shape = self.weight.size();
        let (weight, bias) = if self.affine_folded {
            (None, None)
        } else {
            (Some(&self.weight), Some(&self.bias))
        };
        x.layer_norm(shape, weight, bias, self.eps, true)
    }

    /// [.., width] to the same shape, without weight and bias: for a reader that has a copy of them.
    pub fn normalise(&self, x: &Tensor) -> Tensor {
        let shape = self.weight.size();
        x.layer_norm(shape, None::<&Tensor>, None::<&Tensor>, self.eps, true)
    }

    /// Moves weight and bias into the linear layer that alone sees this norm: W' = W diag(weight), b' = W bias + b.
    pub fn fold_into(&mut self, next: &mut Linear) {
        if !self.affine_folded {
            self.copy_into(next);
            self.affine_folded = true;
        }
    }

    /// The same for one of several readers, which is given [`LayerNorm::normalise`] from then on; the others go on
    /// with [`LayerNorm::forward`].
    pub fn copy_into(&self, next: &mut Linear) {
        let double = |t: &Tensor| t.detach().to_kind(Kind::Double);
        next.fold_input(&double(&self.weight), &double(&self.bias));
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
