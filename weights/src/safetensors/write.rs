//! Writing safetensors: same tensors, same bytes, and never a half-written file under the wanted name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::dtype::Dtype;
use crate::view::numel;

/// One tensor to write.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorData<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions; empty for a scalar.
    pub shape: Cow<'a, [usize]>,
    /// Elements, row-major and little-endian.
    pub bytes: Cow<'a, [u8]>,
}

/// Why a file was not written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The operating system refused.
    #[error("{}: cannot be written: {source}", path.display())]
    Io {
        /// The wanted file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Bytes and shape disagree.
    #[error("tensor {name:?} of {dtype} and shape {shape:?} cannot have {bytes} bytes")]
    Size {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// Its bytes.
        bytes: usize,
    },
    /// Two tensors have one name, or one is called `__metadata__`.
    #[error("the name {name:?} is taken; every tensor needs its own")]
    Name {
        /// The name.
        name: String,
    },
}

#[derive(Serialize)]
struct Record<'a> {
    dtype: &'a str,
    shape: &'a [usize],
    data_offsets: (usize, usize),
}

/// Writes `tensors` and `metadata` to `path` as safetensors: into a temporary file beside it, renamed when complete.
///
/// The order is fixed (widest elements first, then by name, as the reference implementation does so that data
/// stay aligned), so the same tensors always give the same file.
///
/// # Errors
/// [`WriteError`] when names are not unique, bytes do not fit a shape, or the disk refuses; `path` is then as it was.
pub fn write_safetensors(
    path: &Path,
    tensors: &[TensorData<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WriteError> {
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by(|a, b| {
        b.dtype
            .size()
            .cmp(&a.dtype.size())
            .then_with(|| a.name.cmp(&b.name))
    });
    let header = header(&sorted, metadata)?;
    write_beside(path, &header, &sorted).map_err(|source| WriteError::Io {
        path: path.into(),
        source,
    })
}

fn header(
    sorted: &[&TensorData<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WriteError> {
    let mut records = BTreeMap::new();
    let mut at = 0;
    for tensor in sorted {
        let bytes = tensor.bytes.len();
        if numel(&tensor.shape).and_then(|n| n.checked_mul(tensor.dtype.size())) != Some(bytes) {
            return Err(WriteError::Size {
                name: tensor.name.to_string(),
                dtype: tensor.dtype,
                shape: tensor.shape.to_vec(),
                bytes,
            });
        }
        let record = Record {
            dtype: tensor.dtype.safetensors_name(),
            shape: &tensor.shape,
            data_offsets: (at, at + bytes),
        };
        if tensor.name == "__metadata__" || records.insert(&*tensor.name, record).is_some() {
            return Err(WriteError::Name {
                name: tensor.name.to_string(),
            });
        }
        at += bytes;
    }
    Ok(padded(&records, metadata))
}

/// The header's text, metadata first, filled with spaces so that the data begin at a multiple of 8.
fn padded(records: &BTreeMap<&str, Record<'_>>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut text = Vec::from(b"{");
    if !metadata.is_empty() {
        member(&mut text, "__metadata__", metadata);
    }
    for (name, record) in records {
        member(&mut text, name, record);
    }
    text.push(b'}');
    text.resize(text.len().next_multiple_of(8), b' ');
    text
}

fn member(text: &mut Vec<u8>, key: &str, value: &impl Serialize) {
    if text.len() > 1 {
        text.push(b',');
    }
    let json = "maps of text and numbers always have a JSON form";
    serde_json::to_writer(&mut *text, key).expect(json);
    text.push(b':');
    serde_json::to_writer(text, value).expect(json);
}

fn write_beside(path: &Path, header: &[u8], sorted: &[&TensorData<'_>]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    let mut out = BufWriter::with_capacity(1 << 20, file.as_file_mut());
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    for tensor in sorted {
        out.write_all(&tensor.bytes)?;
    }
    out.flush()?;
    drop(out);
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
