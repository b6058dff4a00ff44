//! The feed-forward network of transformers.

use crate::{Activation, LayerNorm, Linear};
use tch::{Tensor, nn};

/// fc2(GELU(fc1 x)) over the last axis, exact GELU. Names: `fc1`, `fc2`, linear layers with bias.
#[derive(Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// `width` through `hidden` at path `p`.
    pub fn new(p: &nn::Path, width: i64, hidden: i64) -> Self {
        Mlp {
            fc1: Linear::new(p / "fc1", width, hidden, true),
            fc2: Linear::new(p / "fc2", hidden, width, true),
        }
    }

    /// [.., width] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.fc2
            .forward(&self.fc1.forward_then(x, Activation::Gelu))
    }

    /// `residual + forward(x)`.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        let hidden = self.fc1.forward_then(x, Activation::Gelu);
        self.fc2.forward_add(&hidden, residual)
    }

    /// Absorbs the weight and bias of the norm in front, which nothing else reads.
    pub fn fold_norm(&mut self, norm: &mut LayerNorm) {
        norm.fold_into(&mut self.fc1);
    }

    /// Absorbs a scale of the output (`[width]`, float64).
    pub fn fold_output(&mut self, scale: &Tensor) {
        self.fc2.fold_output(scale);
    }

    /// Declares the weights final.
    pub fn fuse(&mut self) {
        self.fc1.fuse();
        self.fc2.fuse();
    }
}
