//! Weights that lie in files of their own.

use super::OnnxError;
use super::file::malformed;
use super::proto::{EXTERNAL, Graph, Initializer};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// The files with weights beside this one, which are there and long enough: the engines name what is wrong less clearly.
///
/// # Errors
/// A file that is missing or too short, and a place outside the model's folder.
pub(super) fn files(path: &Path, graph: &Graph) -> Result<BTreeSet<PathBuf>, OnnxError> {
    let mut files = BTreeSet::new();
    let weights = graph.initializer.iter();
    for weight in weights.filter(|w| w.data_location == EXTERNAL) {
        files.insert(file(path, weight)?);
    }
    Ok(files)
}

fn file(path: &Path, weight: &Initializer) -> Result<PathBuf, OnnxError> {
    let name = &weight.name;
    let wrong = |reason: String| malformed(path, format!("weight `{name}` {reason}"));
    let entry = |key: &str| {
        let found = weight.external_data.iter().find(|e| e.key == key);
        found.map(|e| e.value.as_str())
    };
    let location = entry("location")
        .ok_or_else(|| wrong("lies outside the file, and nothing says where".to_owned()))?;
    let inside = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
    if !Path::new(location).components().all(inside) {
        return Err(wrong(format!(
            "lies in {location}, which is outside the model's folder"
        )));
    }
    let data = path.parent().unwrap_or(Path::new("")).join(location);
    let Some(found) = std::fs::metadata(&data).ok().filter(|m| m.is_file()) else {
        return Err(OnnxError::MissingData {
            path: path.to_path_buf(),
            data,
        });
    };
    let number = |key: &str| match entry(key) {
        None => Ok(0),
        Some(text) => text
            .parse::<u64>()
            .map_err(|_| wrong(format!("has `{text}` as its {key}"))),
    };
    let (offset, length) = (number("offset")?, number("length")?);
    match offset.checked_add(length) {
        Some(end) if end <= found.len() => Ok(data),
        _ => Err(wrong(format!(
            "has {length} bytes from byte {offset} of {}, which has {} bytes only: it is cut short, or another model's",
            data.display(),
            found.len()
        ))),
    }
}
