//! What can be benchmarked, and how it introduces itself.

use serde::{Deserialize, Serialize};

use super::{Clock, schedule::timed_calls};
use crate::PredictError;

/// Something that can be timed: one model in one engine, with its inputs ready.
pub trait Subject {
    /// A short name, unique in a run, as it stands in tables: `libtorch`, `ort`.
    fn name(&self) -> &str;

    /// One forward pass over `batch` images, returning only when the result is there.
    ///
    /// A subject on a GPU must synchronise before it returns, or what is timed is the launch.
    fn run_once(&mut self, batch: usize) -> Result<(), PredictError>;

    /// A first call, then calls back to back until `seconds` are over or `stop` says so, one at least.
    fn block(
        &mut self,
        batch: usize,
        seconds: f64,
        clock: &dyn Clock,
        stop: &dyn Fn() -> bool,
    ) -> Result<Calls, PredictError> {
        timed_calls(self, batch, seconds, clock, stop)
    }
}

/// Times of one block's calls, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Calls {
    /// Of the first call.
    pub first_s: f64,
    /// Of each call after it.
    pub times_s: Vec<f64>,
}

/// What was timed, in the words of the engine that ran it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The subject's [name](Subject::name).
    pub name: String,
    /// The engine that really runs: `libtorch`, `onnxruntime CPUExecutionProvider`.
    pub engine: String,
    /// The engine's own version.
    pub version: String,
    /// The model's canonical name.
    pub model: String,
    /// Where it runs: `cpu`, `cuda:0`, with the device's name where known.
    pub device: String,
    /// Arithmetic of the forward pass: `f32`, `bf16`.
    pub dtype: String,
    /// Threads of the engine's pool for one operator.
    pub threads: usize,
    /// One image as the model takes it: channels, height, width.
    pub input: [usize; 3],
    /// What else bears on speed: folded batch norms, memory layout. Empty where nothing does.
    #[serde(default)]
    pub options: Vec<String>,
}
