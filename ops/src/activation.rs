//! Pointwise activations, as a value so that a kernel can fuse them.

use tch::Tensor;

/// A pointwise activation that follows a convolution or a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    None,
    /// max(x, 0).
    Relu,
    /// Exact GELU, by erf.
    Gelu,
    /// x * sigmoid(x).
    Silu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// x * min(max(x + 3, 0), 6) / 6.
    Hardswish,
}

impl Activation {
    /// Composed form.
    pub fn apply(self, x: Tensor) -> Tensor {
        match self {
            Activation::None => x,
            Activation::Relu => x.relu(),
            Activation::Gelu => x.gelu("none"),
            Activation::Silu => x.silu(),
            Activation::Sigmoid => x.sigmoid(),
            Activation::Hardswish => x.hardswish(),
        }
    }
}
