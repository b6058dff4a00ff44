//! Attention between spikes: no softmax, so that products may be taken in either order, or not at all.
//!
//! Queries, keys and values are tokens [B, N, C] of spikes (0, 1, or small integers); C = heads * d, head-major.

mod products;
mod sums;

pub use products::{Order, SpikeAttention};
pub use sums::{channel_gate, token_gate};
