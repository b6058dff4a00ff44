//! Checkpoints as data: readers (safetensors, PyTorch pickles), key maps, formula weights, load reports.
//!
//! Knows no model and no tensor library: it hands out names, dtypes, shapes and bytes. A checkpoint is data
//! from a stranger: nothing in it is executed, everything in it is bounded by [`Limits`], and what is wrong
//! with it is an error that names the tensor and the remedy.
//!
//! ```no_run
//! use zoo_weights::{AllowedExtras, Checkpoint, LoadReport, Wanted};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = Checkpoint::open("shvit_s1.pth".as_ref())?;
//! let wanted = [Wanted::new("head.l.weight", [1000, 448])];
//! let report = LoadReport::compare(&wanted, &checkpoint)?;
//! report.check(&AllowedExtras::default())?;
//! let head: Vec<f32> = checkpoint.to_f32("head.l.weight")?;
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod detect;
mod dtype;
mod error;
pub mod formula;
mod keymap;
mod limits;
mod notes;
mod parts;
mod pickle;
mod report;
mod safetensors;
mod source;
mod view;

pub use checkpoint::{Checkpoint, Options, TensorInfo};
pub use detect::Format;
pub use dtype::{Dtype, count_non_finite, to_f32, to_f64};
pub use error::{Problem, ReadError};
pub use keymap::{Direction, KeyMap, KeyMapError};
pub use limits::Limits;
pub use notes::Note;
pub use report::{AllowedExtras, LoadError, LoadReport, Misshapen, Wanted};
pub use safetensors::{TensorData, WriteError, write_safetensors};
pub use source::{bytes_sha256, file_sha256};
