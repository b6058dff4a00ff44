//! ONNX graphs as models: files, and the two engines that run them.

mod bounds;
mod error;
mod external;
mod file;
mod image;
mod input_form;
mod library;
mod openvino;
mod ort;
mod preprocessing;
mod proto;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

pub use error::OnnxError;
pub use file::{Dimension, OnnxFile};
pub use input_form::{INPUT_KEY, input_metadata};
pub use library::{OnnxLibrary, openvino_library, ort_library};
pub use openvino::{OpenvinoSession, openvino_version};
pub use ort::{OptimizationLevel, OrtSession, UnknownLevel, ort_version};
pub use preprocessing::{OnnxPreprocessing, PREPROCESSING_KEY};

use crate::{Device, Precision};

/// How to run an ONNX graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OnnxOptions {
    /// Where to run; the provider follows from it.
    pub device: Device,
    /// The format to compute in.
    pub precision: Precision,
    /// Threads of one operator; `None` takes all cores.
    pub threads: Option<usize>,
    /// How far ONNX Runtime may rewrite the graph. OpenVINO has no such choice.
    pub optimization: OptimizationLevel,
}

impl OnnxOptions {
    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(cores)
    }
}
