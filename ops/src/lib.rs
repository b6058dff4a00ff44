//! Layers and attention operators over tch tensors: each with one composed definition and, where it pays, a fused form.
//!
//! No model, no file format, no evaluation.
//!
//! The *composed* form is plain tensor algebra: differentiable, and the truth. The *fused* form is taken for
//! inference only: after `fuse()`, on the CPU, in f32 or bf16, and never while gradients are recorded.

mod activation;
mod attention;
mod batch_norm;
mod causal_conv;
pub mod connectivity;
mod conv;
mod derived;
mod fourier;
mod inference;
pub mod kolmogorov;
mod linear;
mod mlp;
mod norm;
mod onednn;
mod squeeze_excite;
pub mod taps;
mod tokens;

pub use activation::Activation;
pub use attention::{SelfAttention, dense_attention, merge_heads};
pub use batch_norm::{BatchNorm, BatchNormLinear};
pub use causal_conv::CausalConv;
pub use conv::{Conv2d, ConvBn, ConvConfig};
pub use derived::Derived;
pub use fourier::FourierMix;
pub use inference::{channels_last, inference_mode};
pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::{GroupNorm, LayerNorm};
pub use squeeze_excite::{SqueezeExcite, round_channels};
pub use tokens::{PositionEmbedding, TokenEmbedding, patch_map};
