//! What every reader hands over: tensors by name, and where their bytes lie.

use std::ops::Range;
use std::sync::OnceLock;

use crate::dtype::Dtype;
use crate::error::{Problem, within};
use crate::limits::Limits;
use crate::notes::Note;
use crate::view::Layout;

/// A run of bytes of the file that holds one or more tensors.
#[derive(Debug)]
pub(crate) struct Storage {
    /// Where it lies in the file.
    pub(crate) bytes: Range<usize>,
    /// Name for messages.
    pub(crate) label: String,
    /// CRC-32 that the file records for it, if any.
    pub(crate) crc: Option<u32>,
    /// Whether the CRC was found right, once somebody asked.
    pub(crate) intact: OnceLock<bool>,
}

/// A tensor whose layout has been checked against its storage.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    /// Index into [`Parts::storages`].
    pub(crate) storage: usize,
    pub(crate) layout: Layout,
}

/// The contents of a checkpoint file.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) entries: Vec<Entry>,
    pub(crate) storages: Vec<Storage>,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) container: String,
    pub(crate) notes: Vec<Note>,
}

/// Counts what checked tensors take beyond their storages.
#[derive(Debug, Default)]
pub(crate) struct Expansion(u64);

impl Expansion {
    /// Adds a tensor of `bytes` that lies in a storage of `storage_bytes`.
    pub(crate) fn add(
        &mut self,
        bytes: u64,
        storage_bytes: usize,
        limits: &Limits,
    ) -> Result<(), Problem> {
        self.0 = self
            .0
            .saturating_add(bytes.saturating_sub(storage_bytes as u64));
        within(
            "bytes of expanded tensors beyond their storages",
            self.0,
            limits.expansion_bytes,
        )
    }
}
