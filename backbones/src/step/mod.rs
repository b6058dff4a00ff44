//! STEP: spiking transformers, one family a file, under the names `step-FAMILY-DATA`.
//!
//! Paper: "STEP: A Unified Spiking Transformer Evaluation Platform for Fair and Reproducible Benchmarking", NeurIPS 2025
//! (Datasets and Benchmarks), arXiv 2505.11151. Official code: Fancyssc/STEP, whose ports these are: where a port differs
//! from the paper it ports, the port is followed, and `docs/spiking.md` lists the place.
//!
//! Activations have rows [T * B, ..], time slowest; an image is the input of all of its time steps (direct encoding).

mod network;
mod parts;
mod qkformer;
mod rep_conv;
mod sdt;
mod sequence;
pub mod sglformer;
pub mod spikf_semm;
mod spikformer;
pub mod spikformer_es;
mod spikingformer;
pub mod spikingresformer;
pub mod spt;
mod stem;
pub mod swformer;
#[cfg(test)]
mod tests;
pub mod tim;
mod time;
mod variants;

pub use time::{Spikes, Time};
pub use variants::VARIANTS;
