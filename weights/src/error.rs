//! What can be wrong with a checkpoint, said so that a person can act on it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A checkpoint that could not be read: which file, and what is wrong with it.
#[derive(Debug, Error)]
#[error("{}: {problem}", path.display())]
pub struct ReadError {
    /// The file, or a name the caller gave to bytes in memory.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a checkpoint.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The operating system refused.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Nothing in it.
    #[error("the file is empty; fetch it again")]
    Empty,
    /// A known kind of file that is not a checkpoint.
    #[error("this is {what}, not a checkpoint; {remedy}")]
    Foreign {
        /// What the file is.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// None of the known formats.
    #[error(
        "neither safetensors nor a PyTorch checkpoint (it begins with {start}); \
         save the weights with torch.save or safetensors"
    )]
    UnknownFormat {
        /// The first bytes.
        start: String,
    },
    /// A bound of [`crate::Limits`] is passed.
    #[error(
        "{what}: {found}, more than the limit of {limit}; raise the limit if you trust this file"
    )]
    Limit {
        /// What is counted.
        what: &'static str,
        /// What the file has or claims.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// The file ends before something that it announces.
    #[error(
        "the file is cut short: {what} should reach byte {end}, the file has {len}; fetch it again"
    )]
    Truncated {
        /// What is cut.
        what: String,
        /// Where it should end.
        end: u64,
        /// Length of the file.
        len: u64,
    },
    /// The zip archive around a pickle is damaged or forged.
    #[error("bad zip archive: {0}")]
    Zip(String),
    /// A compressed zip member.
    #[error(
        "zip member {member:?} is compressed; torch.save stores its members as they are: \
         load and save the file again with torch"
    )]
    Compressed {
        /// The member.
        member: String,
    },
    /// The checksum of a zip member disagrees with its bytes.
    #[error(
        "the bytes of {member:?} do not match their CRC-32: the file is damaged, fetch it again"
    )]
    Checksum {
        /// The member.
        member: String,
    },
    /// The pickle is malformed.
    #[error("bad pickle at byte {at}: {what}")]
    Pickle {
        /// Offset in the pickle.
        at: usize,
        /// What is wrong there.
        what: String,
    },
    /// Written on a big-endian machine.
    #[error(
        "written on a big-endian machine; load and save it again with torch on a little-endian one"
    )]
    BigEndian,
    /// The safetensors header is malformed.
    #[error("bad safetensors header: {0}")]
    Header(String),
    /// Two tensors of a safetensors file claim the same bytes.
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The one that begins inside it.
        second: String,
    },
    /// Two entries have one name.
    #[error("{what} {name:?} occurs twice")]
    Duplicate {
        /// Kind of entry.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A tensor's geometry does not fit its storage.
    #[error("tensor {tensor:?} {what}")]
    Geometry {
        /// The tensor.
        tensor: String,
        /// What does not fit.
        what: String,
    },
    /// A dtype that this crate does not read.
    #[error(
        "tensor {tensor:?} has dtype {dtype}, which is not supported; convert it to float32 with torch"
    )]
    UnsupportedDtype {
        /// The tensor.
        tensor: String,
        /// Its dtype as the file names it.
        dtype: String,
    },
    /// A tensor that only unknown code could build.
    #[error(
        "{tensor:?} is built by {global}, which is not on the list of known constructors \
         and is never executed; save a plain state_dict() with torch"
    )]
    UnknownGlobal {
        /// Where it stands in the file.
        tensor: String,
        /// Python's name of the constructor.
        global: String,
    },
    /// No tensors with names.
    #[error("holds no named tensors ({found}); save model.state_dict() with torch")]
    NoTensors {
        /// What it holds instead.
        found: String,
    },
    /// The wanted container is not there.
    #[error("has no container {wanted:?}; it has {}", Listed(found))]
    NoContainer {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
    /// Several containers and no rule that prefers one.
    #[error(
        "holds several sets of tensors: {}; say which container to read",
        Listed(found)
    )]
    Ambiguous {
        /// The containers.
        found: Vec<String>,
    },
    /// No tensor begins with the wanted prefix.
    #[error("no tensor of container {container:?} begins with {prefix:?}")]
    NothingUnder {
        /// The container.
        container: String,
        /// The prefix.
        prefix: String,
    },
}

impl Problem {
    pub(crate) fn truncated(what: impl Into<String>, end: u64, len: usize) -> Self {
        Problem::Truncated {
            what: what.into(),
            end,
            len: len as u64,
        }
    }

    pub(crate) fn geometry(tensor: &str, what: impl Into<String>) -> Self {
        Problem::Geometry {
            tensor: tensor.into(),
            what: what.into(),
        }
    }
}

/// `Err` when `found` passes `limit`.
pub(crate) fn within(what: &'static str, found: u64, limit: u64) -> Result<(), Problem> {
    if found > limit {
        Err(Problem::Limit { what, found, limit })
    } else {
        Ok(())
    }
}

/// Names for people: quoted, at most ten, then how many more.
pub(crate) struct Listed<'a>(pub(crate) &'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        for (i, name) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name:?}")?;
        }
        match self.0.len() {
            0 => write!(f, "none"),
            n if n > SHOWN => write!(f, " and {} more", n - SHOWN),
            _ => Ok(()),
        }
    }
}
