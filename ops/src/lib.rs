//! Layers and attention operators over tch tensors: each with one composed definition and, where it pays, a fused form.
//!
//! No model, no file format, no evaluation.
//!
//! The *composed* form is plain tensor algebra: differentiable, and the truth. The *fused* form is taken for
//! inference only: after `fuse()`, on the CPU, in f32 or bf16, and never while gradients are recorded.

mod activation;
mod batch_norm;
mod conv;
mod derived;
pub mod grouped_attention;
mod inference;
mod linear;
mod norm;
mod onednn;
mod regions;
pub mod routing;
mod squeeze_excite;
pub mod taps;
mod threads;

pub use activation::Activation;
pub use batch_norm::{BatchNorm, BatchNormLinear};
pub use conv::{Conv2d, ConvBn, ConvConfig};
pub use derived::Derived;
pub use grouped_attention::{GroupedAttention, join_heads, softmax_attention, split_heads};
pub use inference::{channels_last, inference_mode};
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use regions::{Regions, crop};
pub use squeeze_excite::{SqueezeExcite, round_channels};
