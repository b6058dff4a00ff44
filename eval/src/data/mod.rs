//! Data sets as users have them on disk: which images, in which order, with which labels.

use std::path::PathBuf;
use std::sync::Arc;

/// Where the bytes of an image are.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file of its own.
    File(PathBuf),
    /// A member of an uncompressed archive: `len` bytes at `offset`.
    Archive {
        /// The archive.
        path: Arc<PathBuf>,
        /// First byte of the member.
        offset: u64,
        /// Its size in bytes.
        len: u64,
    },
    /// Bytes that were never on disk (the drawn set).
    Memory(Arc<[u8]>),
}

/// One image of a data set.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Stable name, unique in the set: the path below the root with `/`, or the archive member's name.
    pub id: String,
    /// Index of the class, or `None` where the set has no labels.
    pub label: Option<usize>,
    /// Where the bytes are.
    pub source: Source,
}
