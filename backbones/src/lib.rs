//! The model families, one file each, and the registry that names them.
//!
//! Architecture and data about it; no weights, no engine, no image files.

pub mod activator;
mod backbone;
pub mod biformer;
mod claimed;
mod formula_gain;
pub mod halonet;
pub mod karat;
pub mod maxvit_stl;
pub mod mixer;
pub mod moh_transnext;
pub mod ninformer;
pub mod overlock;
mod registry;
pub mod resnet;
pub mod shvit;
pub mod sparsifiner;
pub mod step;
mod token_net;
mod variant;
pub mod vit;

pub use backbone::{Backbone, InputForm, Stage};
pub use claimed::ReportedMacs;
pub use registry::{find, matching, variants};
pub use variant::{
    BuildOptions, CIFAR_10, IMAGENET, IMAGENET_1K, Interpolation, KeyMapRules, Preprocessing,
    Reported, SpikingOptions, TimeForm, UnknownTimeForm, Variant, WeightFile,
};
pub use zoo_ops::spiking::{Encoding, NeuronKind};
