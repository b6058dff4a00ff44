//! A checkpoint file, opened: which tensors it has, and their elements on demand.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::detect::{self, Format};
use crate::dtype::{self, Dtype};
use crate::error::{Problem, ReadError};
use crate::keymap::{Direction, KeyMap, KeyMapError};
use crate::limits::Limits;
use crate::notes::Note;
use crate::parts::{Entry, Parts, Storage};
use crate::safetensors::TensorData;
use crate::source::Source;
use crate::view::numel;
use crate::{pickle, safetensors};

/// How to open a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which set of tensors to read, as a path of keys such as `model_ema` or `checkpoint/state_dict`; empty for
    /// the outermost dict. `None` takes the first of `state_dict`, `model`, .., `model_ema`, .., the outermost
    /// dict, or the only one there is.
    pub container: Option<String>,
    /// Keep only tensors whose names begin with this, such as `backbone.`, and take it off.
    pub under: Option<String>,
    /// Bounds on what the file may claim.
    pub limits: Limits,
}

/// Name, type and shape of a tensor in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorInfo {
    /// Name, after prefixes such as `module.` were taken off.
    pub name: String,
    /// Element type as stored.
    pub dtype: Dtype,
    /// Dimensions; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        // The reader has refused shapes whose product does not fit.
        numel(&self.shape).unwrap_or(0)
    }
}

/// An opened checkpoint. The file is mapped; elements are copied only where a view is not contiguous.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    source: Source,
    infos: Vec<TensorInfo>,
    entries: Vec<Entry>,
    storages: Vec<Storage>,
    by_name: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
    container: String,
    notes: Vec<Note>,
}

impl Checkpoint {
    /// Opens a checkpoint with the default [`Options`]. The format is told by the file's content.
    ///
    /// # Errors
    /// [`ReadError`] for anything that is not a whole, sound checkpoint.
    pub fn open(path: &Path) -> Result<Checkpoint, ReadError> {
        Self::open_with(path, &Options::default())
    }

    /// Opens a checkpoint.
    ///
    /// # Errors
    /// [`ReadError`] for anything that is not a whole, sound checkpoint, or lacks what `options` ask for.
    pub fn open_with(path: &Path, options: &Options) -> Result<Checkpoint, ReadError> {
        let opened = Source::open(path, &options.limits)
            .and_then(|source| Self::read(path, source, options));
        opened.map_err(|problem| ReadError {
            path: path.into(),
            problem,
        })
    }

    /// Reads a checkpoint that is already in memory; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`Checkpoint::open_with`].
    pub fn from_bytes(
        name: &str,
        bytes: Vec<u8>,
        options: &Options,
    ) -> Result<Checkpoint, ReadError> {
        let path = Path::new(name);
        Self::read(path, Source::Owned(bytes), options).map_err(|problem| ReadError {
            path: path.into(),
            problem,
        })
    }

    fn read(path: &Path, source: Source, options: &Options) -> Result<Checkpoint, Problem> {
        let format = detect::format(&source)?;
        let wanted = options.container.as_deref();
        let limits = &options.limits;
        let mut parts = match format {
            Format::Safetensors => {
                only_container(wanted).and_then(|()| safetensors::read(&source, limits))?
            }
            Format::TorchZip => pickle::read_zip(&source, wanted, limits)?,
            Format::TorchLegacy => pickle::read_legacy(&source, wanted, limits)?,
        };
        strip_common_prefixes(&mut parts);
        if let Some(prefix) = &options.under {
            keep_under(&mut parts, prefix)?;
        }
        Ok(Self::assemble(path, format, source, parts))
    }

    fn assemble(path: &Path, format: Format, source: Source, parts: Parts) -> Checkpoint {
        let Parts {
            entries,
            storages,
            metadata,
            container,
            notes,
        } = parts;
        let info = |e: &Entry| TensorInfo {
            name: e.name.clone(),
            dtype: e.dtype,
            shape: e.layout.shape.clone(),
        };
        let by_name = entries
            .iter()
            .enumerate()
            .map(|(i, e)| (e.name.clone(), i))
            .collect();
        Checkpoint {
            path: path.into(),
            format,
            source,
            infos: entries.iter().map(info).collect(),
            entries,
            storages,
            by_name,
            metadata: metadata.into_iter().collect(),
            container,
            notes,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Path of the container that was read; empty for the outermost dict.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Texts that a safetensors file carries beside its tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// What was decided or left alone while reading.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|i| &self.infos[*i])
    }

    /// Elements of all tensors together.
    pub fn total_elements(&self) -> u64 {
        self.infos.iter().map(|t| t.numel() as u64).sum()
    }

    /// For each dtype, how many tensors have it and how many elements they have.
    pub fn dtype_histogram(&self) -> BTreeMap<Dtype, (usize, u64)> {
        let mut histogram = BTreeMap::new();
        for tensor in &self.infos {
            let (tensors, elements) = histogram.entry(tensor.dtype).or_insert((0, 0));
            *tensors += 1;
            *elements += tensor.numel() as u64;
        }
        histogram
    }

    /// The elements of a tensor, row-major and little-endian. Borrowed from the file where they lie so in it.
    ///
    /// # Errors
    /// When there is no such tensor, or its bytes do not match the checksum that the file records.
    pub fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        let entry = self.by_name.get(name).map(|i| &self.entries[*i]);
        let read = entry
            .ok_or_else(|| Problem::geometry(name, "is not in the checkpoint"))
            .and_then(|e| self.read_entry(e));
        read.map_err(|problem| ReadError {
            path: self.path.clone(),
            problem,
        })
    }

