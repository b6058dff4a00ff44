//! How much of a stranger's file is believed before reading stops.

/// Bounds on what a checkpoint may claim. Each one is checked before memory is set aside for it.
///
/// The defaults let every published vision backbone and detector through with room to spare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest file, bytes.
    pub file_bytes: u64,
    /// Largest JSON header of a safetensors file, bytes.
    pub header_bytes: u64,
    /// Largest pickle (the structure, without the tensor data), bytes.
    pub pickle_bytes: u64,
    /// Most objects that a pickle may make, and most that are visited in search of tensors.
    pub objects: u64,
    /// Deepest nesting of dicts, lists and modules in a pickle.
    pub depth: u64,
    /// Most members of a zip archive.
    pub zip_members: u64,
    /// Most tensors of one checkpoint.
    pub tensors: u64,
    /// Longest name of a tensor or key of a dict on the way to it, bytes.
    pub name_bytes: u64,
    /// Most dimensions of a tensor.
    pub rank: u64,
    /// Largest tensor, bytes once contiguous.
    pub tensor_bytes: u64,
    /// How many bytes all tensors together may take beyond the storages that hold them: views with
    /// stride 0 (`expand`) make a small storage look big.
    pub expansion_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            file_bytes: 64 << 30,
            header_bytes: 64 << 20,
            pickle_bytes: 256 << 20,
            objects: 8_000_000,
            depth: 64,
            zip_members: 400_000,
            tensors: 200_000,
            name_bytes: 1024,
            rank: 32,
            tensor_bytes: 16 << 30,
            expansion_bytes: 256 << 20,
        }
    }
}
