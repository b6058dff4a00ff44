//! Data sets: layouts of the shared sample, folders, lists and tars that are not as they should be.

mod folders;
mod layouts;
mod lists;
mod tars;

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use zoo_eval::data::{DataError, DataSet, OpenOptions, SkipReason};

/// A folder with these files; an image's content does not matter here.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn images(names: &[&'static str]) -> TempDir {
    let files: Vec<_> = names.iter().map(|name| (*name, "x")).collect();
    tree(&files)
}

fn open(path: &(impl AsRef<Path> + ?Sized)) -> Result<DataSet, DataError> {
    DataSet::open(path.as_ref(), &OpenOptions::default())
}

fn with(change: impl FnOnce(&mut OpenOptions)) -> OpenOptions {
    let mut options = OpenOptions::default();
    change(&mut options);
    options
}

fn labelled(set: &DataSet) -> Vec<(&str, usize)> {
    let pair = |s: &'_ zoo_eval::data::Sample| s.label.unwrap();
    set.samples
        .iter()
        .map(|s| (s.id.as_str(), pair(s)))
        .collect()
}

fn skipped(set: &DataSet) -> Vec<(&str, SkipReason)> {
    set.skipped
        .iter()
        .map(|s| (s.path.as_str(), s.reason))
        .collect()
}
