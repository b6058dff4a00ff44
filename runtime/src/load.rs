//! Weights into a model: strictly, or not at all.

use crate::Precision;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use tch::{Tensor, nn};
use zoo_backbones::Variant;
use zoo_weights::{Checkpoint, Formula, KeyMap, LoadReport};

/// Where a model's weights come from.
#[derive(Debug, Clone)]
pub enum WeightsSource {
    /// Computed from names: for parity and for timing.
    Formula(Formula),
    /// A checkpoint, and the container inside it where the reader should not choose.
    File {
        /// The file.
        path: PathBuf,
        /// Such as `model_ema`.
        container: Option<String>,
    },
}

/// Why weights do not load.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Not a weights argument.
    #[error("{0}")]
    Argument(String),
    /// The file can not be read.
    #[error(transparent)]
    Read(#[from] zoo_weights::ReadError),
    /// The file's tensors are not the model's.
    #[error("{source_name} does not fit {model}: {reason}")]
    Fit {
        /// The file.
        source_name: String,
        /// The model.
        model: &'static str,
        /// The tensors by name.
        reason: String,
    },
}
