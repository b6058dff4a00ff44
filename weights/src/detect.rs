//! Tells what a file is by its first bytes; its name is not asked.

use serde::Serialize;

use crate::error::Problem;
use crate::{pickle, safetensors};

/// How a checkpoint is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// <https://github.com/huggingface/safetensors>
    Safetensors,
    /// `torch.save` since PyTorch 1.6: a zip archive around a pickle.
    TorchZip,
    /// `torch.save` before PyTorch 1.6, and with `_use_new_zipfile_serialization=False`.
    TorchLegacy,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::Safetensors => "safetensors",
            Format::TorchZip => "PyTorch (zip)",
            Format::TorchLegacy => "PyTorch (legacy)",
        })
    }
}

pub(crate) fn format(bytes: &[u8]) -> Result<Format, Problem> {
    if bytes.is_empty() {
        return Err(Problem::Empty);
    }
    // Before all others: the length that such a file begins with may spell any short signature.
    if safetensors::is_certain(bytes) {
        return Ok(Format::Safetensors);
    }
    if let Some((what, remedy)) = foreign(bytes) {
        return Err(Problem::Foreign { what, remedy });
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return Ok(Format::TorchZip);
    }
    if pickle::looks_like_legacy(bytes) {
        return Ok(Format::TorchLegacy);
    }
    if safetensors::looks_like(bytes) {
        return Ok(Format::Safetensors);
    }
    Err(Problem::UnknownFormat {
        start: format!(
            "{:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(16)])
        ),
    })
}

/// What else people hand over as weights, and what to do then.
fn foreign(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const FETCH: &str = "the download failed or needs a login: fetch the file itself";
    const EXPORT: &str = "export PyTorch weights or safetensors from it";
    let known: [(&[u8], _, _); 9] = [
        (
            b"version https://git-lfs",
            "a Git LFS pointer",
            "run `git lfs pull` or download the file it stands for",
        ),
        (
            b"\x89HDF\r\n\x1a\n",
            "an HDF5 file (TensorFlow or Keras weights)",
            EXPORT,
        ),
        (
            b"\x93NUMPY",
            "a NumPy array",
            "save the weights as safetensors, with their names",
        ),
        (b"GGUF", "a GGUF file", EXPORT),
        (b"\x1f\x8b", "a gzip archive", "unpack it first"),
        (b"\xfd7zXZ", "an xz archive", "unpack it first"),
        (b"<?xml", "an XML page", FETCH),
        (
            b"{",
            "a JSON file",
            "a .safetensors.index.json lists the files with the weights: give one of those",
        ),
        (
            b"Entry not found",
            "the answer of a server that has no such file",
            FETCH,
        ),
    ];
    let text = bytes.trim_ascii_start();
    let is_html =
        |start: &[u8]| text.len() >= start.len() && text[..start.len()].eq_ignore_ascii_case(start);
    if is_html(b"<!doctype html") || is_html(b"<html") {
        return Some(("an HTML page", FETCH));
    }
    if let Some((_, what, remedy)) = known
        .into_iter()
        .find(|(start, ..)| bytes.starts_with(start))
    {
        return Some((what, remedy));
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some((
            "a tar archive",
            "unpack it; if PyTorch 0.1 wrote it, load and save it with a newer torch",
        ));
    }
    if bytes.get(4..8) == Some(b"TFL3") {
        return Some(("a TensorFlow Lite model", EXPORT));
    }
    if looks_like_onnx(bytes) {
        return Some((
            "an ONNX model",
            "a graph with tensors under names of its own, which this version does not run: give the checkpoint it was exported from",
        ));
    }
    let is_pickle = bytes[0] == 0x80
        && matches!(bytes.get(1), Some(2..=5))
        && !pickle::looks_like_legacy(bytes);
    is_pickle.then_some((
        "a pickle that torch.save did not write",
        "load it in Python and save a state_dict() with torch.save",
    ))
}

/// ONNX has no magic number: a protobuf whose first field is the IR version (1, varint) and whose next is the
/// producer (2), its version (3), the domain (4), the model version (5) or the graph (7).
fn looks_like_onnx(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0x08, 1..=32, 0x12 | 0x1a | 0x22 | 0x28 | 0x3a | 0x42, ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_length_may_look_like_another_format() {
        // 0x0280 = 640 begins as a pickle does, 0x8b1f as gzip, 0x7b as JSON.
        for length in [0x0280_u64, 0x8b1f, 0x7b] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend(b"{\"a\":{}}");
            assert!(
                matches!(format(&bytes), Ok(Format::Safetensors)),
                "{length}"
            );
        }
    }
}
