//! Batch normalisation at inference, and its folding into its neighbours.

use crate::{Derived, Linear};
use tch::{Device, Kind, Tensor, nn};

/// BatchNorm over axis 1 with running statistics: y = (x - mean) / sqrt(var + eps) * weight + bias.
///
/// Names: `weight`, `bias`, `running_mean`, `running_var`. The checkpoint's `num_batches_tracked` counter is not kept.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    eps: f64,
}

impl BatchNorm {
    /// `channels` at path `p`.
    pub fn new(p: nn::Path, channels: i64, eps: f64) -> Self {
        BatchNorm {
            weight: p.ones("weight", &[channels]),
            bias: p.zeros("bias", &[channels]),
            running_mean: p.zeros_no_train("running_mean", &[channels]),
            running_var: p.ones_no_train("running_var", &[channels]),
            eps,
        }
    }

    /// [B, C, ..] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            false,
            0.1,
            self.eps,
            true,
        )
    }

    /// The norm as y = scale * x + shift, both `[C]` in float64.
    pub fn scale_shift(&self) -> (Tensor, Tensor) {
        let double = |t: &Tensor| t.detach().to_kind(Kind::Double);
        let scale = double(&self.weight) / (double(&self.running_var) + self.eps).sqrt();
        let shift = double(&self.bias) - double(&self.running_mean) * &scale;
        (scale, shift)
    }
}

/// A norm followed by a linear layer, as classification heads have it: Linear(BatchNorm1d(x)).
#[derive(Debug)]
pub struct BatchNormLinear {
    norm: Option<BatchNorm>,
    linear: Linear,
}

impl BatchNormLinear {
    /// The norm at `norm`, the linear layer [`out`, `channels`] at `linear`.
    pub fn new(norm: nn::Path, linear: nn::Path, channels: i64, out: i64) -> Self {
        BatchNormLinear {
            norm: Some(BatchNorm::new(norm, channels, 1e-5)),
            linear: Linear::new(linear, channels, out, true),
        }
    }

    /// [B, C] to [B, out].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match &self.norm {
            Some(norm) => self.linear.forward(&norm.forward(x)),
            None => self.linear.forward(x),
        }
    }

    /// Folds the norm into the linear layer: W' = W diag(scale), b' = W shift + b.
    pub fn fuse(&mut self) {
        if let Some(norm) = self.norm.take() {
            let (scale, shift) = norm.scale_shift();
            self.linear.fold_input(&scale, &shift);
        }
        self.linear.fuse();
    }
}

/// A parameter as the store holds it, or what folding made of it.
#[derive(Debug)]
pub(crate) enum Weight {
    Stored(Tensor),
    Folded(Derived),
}

impl Weight {
    /// What folding, done in float64, makes of this weight: kept in the kind the weight had.
    pub(crate) fn refolded(&self, folded: Tensor) -> Self {
        Weight::Folded(Derived::new(folded.to_kind(self.kind())))
    }

    /// The value with the kind and device of `x`; a stored parameter already has them.
    pub(crate) fn like(&self, x: &Tensor) -> Tensor {
        match self {
            Weight::Stored(t) => t.shallow_clone(),
            Weight::Folded(d) => d.like(x),
        }
    }

    /// Its shape.
    pub(crate) fn size(&self) -> Vec<i64> {
        match self {
            Weight::Stored(t) => t.size(),
            Weight::Folded(d) => d.exact().size(),
        }
    }

    /// Its format.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Weight::Stored(t) => t.kind(),
            Weight::Folded(d) => d.exact().kind(),
        }
    }

    /// Where the value is.
    pub(crate) fn device(&self) -> Device {
        match self {
            Weight::Stored(t) => t.device(),
            Weight::Folded(d) => d.exact().device(),
        }
    }

    /// The value in float64, outside autograd.
    pub(crate) fn double(&self) -> Tensor {
        match self {
            Weight::Stored(t) => t.detach().to_kind(Kind::Double),
            Weight::Folded(d) => d.exact().to_kind(Kind::Double),
        }
    }
}
