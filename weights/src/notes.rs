//! What a reader decided or left alone, for the person who wants to know.

use std::fmt;

use serde::Serialize;

use crate::error::Listed;

/// One thing worth knowing about how a checkpoint was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "note", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Note {
    /// The set of tensors that was read. Empty path: the file's outermost dict.
    Container {
        /// Path in the file, such as `model` or `checkpoint/state_dict`.
        path: String,
    },
    /// A set of tensors that was not read.
    OtherContainer {
        /// Path in the file.
        path: String,
        /// Tensors directly in it.
        tensors: usize,
    },
    /// All names began with this; it was taken off.
    PrefixStripped {
        /// Such as `module.`.
        prefix: String,
    },
    /// Tensors outside the wanted prefix.
    OutsidePrefix {
        /// The wanted prefix.
        prefix: String,
        /// How many tensors were left.
        tensors: usize,
    },
    /// Python classes or functions that stand beside the weights and were not executed.
    NotExecuted {
        /// Such as `argparse.Namespace`.
        globals: Vec<String>,
    },
    /// Entries of the container that are no tensors.
    NotTensors {
        /// Their keys.
        keys: Vec<String>,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Container { path } if path.is_empty() => write!(f, "read the outermost dict"),
            Note::Container { path } => write!(f, "read container {path:?}"),
            Note::OtherContainer { path, tensors } if path.is_empty() => {
                write!(f, "left alone: {tensors} tensors of the outermost dict")
            }
            Note::OtherContainer { path, tensors } => {
                write!(f, "left alone: container {path:?} with {tensors} tensors")
            }
            Note::PrefixStripped { prefix } => {
                write!(f, "took the prefix {prefix:?} off all names")
            }
            Note::OutsidePrefix { prefix, tensors } => {
                write!(f, "left alone: {tensors} tensors outside {prefix:?}")
            }
            Note::NotExecuted { globals } => write!(
                f,
                "not executed, kept as opaque values: {}",
                Listed(globals)
            ),
            Note::NotTensors { keys } => write!(f, "not tensors, left alone: {}", Listed(keys)),
        }
    }
}
