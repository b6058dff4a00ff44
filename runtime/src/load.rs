//! Weights into a model: strictly, or not at all.

use crate::head::HeadTensors;
use crate::session::Head;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use tch::{Tensor, nn};
use zoo_backbones::{BuildOptions, Variant};
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
    /// The same, and then these tensors set to constants: one number, or one for each element in row-major order.
    Overridden {
        /// Of all other tensors.
        formula: Formula,
        /// Numbers by name; names that the model lacks are ignored.
        constants: BTreeMap<String, Vec<f32>>,
    },
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
    /// The file's head has another width than the published one, and the caller named none.
    #[error(
        "{} for {model}: its head has {found} classes and the model's {wanted}: --classes {found} takes it as it is, \
         another --classes N puts a new, untrained head on the backbone", path.display()
    )]
    HeadWidth {
        /// The file.
        path: PathBuf,
        /// The model.
        model: &'static str,
        /// Classes of the file's head.
        found: usize,
        /// Classes of the published head.
        wanted: i64,
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
            WeightsSource::Overridden { formula, constants } => {
                Ok(format!("{formula}:constants:{constants:?}"))
            }
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

/// A network that waits for its weights.
pub(crate) struct Unloaded<'a> {
    pub variant: &'static Variant,
    pub build: BuildOptions,
    pub head: Head,
    pub store: &'a nn::VarStore,
    /// Names and shapes of the store's variables.
    pub state: &'a [(String, Vec<i64>)],
}

/// What a new head is filled with: small, uniform and the same every time.
const NEW_HEAD: Formula = Formula {
    salt: String::new(),
    gain: 1.0,
};

impl Unloaded<'_> {
    /// Fills every variable of the store.
    pub fn load(&self, weights: &WeightsSource) -> Result<LoadReport, WeightsError> {
        match weights {
            WeightsSource::Formula(formula) => {
                let applied = fill(formula, self.store, self.state);
                Ok(LoadReport {
                    applied,
                    ..LoadReport::default()
                })
            }
            WeightsSource::Overridden { formula, constants } => {
                let report = self.load(&WeightsSource::Formula(formula.clone()))?;
                override_with(constants, self.store);
                Ok(report)
            }
            WeightsSource::File { path, container } => {
                let options = zoo_weights::Options {
                    container: container.clone(),
                    ..zoo_weights::Options::default()
                };
                self.read(Checkpoint::open_with(path, &options)?)
            }
        }
    }

    fn read(&self, mut checkpoint: Checkpoint) -> Result<LoadReport, WeightsError> {
        self.rename(&mut checkpoint)?;
        let mut wanted: Vec<Wanted> = self
            .state
            .iter()
            .map(|(name, shape)| Wanted::new(name, unsigned(shape)))
            .collect();
        let mut allowed = AllowedExtras::default();
        if self.head == Head::None {
            let head = HeadTensors::of(self.variant, &self.build);
            let head = head.behind_features(self.variant, &self.build);
            wanted.retain(|w| !head.contains(&w.name));
            allowed = allowed.and_unused(head.iter().map(String::as_str));
        }
        let report = LoadReport::compare(&wanted, &checkpoint)?;
        if let Err(source) = report.check(&allowed) {
            self.new_head(&report, &checkpoint, source)?;
        }
        let untouched: Vec<_> = self
            .state
            .iter()
            .filter(|(name, _)| report.applied.binary_search(name).is_err())
            .cloned()
            .collect();
        fill(&NEW_HEAD, self.store, &untouched);
        let mut variables = self.store.variables();
        for name in &report.applied {
            if let Some(variable) = variables.get_mut(name) {
                assign(variable, tensor(&checkpoint, name)?);
            }
        }
        Ok(report)
    }

    fn rename(&self, checkpoint: &mut Checkpoint) -> Result<(), WeightsError> {
        let map_error = |source| WeightsError::KeyMap {
            model: self.variant.name,
            source,
        };
        let maps = key_maps(self.variant).map_err(map_error)?;
        let tensors = checkpoint.tensors().iter();
        let keys: Vec<&str> = tensors.map(|t| t.name.as_str()).collect();
        let names: Vec<&str> = self.state.iter().map(|(name, _)| name.as_str()).collect();
        match KeyMap::detect(&maps, &keys, &names) {
            Some(map) => checkpoint
                .rename(map, Direction::ToOfficial)
                .map_err(map_error),
            None => Ok(()),
        }
    }

    /// Accepts a misfit that is only the head's width, where the caller chose the width; names it where not.
    fn new_head(
        &self,
        report: &LoadReport,
        checkpoint: &Checkpoint,
        source: LoadError,
    ) -> Result<(), WeightsError> {
        let path = checkpoint.path().to_path_buf();
        let model = self.variant.name;
        let fits_but_head = source.missing.is_empty()
            && source.unused.is_empty()
            && source.non_finite.is_empty()
            && !source.misshapen.is_empty();
        let width = fits_but_head
            .then(|| HeadTensors::of(self.variant, &self.build).other_width(report))
            .flatten();
        match (width, self.head) {
            (Some(_), Head::Classes(_)) => Ok(()),
            (Some(found), Head::Published) => Err(WeightsError::HeadWidth {
                path,
                model,
                found,
                wanted: self.build.classes,
            }),
            _ => Err(WeightsError::Fit {
                path,
                model,
                source: Box::new(source),
            }),
        }
    }
}

/// Fills the variables that `state` names; gives their names.
fn fill(formula: &Formula, store: &nn::VarStore, state: &[(String, Vec<i64>)]) -> Vec<String> {
    let values: BTreeMap<&str, Vec<f32>> = state
        .par_iter()
        .filter_map(|(name, shape)| {
            let values = formula.fill(name, &unsigned(shape), Kind::Param)?;
            Some((name.as_str(), values))
        })
        .collect();
    let mut filled = Vec::new();
    for (name, mut variable) in store.variables() {
        if let Some(values) = values.get(name.as_str()) {
            assign(&mut variable, Tensor::from_slice(values));
            filled.push(name);
        }
    }
    filled.sort();
    filled
}

fn override_with(constants: &BTreeMap<String, Vec<f32>>, store: &nn::VarStore) {
    for (name, mut variable) in store.variables() {
        match constants.get(&name).map(Vec::as_slice) {
            Some([value]) => {
                let _filled = tch::no_grad(|| variable.fill_(f64::from(*value)));
            }
            Some(values) => assign(&mut variable, Tensor::from_slice(values)),
            None => {}
        }
    }
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