    fn read_entry(&self, entry: &Entry) -> Result<Cow<'_, [u8]>, Problem> {
        let storage = &self.storages[entry.storage];
        let bytes = &self.source[storage.bytes.clone()];
        let intact = || storage.crc.is_none_or(|crc| crc32fast::hash(bytes) == crc);
        if !storage.intact.get_or_init(intact) {
            return Err(Problem::Checksum {
                member: storage.label.clone(),
            });
        }
        Ok(entry.layout.read(bytes, entry.dtype.size()))
    }

    /// The elements of a tensor as `f32`, row-major; wider types are rounded to nearest.
    ///
    /// # Errors
    /// As [`Checkpoint::bytes`].
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>, ReadError> {
        self.decoded(name, dtype::to_f32)
    }

    /// The elements of a tensor as `f64`, row-major; exact but for `i64` beyond 2^53.
    ///
    /// # Errors
    /// As [`Checkpoint::bytes`].
    pub fn to_f64(&self, name: &str) -> Result<Vec<f64>, ReadError> {
        self.decoded(name, dtype::to_f64)
    }

    fn decoded<T>(
        &self,
        name: &str,
        decode: impl Fn(Dtype, &[u8]) -> Vec<T>,
    ) -> Result<Vec<T>, ReadError> {
        let bytes = self.bytes(name)?;
        let dtype = self.get(name).map_or(Dtype::U8, |info| info.dtype);
        Ok(decode(dtype, &bytes))
    }

    /// All tensors with their bytes, for [`crate::write_safetensors`].
    ///
    /// # Errors
    /// As [`Checkpoint::bytes`].
    pub fn data(&self) -> Result<Vec<TensorData<'_>>, ReadError> {
        let tensor = |info: &TensorInfo| {
            Ok(TensorData {
                name: info.name.clone().into(),
                dtype: info.dtype,
                shape: info.shape.clone().into(),
                bytes: self.bytes(&info.name)?,
            })
        };
        self.infos.iter().map(tensor).collect()
    }

    /// Renames all tensors by a key map.
    ///
    /// # Errors
    /// When two tensors would get one name, or the way back would not give the old names; nothing is renamed then.
    pub fn rename(&mut self, map: &KeyMap, direction: Direction) -> Result<(), KeyMapError> {
        let old: Vec<_> = self.infos.iter().map(|t| t.name.as_str()).collect();
        let new = map.rename_all(&old, direction)?;
        self.by_name = new
            .iter()
            .cloned()
            .enumerate()
            .map(|(i, name)| (name, i))
            .collect();
        for ((entry, info), name) in self.entries.iter_mut().zip(&mut self.infos).zip(new) {
            entry.name.clone_from(&name);
            info.name = name;
        }
        Ok(())
    }
}

/// A safetensors file has no containers to choose from.
fn only_container(wanted: Option<&str>) -> Result<(), Problem> {
    match wanted {
        None | Some("") => Ok(()),
        Some(wanted) => Err(Problem::NoContainer {
            wanted: wanted.into(),
            found: vec![String::new()],
        }),
    }
}

/// Takes off what DataParallel and torch.compile put before every name.
fn strip_common_prefixes(parts: &mut Parts) {
    const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];
    let common = |entries: &[Entry]| {
        WRAPPERS
            .into_iter()
            .find(|p| entries.iter().all(|e| e.name.starts_with(p)))
    };
    if parts.entries.is_empty() {
        return;
    }
    while let Some(prefix) = common(&parts.entries) {
        for entry in &mut parts.entries {
            entry.name.drain(..prefix.len());
        }
        parts.notes.push(Note::PrefixStripped {
            prefix: prefix.into(),
        });
    }
}

fn keep_under(parts: &mut Parts, prefix: &str) -> Result<(), Problem> {
    let before = parts.entries.len();
    parts.entries.retain_mut(|entry| {
        let inside = entry.name.starts_with(prefix);
        if inside {
            entry.name.drain(..prefix.len());
        }
        inside
    });
    if parts.entries.is_empty() {
        return Err(Problem::NothingUnder {
            container: parts.container.clone(),
            prefix: prefix.into(),
        });
    }
    parts.notes.push(Note::PrefixStripped {
        prefix: prefix.into(),
    });
    if parts.entries.len() < before {
        parts.notes.push(Note::OutsidePrefix {
            prefix: prefix.into(),
            tensors: before - parts.entries.len(),
        });
    }
    Ok(())
}
