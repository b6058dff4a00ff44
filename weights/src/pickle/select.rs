//! Chooses which set of tensors to read, and checks each tensor of it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::OnceLock;

use crate::error::{Problem, within};
use crate::limits::Limits;
use crate::notes::Note;
use crate::parts::{Entry, Expansion, Parts, Storage};
use crate::view::Layout;

use super::containers::{self, Found, is_tensor};
use super::heap::{Heap, Id, Object, RawTensor, Visits};
use super::machine::Pickle;
use super::modules;
use super::storage::Declared;

/// Containers by preference: where official loading code looks for weights, then averaged weights.
const PREFERRED: [&str; 16] = [
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "params",
    "weights",
    "module",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "ema",
    "params_ema",
    "student",
    "teacher",
];

/// Where the bytes of a storage lie.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) bytes: Range<usize>,
    /// Name for messages.
    pub(super) label: String,
    pub(super) crc: Option<u32>,
}

/// Reads the tensors of the wanted container (or the preferred one); `locate` finds a storage by its key.
pub(super) fn read(
    pickle: &Pickle<'_>,
    wanted: Option<&str>,
    limits: &Limits,
    locate: impl Fn(&Declared<'_>) -> Result<Located, Problem>,
) -> Result<Parts, Problem> {
    let found = containers::find(&pickle.heap, pickle.root, limits)?;
    let chosen = choose(&found, wanted).transpose().unwrap_or_else(|| {
        Err(Problem::NoTensors {
            found: pickle.heap.describe(pickle.root),
        })
    })?;
    let mut reading = Reading {
        pickle,
        limits,
        locate,
        located: Vec::new(),
        expansion: Expansion::default(),
        parts: Parts::default(),
    };
    reading.located.resize(pickle.storages.list.len(), None);
    for (name, id) in reading.named(chosen.id)? {
        reading.add(name, id)?;
    }
    let mut parts = reading.parts;
    parts.container = chosen.path.clone();
    describe(&mut parts.notes, &found, chosen, &pickle.unknown);
    Ok(parts)
}

fn choose<'f>(found: &'f [Found], wanted: Option<&str>) -> Result<Option<&'f Found>, Problem> {
    let at = |path: &str| found.iter().find(|f| f.path == path);
    if let Some(wanted) = wanted {
        let paths = || found.iter().map(|f| f.path.clone()).collect();
        return at(wanted).map(Some).ok_or_else(|| Problem::NoContainer {
            wanted: wanted.into(),
            found: paths(),
        });
    }
    if let Some(preferred) = PREFERRED.iter().chain(&[""]).find_map(|path| at(path)) {
        return Ok(Some(preferred));
    }
    match found {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        _ => Err(Problem::Ambiguous {
            found: found.iter().map(|f| f.path.clone()).collect(),
        }),
    }
}

fn describe(notes: &mut Vec<Note>, found: &[Found], chosen: &Found, unknown: &[String]) {
    notes.insert(
        0,
        Note::Container {
            path: chosen.path.clone(),
        },
    );
    let others = found.iter().filter(|f| f.path != chosen.path);
    notes.extend(others.map(|f| Note::OtherContainer {
        path: f.path.clone(),
        tensors: f.tensors,
    }));
    if !unknown.is_empty() {
        notes.push(Note::NotExecuted {
            globals: unknown.to_vec(),
        });
    }
}

struct Reading<'p, 'a, L> {
    pickle: &'p Pickle<'a>,
    limits: &'p Limits,
    locate: L,
    /// For each declared storage, its index in `parts` once it was needed.
    located: Vec<Option<usize>>,
    expansion: Expansion,
    parts: Parts,
}

impl<L: Fn(&Declared<'_>) -> Result<Located, Problem>> Reading<'_, '_, L> {
    /// The tensors of a container by name; what is no tensor is noted.
    fn named(&mut self, id: Id) -> Result<Vec<(String, Id)>, Problem> {
        let heap = &self.pickle.heap;
        let all = match heap.dict(id) {
            Some(items) => items
                .iter()
                .filter_map(|(key, value)| Some((heap.text(*key)?.to_owned(), *value)))
                .collect(),
            None => modules::tensors(heap, id, self.limits, &mut Visits::new(self.limits.objects))?,
        };
        let mut names = HashSet::new();
        if let Some((twice, _)) = all.iter().find(|(name, _)| !names.insert(name.as_str())) {
            return Err(Problem::Duplicate {
                what: "key",
                name: twice.clone(),
            });
        }
        let (tensors, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(_, value)| is_tensor(heap, *value));
        let keys: Vec<_> = others
            .into_iter()
            .filter(|(_, value)| !is_container(heap, *value))
            .map(|(name, _)| name)
            .collect();
        if !keys.is_empty() {
            self.parts.notes.push(Note::NotTensors { keys });
        }
        Ok(tensors)
    }

    fn add(&mut self, name: String, id: Id) -> Result<(), Problem> {
        within(
            "tensors",
            self.parts.entries.len() as u64 + 1,
            self.limits.tensors,
        )?;
        within(
            "bytes of a tensor's name",
            name.len() as u64,
            self.limits.name_bytes,
        )?;
        let heap = &self.pickle.heap;
        let raw = match heap.get(id) {
            Object::Tensor(raw) => raw,
            object => {
                let global = heap
                    .maker(object)
                    .map(|g| g.to_string())
                    .unwrap_or_default();
                return Err(Problem::UnknownGlobal {
                    tensor: name,
                    global,
                });
            }
        };
        let entry = self.entry(name, raw)?;
        self.parts.entries.push(entry);
        Ok(())
    }

    fn entry(&mut self, name: String, raw: &RawTensor) -> Result<Entry, Problem> {
        if raw.lazy_bits {
            return Err(Problem::geometry(
                &name,
                "is negated or conjugated lazily; save it with torch after resolve_neg().resolve_conj()",
            ));
        }
        let Some(dtype) = raw.storage.kind.dtype() else {
            return Err(Problem::UnsupportedDtype {
                tensor: name,
                dtype: raw.storage.kind.name.into(),
            });
        };
        let storage = self.storage(raw.storage.declared)?;
        let bytes = self.parts.storages[storage].bytes.len();
        let offset = raw.offset.checked_add(raw.storage.offset);
        let offset = offset.ok_or_else(|| Problem::geometry(&name, "has an impossible offset"))?;
        let layout = Layout {
            offset,
            shape: raw.shape.clone(),
            strides: raw.strides.clone(),
        };
        let claimed = layout.check(&name, dtype, bytes, self.limits)?;
        self.expansion.add(claimed, bytes, self.limits)?;
        Ok(Entry {
            name,
            dtype,
            storage,
            layout,
        })
    }

    fn storage(&mut self, declared: usize) -> Result<usize, Problem> {
        if let Some(known) = self.located[declared] {
            return Ok(known);
        }
        let Located { bytes, label, crc } = (self.locate)(&self.pickle.storages.list[declared])?;
        self.parts.storages.push(Storage {
            bytes,
            label,
            crc,
            intact: OnceLock::new(),
        });
        let index = self.parts.storages.len() - 1;
        self.located[declared] = Some(index);
        Ok(index)
    }
}

/// Dicts beside the tensors are containers of their own or hold none: neither is a lost tensor.
fn is_container(heap: &Heap<'_>, id: Id) -> bool {
    matches!(heap.get(id), Object::Dict(_))
}
