//! The safetensors format: a length, a JSON header, then the tensors' bytes.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. The header is parsed here and not by the
//! `safetensors` crate, whose map lets the second of two equal names win silently and which bounds only the
//! header's length. The tests hold both directions to that crate.

mod header;
mod write;

pub use write::{TensorData, WriteError, write_safetensors};

use std::sync::OnceLock;

use crate::dtype::Dtype;
use crate::error::{Problem, within};
use crate::limits::Limits;
use crate::notes::Note;
use crate::parts::{Entry, Parts, Storage};
use crate::view::Layout;
use header::{Header, Record};

/// Bytes before the header.
const PREFIX: usize = 8;

/// Whether `bytes` begin as a safetensors file does.
pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    bytes.get(PREFIX) == Some(&b'{') && bytes[PREFIX - 1] == 0
}

/// Whether they do so beyond doubt: a length below 4 GiB and an object. Nothing else has these zeros and this brace.
pub(crate) fn is_certain(bytes: &[u8]) -> bool {
    bytes.get(4..=PREFIX) == Some(b"\0\0\0\0{".as_slice())
}

/// Reads the header of a safetensors file.
pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Result<Parts, Problem> {
    let (header, start) = split(bytes, limits)?;
    let Header {
        metadata,
        mut records,
    } = header::parse(header, limits)?;
    check_order(&mut records, bytes.len() - start)?;
    records.sort_by_key(|r| r.position);
    let mut parts = Parts {
        metadata,
        ..Parts::default()
    };
    for record in records {
        add(&mut parts, record, start, limits)?;
    }
    parts.notes.push(Note::Container {
        path: String::new(),
    });
    Ok(parts)
}

/// The header's text, and where the data begins.
fn split<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(&'a [u8], usize), Problem> {
    let prefix = bytes.first_chunk::<PREFIX>();
    let length = u64::from_le_bytes(
        *prefix.ok_or_else(|| Problem::truncated("the header's length", 8, bytes.len()))?,
    );
    within(
        "bytes of the safetensors header",
        length,
        limits.header_bytes,
    )?;
    let end = PREFIX as u64 + length;
    let header = usize::try_from(end)
        .ok()
        .and_then(|end| bytes.get(PREFIX..end));
    let header =
        header.ok_or_else(|| Problem::truncated("the safetensors header", end, bytes.len()))?;
    Ok((header, PREFIX + header.len()))
}

/// The format leaves no holes, no overlaps and nothing behind the last tensor.
fn check_order(records: &mut [Record], data: usize) -> Result<(), Problem> {
    records.sort_by_key(|r| (r.begin, r.end));
    let mut at = 0;
    let mut last = "";
    for record in records.iter() {
        if record.begin < at {
            return Err(Problem::Overlap {
                first: last.into(),
                second: record.name.clone(),
            });
        }
        if record.begin > at {
            return Err(Problem::Header(format!(
                "{} bytes before tensor {:?} belong to no tensor",
                record.begin - at,
                record.name
            )));
        }
        if record.end < record.begin {
            return Err(Problem::geometry(&record.name, "ends before it begins"));
        }
        (at, last) = (record.end, &record.name);
    }
    match at.cmp(&(data as u64)) {
        std::cmp::Ordering::Greater => {
            Err(Problem::truncated(format!("tensor {last:?}"), at, data))
        }
        std::cmp::Ordering::Less => Err(Problem::Header(format!(
            "{} bytes at the end belong to no tensor",
            data as u64 - at
        ))),
        std::cmp::Ordering::Equal => Ok(()),
    }
}

fn add(parts: &mut Parts, record: Record, start: usize, limits: &Limits) -> Result<(), Problem> {
    let Record {
        name,
        dtype,
        shape,
        begin,
        end,
        ..
    } = record;
    let Some(dtype) = Dtype::from_safetensors_name(&dtype) else {
        return Err(Problem::UnsupportedDtype {
            tensor: name,
            dtype,
        });
    };
    let bytes = start + begin as usize..start + end as usize;
    let layout = Layout::contiguous(shape);
    let claimed = layout.check(&name, dtype, bytes.len(), limits)?;
    if claimed != bytes.len() as u64 {
        return Err(Problem::geometry(
            &name,
            format!("needs {claimed} bytes, its offsets give it {}", bytes.len()),
        ));
    }
    let storage = parts.storages.len();
    parts.storages.push(Storage {
        bytes,
        label: name.clone(),
        crc: None,
        intact: OnceLock::new(),
    });
    parts.entries.push(Entry {
        name,
        dtype,
        storage,
        layout,
    });
    Ok(())
}
