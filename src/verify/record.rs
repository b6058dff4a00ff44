//! Records on disk.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zoo_weights::Checkpoint;

/// One tensor of the reference model's state_dict: name, shape, kind (`param`, `stat` or `buffer`).
#[derive(Debug, Clone, Deserialize)]
pub struct StateEntry(pub String, pub Vec<i64>, pub String);

/// What a reference model computed.
#[derive(Debug, Clone, Deserialize)]
pub struct Record {
    /// Name of the record; also the model's, unless `model` says otherwise.
    #[serde(default)]
    pub name: String,
    /// A model of the zoo, by name or alias.
    #[serde(default)]
    pub model: Option<String>,
    /// What is recorded, where it is no model (`neuron`, `encoding`, `energy`, ..).
    #[serde(default)]
    pub kind: Option<String>,
    /// Salt of the formula weights and of the input; records that store their tensors whole have none.
    #[serde(default)]
    pub salt: String,
    /// Gain of the formula weights.
    #[serde(default = "one")]
    pub gain: f64,
    /// [B, C, H, W].
    #[serde(default)]
    pub input_shape: Option<Vec<i64>>,
    /// How the input was made, where it is not the formula's as it is.
    #[serde(default)]
    pub input: serde_json::Value,
    /// Where the reference's code is.
    #[serde(default)]
    pub source: serde_json::Value,
    /// Number of parameters of the reference.
    pub num_params: Option<u64>,
    /// How the reference was configured.
    #[serde(default)]
    pub config: serde_json::Value,
    /// Full shape of each output.
    #[serde(default)]
    pub outputs: BTreeMap<String, Vec<i64>>,
    /// Every tensor of the reference's state_dict, in order.
    #[serde(default)]
    pub state_dict: Vec<StateEntry>,
    /// Where the `.json` was read from.
    #[serde(skip)]
    pub path: PathBuf,
}

fn one() -> f64 {
    1.0
}

/// A record that can not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its words.
        source: std::io::Error,
    },
    /// Not a record.
    #[error("{}: not a parity record: {source} (docs/records.md has the form)", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// The recorded values can not be read.
    #[error("the values of a record: {0}")]
    Values(#[from] zoo_weights::ReadError),
    /// A folder without a record.
    #[error("{}: no record (*.json) here", .0.display())]
    None(PathBuf),
}

impl Record {
    /// Reads `NAME.json`.
    pub fn open(path: &Path) -> Result<Record, RecordError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecordError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let mut record: Record =
            serde_json::from_str(&text).map_err(|source| RecordError::Json {
                path: path.to_path_buf(),
                source,
            })?;
        if record.name.is_empty() {
            record.name = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default();
        }
        record.path = path.to_path_buf();
        Ok(record)
    }

    /// The recorded values, flattened as stored beside the record.
    pub fn values(&self) -> Result<BTreeMap<String, Vec<f64>>, RecordError> {
        let file = Checkpoint::open(&self.path.with_extension("safetensors"))?;
        let mut values = BTreeMap::new();
        for info in file.tensors() {
            values.insert(info.name.clone(), file.to_f64(&info.name)?);
        }
        Ok(values)
    }
}

/// The records named: files as they are, folders with every `*.json` in them that looks like one, in name order.
pub fn find_records(paths: &[PathBuf]) -> Result<Vec<PathBuf>, RecordError> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(record_file(path));
            continue;
        }
        let io = |source| RecordError::Io {
            path: path.clone(),
            source,
        };
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(io)? {
            let file = entry.map_err(io)?.path();
            if file.extension().is_some_and(|e| e == "json") {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            return Err(RecordError::None(path.clone()));
        }
        inside.sort();
        found.append(&mut inside);
    }
    Ok(found)
}

/// `NAME`, `NAME.json` and `NAME.safetensors` all name the record.
fn record_file(path: &Path) -> PathBuf {
    match path.extension() {
        Some(e) if e == "json" => path.to_path_buf(),
        Some(e) if e == "safetensors" => path.with_extension("json"),
        _ => {
            let mut name = path.as_os_str().to_owned();
            name.push(".json");
            PathBuf::from(name)
        }
    }
}
