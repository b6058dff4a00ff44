//! Joins the journals of all shards into the evaluation that one run would have been.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::evaluation::Evaluation;
use crate::journal::{self, Difference, Header, JournalError, Shard, differences};

/// Settings that shards may differ in: none changes what a shard is a part of.
const MAY_DIFFER: [&str; 3] = ["machine", "threads", "shard.index"];

/// Why journals cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Nothing to merge.
    #[error("no journal to merge: name the journals of all shards")]
    None,
    /// A journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Two journals are of different evaluations.
    #[error("{first} and {second} are not shards of one evaluation; they differ in {}", list(.differences))]
    Settings {
        /// The first journal.
        first: PathBuf,
        /// The journal that differs from it.
        second: PathBuf,
        /// The settings and their values.
        differences: Vec<Difference>,
    },
    /// A shard was given twice.
    #[error("shard {shard} is given twice, by {first} and {second}: leave one out")]
    Double {
        /// The shard.
        shard: Shard,
        /// A journal of it.
        first: PathBuf,
        /// Another journal of it, or the same.
        second: PathBuf,
    },
    /// Shards were not given.
    #[error("{number} shards are missing: {}; add their journals", names(.shards))]
    Missing {
        /// How many.
        number: usize,
        /// The first ten of them.
        shards: Vec<Shard>,
    },
    /// A shard is not finished.
    #[error("{path}: shard {shard} has {done} of {all} batches: run it again to finish it")]
    Unfinished {
        /// Its journal.
        path: PathBuf,
        /// The shard.
        shard: Shard,
        /// Finished batches.
        done: usize,
        /// Batches that it needs.
        all: usize,
    },
    /// Shards have logits of different widths.
    #[error("{path}: the logits are {found} wide, and {expected} wide in other batches")]
    Width {
        /// The journal.
        path: PathBuf,
        /// Its width.
        found: usize,
        /// The width before.
        expected: usize,
    },
}

fn list(differences: &[Difference]) -> String {
    let texts: Vec<_> = differences.iter().map(Difference::to_string).collect();
    texts.join("; ")
}

fn names(shards: &[Shard]) -> String {
    let texts: Vec<_> = shards.iter().map(Shard::to_string).collect();
    texts.join(", ")
}

/// Joins finished journals, which must be all shards of one evaluation, each once and in any order.
pub fn merge<P: AsRef<Path>>(paths: &[P]) -> Result<Evaluation, MergeError> {
    let mut shards: BTreeMap<Shard, (PathBuf, Evaluation)> = BTreeMap::new();
    let mut first: Option<(PathBuf, Header)> = None;
    for path in paths {
        let path = path.as_ref();
        let evaluation = finished(path)?;
        let header = evaluation.header();
        let (first_path, first_header) =
            first.get_or_insert_with(|| (path.to_owned(), header.clone()));
        let differences = differences(first_header, header, &MAY_DIFFER);
        if !differences.is_empty() {
            return Err(MergeError::Settings {
                first: first_path.clone(),
                second: path.to_owned(),
                differences,
            });
        }
        let shard = header.shard;
        if let Some((other, _)) = shards.insert(shard, (path.to_owned(), evaluation)) {
            return Err(MergeError::Double {
                shard,
                first: other,
                second: path.to_owned(),
            });
        }
    }
    require_all(&shards)?;
    require_one_width(&shards)?;
    let parts = shards.into_values().map(|(_, evaluation)| evaluation);
    Evaluation::join(parts.collect()).ok_or(MergeError::None)
}

fn finished(path: &Path) -> Result<Evaluation, MergeError> {
    let contents = journal::read(path)?;
    let all = contents.header.batches().count();
    if contents.batches.len() != all {
        return Err(MergeError::Unfinished {
            path: path.to_owned(),
            shard: contents.header.shard,
            done: contents.batches.len(),
            all,
        });
    }
    let batches = contents.batches.into_values().collect();
    Ok(Evaluation::new(contents.header, batches))
}

fn require_all(shards: &BTreeMap<Shard, (PathBuf, Evaluation)>) -> Result<(), MergeError> {
    let count = shards.keys().next().ok_or(MergeError::None)?.count;
    let number = count - shards.len();
    if number == 0 {
        return Ok(());
    }
    let missing = (1..=count)
        .map(|index| Shard { index, count })
        .filter(|shard| !shards.contains_key(shard));
    Err(MergeError::Missing {
        number,
        shards: missing.take(10).collect(),
    })
}

fn require_one_width(shards: &BTreeMap<Shard, (PathBuf, Evaluation)>) -> Result<(), MergeError> {
    let mut expected = None;
    for (path, evaluation) in shards.values() {
        for found in evaluation.batches().iter().filter_map(|b| b.classes) {
            let expected = *expected.get_or_insert(found);
            if found != expected {
                return Err(MergeError::Width {
                    path: path.clone(),
                    found,
                    expected,
                });
            }
        }
    }
    Ok(())
}
