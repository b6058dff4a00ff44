//! Layer and group normalisation.

use crate::{Conv2d, Linear};
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

    /// The same over the channels of a map [B, width, H, W]; copies nothing of a channels-last map.
    pub fn forward_map(&self, x: &Tensor) -> Tensor {
        self.forward(&x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
    }

    /// Moves weight and bias into the 1x1 convolution that alone sees this norm.
    pub fn fold_into_conv(&mut self, next: &mut Conv2d) {
        if !self.affine_folded {
            let double = |t: &Tensor| t.detach().to_kind(Kind::Double);
            next.fold_input(&double(&self.weight), &double(&self.bias));
            self.affine_folded = true;
        }
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

/// Global response normalisation (Woo et al., 2023): each channel times its share of the map's energy, added to itself.
///
/// y = (gamma * n + 1) * x + beta with n = g / (mean of g over channels + 1e-6), g the L2 norm of a channel over all
/// positions. Names: `gamma`, `beta`, both [1, C, 1, 1].
#[derive(Debug)]
pub struct GlobalResponseNorm {
    gamma: Tensor,
    beta: Tensor,
    beta_folded: bool,
}

impl GlobalResponseNorm {
    /// `channels` at path `p`.
    pub fn new(p: nn::Path, channels: i64) -> Self {
        let shape = [1, channels, 1, 1];
        GlobalResponseNorm {
            gamma: p.zeros("gamma", &shape),
            beta: p.zeros("beta", &shape),
            beta_folded: false,
        }
    }

    /// [B, C, H, W] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let energy = x.norm_scalaropt_dim(2, [2i64, 3].as_slice(), true);
        let share = &energy / (energy.mean_dim(1, true, None::<Kind>) + 1e-6);
        let gain = &self.gamma * share + 1.0;
        if self.beta_folded {
            x * gain
        } else {
            self.beta.addcmul(x, &gain)
        }
    }

    /// Moves beta into the 1x1 convolution that alone sees this norm.
    pub fn fold_into_conv(&mut self, next: &mut Conv2d) {
        if !self.beta_folded {
            let beta = self.beta.detach().to_kind(Kind::Double).flatten(0, -1);
            next.fold_input(&beta.ones_like(), &beta);
            self.beta_folded = true;
        }
    }
}
