//! Layers and attention operators over tch tensors: each with one composed definition and, where it pays, a fused form.
//!
//! No model, no file format, no evaluation.
//!
//! The *composed* form is plain tensor algebra: differentiable, and the truth. The *fused* form is taken for
//! inference only: after `fuse()`, on the CPU, in f32 or bf16, and never while gradients are recorded.

mod activation;
mod batch_norm;
mod bottleneck_attention;
mod channel_attention;
mod conv;
mod derived;
mod halo_attention;
mod inference;
mod lambda_layer;
mod linear;
mod norm;
mod onednn;
pub mod partition;
mod relative_position;
mod squeeze_excite;
pub mod taps;

pub use activation::Activation;
pub use batch_norm::{BatchNorm, BatchNormLinear};
pub use bottleneck_attention::BottleneckAttention;
pub use channel_attention::EfficientChannelAttention;
pub use conv::{Conv2d, ConvBn, ConvConfig};
pub use derived::Derived;
pub use halo_attention::{HaloAttention, HaloConfig};
pub use inference::{channels_last, inference_mode};
pub use lambda_layer::{LambdaConfig, LambdaLayer};
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use relative_position::{PositionLogits, RelativePosition2d};
pub use squeeze_excite::{SqueezeExcite, round_channels};
