//! Vision backbones with sparse attention: checked, measured, exported.
//!
//! This crate is the facade: the parts under their short names, and [`verify`], which proves models equal to records
//! of what the official implementations compute. The `zoo` command is a thin layer over the same.

pub use zoo_backbones as backbones;
pub use zoo_energy as energy;
pub use zoo_eval as eval;
pub use zoo_events as events;
pub use zoo_graph as graph;
pub use zoo_images as images;
pub use zoo_ops as ops;
pub use zoo_power as power;
pub use zoo_runtime as runtime;
pub use zoo_weights as weights;

pub mod counting;
pub mod export;
pub mod profile;
pub mod verify;
