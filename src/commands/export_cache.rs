//! ONNX graphs of the zoo's models, exported when first needed.

use super::model::ModelArguments;
use anyhow::{Result, bail};
use std::path::PathBuf;
use zoo::backbones::Variant;

/// The model's graph with these weights, as a file.
pub fn exported(variant: &Variant, _run: &ModelArguments) -> Result<PathBuf> {
    bail!(
        "{} can not be exported yet: give a .onnx file",
        variant.name
    )
}
