//! What a tch model computes, as data: tracing, costs, text and diagrams, ONNX.
//!
//! [`trace()`] runs a forward pass under libtorch's own tracer and gives a [`Graph`]: nodes with arguments by name, values with
//! shapes in which the batch is a symbol, and beside it the tensors. Everything that wants to know what a model does reads
//! that graph. No model and no data set is known here, and nothing here runs a graph.

mod checks;
pub mod cost;
mod diagram;
mod ffi;
mod foreign;
mod graph;
mod import;
mod merge;
mod modules;
pub mod onnx;
pub mod passes;
mod size;
mod text;
mod trace;

pub use ffi::{constant, is_tracing, scope};
pub use graph::{Arg, Dtype, Graph, Node, Origin, Value, ValueId, Variable};
pub use size::Size;
pub use trace::{Input, Trace, TraceError, trace};

/// The example of the README, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
