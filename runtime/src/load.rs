//! Weights into a model: strictly, or not at all.

use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use tch::{Tensor, nn};
use zoo_backbones::Variant;
use zoo_weights::formula::{Formula, Kind, ParseFormulaError};
use zoo_weights::{
    AllowedExtras, Checkpoint, Direction, Dtype, KeyMap, KeyMapError, LoadError, LoadReport,
    ReadError, Wanted, file_sha256,
};

/// Where a model's weights come from.
#[derive(Debug, Clone)]
pub enum WeightsSource {
    /// Computed from the tensors' names: for parity and for timing, not for accuracy.
    Formula(Formula),
    /// A checkpoint.
    File {
        /// The file.
        path: PathBuf,
        /// The container to read where the reader should not choose, such as `model_ema`.
        container: Option<String>,
    },
}

/// Why weights do not load.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Not a formula.
    #[error(transparent)]
    Formula(#[from] ParseFormulaError),
    /// The file can not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file could not be hashed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The file's tensors are not the model's.
    #[error("{} for {model}: {source}", path.display())]
    Fit {
        /// The file.
        path: PathBuf,
        /// The model.
        model: &'static str,
        /// The tensors by name.
        source: Box<LoadError>,
    },
    /// The model's own key map is malformed, or maps two tensors to one name.
    #[error("key map of {model}: {source}")]
    KeyMap {
        /// The model.
        model: &'static str,
        /// What is wrong.
        source: KeyMapError,
    },
}

impl FromStr for WeightsSource {
    type Err = WeightsError;

    /// `formula[:SALT[:GAIN]]`, or a path.
    fn from_str(text: &str) -> Result<Self, WeightsError> {
        if text == "formula" || text.starts_with("formula:") {
            return Ok(WeightsSource::Formula(text.parse()?));
        }
        Ok(WeightsSource::File {
            path: text.into(),
            container: None,
        })
    }
}

impl WeightsSource {
    /// Whether the weights come from training, so that an accuracy means something.
    pub fn trained(&self) -> bool {
        matches!(self, WeightsSource::File { .. })
    }

    /// What tells these weights from all others: the formula, or the file's name and SHA-256.
    pub fn identity(&self) -> Result<String, WeightsError> {
        match self {
            WeightsSource::Formula(formula) => Ok(formula.to_string()),
            WeightsSource::File { path, container } => {
                let hash = file_sha256(path).map_err(|source| WeightsError::Io {
                    path: path.clone(),
                    source,
                })?;
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let container = container.as_deref().unwrap_or("");
                Ok(format!("{name}:{container}:sha256:{hash}"))
            }
        }
    }
}

/// Fills every variable of `store`, whose names and shapes are `state`.
pub(crate) fn apply(
    weights: &WeightsSource,
    variant: &'static Variant,
    store: &mut nn::VarStore,
    state: &[(String, Vec<i64>)],
) -> Result<LoadReport, WeightsError> {
    match weights {
        WeightsSource::Formula(formula) => Ok(fill(formula, store, state)),
        WeightsSource::File { path, container } => {
            let options = zoo_weights::Options {
                container: container.clone(),
                ..zoo_weights::Options::default()
            };
            let checkpoint = Checkpoint::open_with(path, &options)?;
            read(checkpoint, variant, store, state)
        }
    }
}

fn fill(formula: &Formula, store: &nn::VarStore, state: &[(String, Vec<i64>)]) -> LoadReport {
    let values: BTreeMap<&str, Vec<f32>> = state
        .par_iter()
        .filter_map(|(name, shape)| {
            let values = formula.fill(name, &unsigned(shape), Kind::Param)?;
            Some((name.as_str(), values))
        })
        .collect();
    let mut report = LoadReport::default();
    for (name, mut variable) in store.variables() {
        if let Some(values) = values.get(name.as_str()) {
            assign(&mut variable, Tensor::from_slice(values));
            report.applied.push(name);
        }
    }
    report.applied.sort();
    report
}

fn read(
    mut checkpoint: Checkpoint,
    variant: &'static Variant,
    store: &nn::VarStore,
    state: &[(String, Vec<i64>)],
) -> Result<LoadReport, WeightsError> {
    let wanted: Vec<Wanted> = state
        .iter()
        .map(|(name, shape)| Wanted::new(name, unsigned(shape)))
        .collect();
    let map_error = |source| WeightsError::KeyMap {
        model: variant.name,
        source,
    };
    let maps = key_maps(variant).map_err(map_error)?;
    let keys: Vec<&str> = checkpoint
        .tensors()
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    let names: Vec<&str> = state.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(map) = KeyMap::detect(&maps, &keys, &names) {
        checkpoint
            .rename(map, Direction::ToOfficial)
            .map_err(map_error)?;
    }
    let report = LoadReport::compare(&wanted, &checkpoint)?;
    report
        .check(&AllowedExtras::default())
        .map_err(|source| WeightsError::Fit {
            path: checkpoint.path().to_path_buf(),
            model: variant.name,
            source: Box::new(source),
        })?;
    for (name, mut variable) in store.variables() {
        assign(&mut variable, tensor(&checkpoint, &name)?);
    }
    Ok(report)
}

/// The variant's key maps, compiled.
pub fn key_maps(variant: &Variant) -> Result<Vec<KeyMap>, KeyMapError> {
    variant
        .key_maps
        .iter()
        .map(|map| KeyMap::new(map.name, map.rules))
        .collect()
}

/// Double where the file has doubles, else float: nothing is rounded on the way in.
fn tensor(checkpoint: &Checkpoint, name: &str) -> Result<Tensor, ReadError> {
    match checkpoint.get(name).map(|info| info.dtype) {
        Some(Dtype::F64 | Dtype::I64) => Ok(Tensor::from_slice(&checkpoint.to_f64(name)?)),
        _ => Ok(Tensor::from_slice(&checkpoint.to_f32(name)?)),
    }
}

fn assign(variable: &mut Tensor, values: Tensor) {
    let shape = variable.size();
    tch::no_grad(|| variable.copy_(&values.reshape(shape)));
}

pub(crate) fn unsigned(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|&n| n.unsigned_abs() as usize).collect()
}
