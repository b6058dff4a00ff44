//! CIFAR-10 in its binary form: records of a label byte and three planes of 32 by 32
//! (<https://www.cs.toronto.edu/~kriz/cifar.html>).

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arrange::file_name;
use super::classes::Classes;
use super::error::{DataError, first_few};
use super::layout::{Labels, Layout};
use super::{DataSet, Sample, Source};

const SIDE: u32 = 32;
const RECORD: usize = 1 + 3 * (SIDE * SIDE) as usize;
const CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// Opens one file of records. Ids are `file/0000007`, so that their order is that of the records.
pub(super) fn open_cifar(path: &Path) -> Result<DataSet, DataError> {
    let bad = |what: String| DataError::BadCifar {
        path: path.to_owned(),
        what,
    };
    let io = |e| DataError::io(path, e);
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size == 0 || !size.is_multiple_of(RECORD as u64) {
        return Err(bad(format!(
            "{size} bytes are not a whole number of records of {RECORD}"
        )));
    }
    let name = file_name(path);
    let path_shared = Arc::new(path.to_owned());
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut record = [0; RECORD];
    let mut samples = Vec::new();
    for i in 0..size / RECORD as u64 {
        reader.read_exact(&mut record).map_err(io)?;
        let label = usize::from(record[0]);
        if label >= CLASSES.len() {
            return Err(bad(format!("record {i} has class {label}, outside 0..10")));
        }
        samples.push(Sample {
            id: format!("{name}/{i:07}"),
            label: Some(label),
            source: Source::Raw {
                path: Arc::clone(&path_shared),
                offset: i * RECORD as u64 + 1,
                width: SIDE,
                height: SIDE,
            },
        });
    }
    Ok(DataSet {
        root: path.display().to_string(),
        layout: Layout::Cifar10,
        labels: Labels::Records,
        samples,
        classes: Classes::named(CLASSES),
        skipped: Vec::new(),
    })
}

/// Chooses among the `.bin` files of a folder: a lone one, or the one whose name begins with `test`.
pub(super) fn choose(folder: &Path, files: &[PathBuf]) -> Result<PathBuf, DataError> {
    if let [only] = files {
        return Ok(only.clone());
    }
    let tests: Vec<&PathBuf> = files
        .iter()
        .filter(|path| file_name(path).starts_with("test"))
        .collect();
    if let [test] = tests.as_slice() {
        return Ok((*test).clone());
    }
    let names: Vec<String> = files.iter().map(|p| file_name(p)).collect();
    Err(DataError::Ambiguous {
        path: folder.to_owned(),
        choices: first_few(&names),
    })
}
