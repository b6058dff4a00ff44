//! Zip archives as `torch.save` writes them since PyTorch 1.6: a pickle and one stored member per storage.

mod archive;
pub(super) mod checkpoint;
mod records;
