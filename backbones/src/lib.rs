//! The model families, one file each, and the registry that names them.
//!
//! Architecture and data about it; no weights, no engine, no image files.

mod backbone;
pub mod biformer;
pub mod halonet;
pub mod mixer;
pub mod moh_transnext;
pub mod overlock;
mod registry;
pub mod resnet;
pub mod shvit;
pub mod sparsifiner;
mod variant;
pub mod vit;

pub use backbone::{Backbone, Stage};
pub use registry::{find, matching, variants};
pub use variant::{
    BuildOptions, Interpolation, KeyMapRules, Preprocessing, Reported, Variant, WeightFile,
};
