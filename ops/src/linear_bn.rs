//! A linear layer on tokens and the batch norm behind it.

use crate::{BatchNorm, Linear, Spiked};
use tch::{Tensor, nn};

/// How a checkpoint stores the weight of a [`LinearBn`]: what works on tokens is often written as a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// [out, in].
    Matrix,
    /// [out, in, 1].
    Conv1d,
    /// [out, in, 1, 1].
    Conv2d,
}

/// BatchNorm(Linear(x)) on tokens, channels last: what models also write as a 1x1 convolution and a norm.
#[derive(Debug)]
pub struct LinearBn {
    linear: Linear,
    norm: Option<BatchNorm>,
}

impl LinearBn {
    /// The layer [`out`, `inputs`] at `linear`, the norm (eps 1e-5) at `norm`.
    pub fn new(
        (linear, norm): (nn::Path, nn::Path),
        (inputs, out): (i64, i64),
        stored: Stored,
        bias: bool,
    ) -> Self {
        LinearBn {
            linear: match stored {
                Stored::Matrix => Linear::new(linear, inputs, out, bias),
                Stored::Conv1d => Linear::pointwise_1d(linear, inputs, out, bias),
                Stored::Conv2d => Linear::pointwise(linear, inputs, out, bias),
            },
            norm: Some(BatchNorm::new(norm, out, 1e-5)),
        }
    }

    /// [B, N, in] to [B, N, out].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.linear.forward(x);
        match &self.norm {
            // The norm wants the channels on axis 1.
            Some(norm) => norm.forward(&y.transpose(1, -1)).transpose(1, -1),
            None => y,
        }
    }

    /// `forward(x) + residual`, as one kernel where that exists.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        match &self.norm {
            Some(_) => residual + self.forward(x),
            None => self.linear.forward_add(x, residual),
        }
    }

    /// [`LinearBn::forward`] of what may be spikes.
    pub fn forward_spikes(&self, x: &Spiked) -> Tensor {
        match &self.norm {
            Some(_) => self.forward(x.values()),
            None => self.linear.forward_spikes(x),
        }
    }

    /// [`LinearBn::forward_add`] of what may be spikes.
    pub fn forward_spikes_add(&self, x: &Spiked, residual: &Tensor) -> Tensor {
        match &self.norm {
            Some(_) => self.forward_add(x.values(), residual),
            None => self.linear.forward_spikes_add(x, residual),
        }
    }

    /// Folds the norm into the layer: W' = diag(scale) W, b' = scale b + shift.
    pub fn fuse(&mut self) {
        if let Some(norm) = self.norm.take() {
            let (scale, shift) = norm.scale_shift();
            self.linear.fold_affine(&scale, &shift);
        }
        self.linear.fuse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn folding_changes_nothing_however_the_weight_is_stored() {
        tch::manual_seed(3);
        for (stored, bias) in [
            (Stored::Matrix, true),
            (Stored::Conv1d, false),
            (Stored::Conv2d, true),
        ] {
            let mut vs = nn::VarStore::new(Device::Cpu);
            let root = vs.root();
            let paths = (&root / "linear", &root / "bn");
            let mut layer = LinearBn::new(paths, (6, 5), stored, bias);
            vs.double();
            tch::no_grad(|| {
                for (name, mut t) in vs.variables() {
                    let _ = t.uniform_(if name.ends_with("var") { 0.5 } else { -1.0 }, 1.0);
                }
            });
            let x = Tensor::randn([2, 3, 6], (Kind::Double, Device::Cpu));
            let residual = Tensor::randn([2, 3, 5], (Kind::Double, Device::Cpu));
            let expected = layer.forward(&x);
            let sum = layer.forward_add(&x, &residual);
            layer.fuse();
            let apart = |a: Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            assert!(apart(layer.forward(&x), &expected) < 1e-12);
            assert!(apart(layer.forward_add(&x, &residual), &sum) < 1e-12);
            assert!(apart(sum, &(expected + residual)) < 1e-12);
        }
    }
}
