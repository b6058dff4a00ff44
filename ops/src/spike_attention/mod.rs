//! Attention between spikes: no softmax, so that products may be taken in either order, or not at all.
//!
//! Queries, keys and values are tokens [B, N, C] of spikes (0, 1, or small integers); C = heads * d, head-major.

mod dual;
mod experts;
mod local;
mod packed;
mod products;
mod sums;

pub use dual::DualAttention;
pub use experts::{ExpertAttention, SharedKeys};
pub use local::{from_subimages, scrambled_map, to_subimages};
pub use products::{Order, SpikeAttention};
pub use sums::{channel_gate, token_gate};
