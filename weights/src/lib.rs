//! Checkpoints as data: readers (safetensors, PyTorch pickles), key maps, formula weights, load reports.
//!
//! Knows no model and no tensor library: it hands out names, dtypes, shapes and bytes.
