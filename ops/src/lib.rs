//! Layers and attention operators over tch tensors: each with one composed definition and, where it pays, a fused form.
//!
//! No model, no file format, no evaluation.
//!
//! The *composed* form is plain tensor algebra: differentiable, and the truth. The *fused* form is taken for
//! inference only: after `fuse()`, on the CPU, in f32 or bf16, and never while gradients are recorded.

mod activation;
mod aggregated_attention;
mod attention;
mod batch_norm;
mod bottleneck_attention;
mod causal_conv;
mod channel_attention;
pub mod connectivity;
mod conv;
mod derived;
mod dilated_reparam;
mod fourier;
mod gated_attention;
pub mod grouped_attention;
mod haar;
mod halo_attention;
mod head_routing;
mod inference;
pub mod kolmogorov;
mod lambda_layer;
mod linear;
mod linear_bn;
mod mlp;
mod neighborhood;
mod norm;
mod onednn;
pub mod partition;
pub mod points;
mod regions;
mod relative_position;
mod residual_conv;
pub mod routing;
mod simd;
pub mod spike_attention;
mod spike_products;
pub mod spiking;
mod squeeze_excite;
mod start;
pub mod taps;
mod threads;
mod tokens;
pub mod work;

pub use activation::Activation;
pub use aggregated_attention::{
    Aggregated, AggregatedAttention, AggregatedTerms, AggregatedTokens, unit,
};
pub use attention::{SelfAttention, dense_attention, merge_heads};
pub use batch_norm::{BatchNorm, BatchNormLinear};
pub use bottleneck_attention::BottleneckAttention;
pub use causal_conv::CausalConv;
pub use channel_attention::EfficientChannelAttention;
pub use conv::{Conv2d, ConvBn, ConvConfig};
pub use derived::{Derived, PerMap};
pub use dilated_reparam::{Branches, DilatedReparam};
pub use fourier::FourierMix;
pub use gated_attention::gated_attention;
pub use grouped_attention::{GroupedAttention, join_heads, softmax_attention, split_heads};
pub use haar::{Haar, Side, haar_matrix, is_haar_side};
pub use halo_attention::{HaloAttention, HaloConfig};
pub use head_routing::{HeadRouter, HeadRouting, gate_heads};
pub use inference::{allow_tf32, channels_last, inference_mode, tracing};
pub use lambda_layer::{LambdaConfig, LambdaLayer};
pub use linear::Linear;
pub use linear_bn::{LinearBn, Stored};
pub use mlp::Mlp;
pub use neighborhood::{Border, Neighborhood};
pub use norm::{GlobalResponseNorm, GroupNorm, LayerNorm};
pub use regions::{Regions, crop};
pub use relative_position::{PositionLogits, RelativePosition2d};
pub use residual_conv::{NormConv, ResidualConv};
pub use spike_products::Spiked;
pub use squeeze_excite::{SqueezeExcite, round_channels};
pub use start::without_start;
pub use tokens::{PositionEmbedding, TokenEmbedding, patch_map};
