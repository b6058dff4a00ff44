//! The form of `torch.save` before PyTorch 1.6: five pickles one after the other, then the storages.

use std::collections::HashMap;

use crate::error::{Problem, within};
use crate::limits::Limits;
use crate::parts::Parts;

use super::heap::Object;
use super::machine::{self, Pickle};
use super::select::{self, Located};
use super::storage::{Declarations, Declared};

/// The first pickle: protocol 2, the ten bytes of PyTorch's magic number, STOP.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Whether `bytes` begin as a legacy checkpoint does.
pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    // The protocol byte is the caller's choice; the rest is not.
    bytes.len() > 2 && bytes[0] == 0x80 && bytes[2..].starts_with(&MAGIC[2..])
}

/// Reads a legacy checkpoint.
pub(crate) fn read(bytes: &[u8], wanted: Option<&str>, limits: &Limits) -> Result<Parts, Problem> {
    let mut pickles = Pickles {
        bytes,
        at: 0,
        limits,
    };
    pickles.next()?;
    pickles.next()?;
    check_endianness(&pickles.next()?)?;
    let weights = pickles.next()?;
    let keys = pickles.next()?;
    let storages = locate(bytes, pickles.at, &keys, &weights.storages)?;
    select::read(&weights, wanted, limits, |declared| {
        let found = storages.get(declared.key).cloned();
        found.ok_or_else(|| Problem::Pickle {
            at: 0,
            what: format!("storage {:?} is not in the file", declared.key),
        })
    })
}

struct Pickles<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: &'a Limits,
}

impl<'a> Pickles<'a> {
    fn next(&mut self) -> Result<Pickle<'a>, Problem> {
        let pickle = machine::run(&self.bytes[self.at..], self.limits)?;
        self.at += pickle.end;
        within(
            "bytes of the pickles",
            self.at as u64,
            self.limits.pickle_bytes,
        )?;
        Ok(pickle)
    }
}

fn check_endianness(system: &Pickle<'_>) -> Result<(), Problem> {
    let heap = &system.heap;
    let items = heap.dict(system.root).unwrap_or_default();
    let little = items
        .iter()
        .find(|(key, _)| heap.text(*key) == Some("little_endian"));
    match little.map(|(_, value)| heap.get(*value)) {
        Some(Object::Bool(false)) => Err(Problem::BigEndian),
        _ => Ok(()),
    }
}

/// Each storage is its number of elements in 8 bytes, then the elements, in the order of the keys.
fn locate<'a>(
    bytes: &[u8],
    mut at: usize,
    keys: &Pickle<'a>,
    declared: &Declarations<'_>,
) -> Result<HashMap<&'a str, Located>, Problem> {
    let fail = |what| Problem::Pickle { at: 0, what };
    let order = keys
        .heap
        .sequence(keys.root)
        .ok_or_else(|| fail("the keys of the storages are no list".into()))?;
    let by_key: HashMap<_, _> = declared.list.iter().map(|d| (d.key, d)).collect();
    let mut located = HashMap::new();
    for key in order {
        let key = keys
            .heap
            .text(*key)
            .ok_or_else(|| fail("the key of a storage is no text".into()))?;
        let storage = by_key
            .get(key)
            .ok_or_else(|| fail(format!("storage {key:?} has no known type")))?;
        let found = one(bytes, at, storage)?;
        at = found.bytes.end;
        if located.insert(key, found).is_some() {
            return Err(Problem::Duplicate {
                what: "storage",
                name: key.into(),
            });
        }
    }
    Ok(located)
}

fn one(bytes: &[u8], at: usize, storage: &Declared<'_>) -> Result<Located, Problem> {
    let label = format!("storage {:?}", storage.key);
    let count = bytes[at..]
        .first_chunk::<8>()
        .ok_or_else(|| Problem::truncated(&*label, at as u64 + 8, bytes.len()))?;
    let count = u64::from_le_bytes(*count);
    if count != storage.numel as u64 {
        return Err(Problem::Pickle {
            at,
            what: format!(
                "{label} is said to have {} elements and brings {count}",
                storage.numel
            ),
        });
    }
    let start = at + 8;
    let end = storage
        .numel
        .checked_mul(storage.kind.width)
        .and_then(|n| start.checked_add(n));
    match end {
        Some(end) if end <= bytes.len() => Ok(Located {
            bytes: start..end,
            label,
            crc: None,
        }),
        end => Err(Problem::truncated(
            label,
            end.map_or(u64::MAX, |end| end as u64),
            bytes.len(),
        )),
    }
}
