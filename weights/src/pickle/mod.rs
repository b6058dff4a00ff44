//! PyTorch checkpoints: a pickle that describes tensors, and storages that hold their elements.
//!
//! The pickle is run by a machine of our own that makes plain values and knows a fixed list of
//! constructors ([`calls`]); every other global becomes an opaque value. Nothing is ever executed.

mod calls;
mod containers;
mod cursor;
mod heap;
mod legacy;
mod machine;
mod modules;
mod persistent;
mod select;
mod storage;
mod zip;

pub(crate) use legacy::looks_like as looks_like_legacy;
pub(crate) use legacy::read as read_legacy;
pub(crate) use zip::checkpoint::read as read_zip;
