//! What can be wrong with an ONNX file, or with an engine that should run it.

use super::OnnxLibrary;
use std::path::PathBuf;

/// Why an ONNX graph does not run.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file can not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The bytes are no ONNX model.
    #[error(
        "{} is not an ONNX model: {reason}. Give a .onnx file as an exporter wrote it, or a model of `zoo list`",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A model, but none that turns one batch of images into logits.
    #[error("{} does not classify images: {reason}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it takes or gives instead.
        reason: String,
    },
    /// Weights that lie in a file of their own are not there.
    #[error(
        "{}: its weights lie in {}, which is not there: put the two files into one folder",
        path.display(),
        data.display()
    )]
    MissingData {
        /// The model.
        path: PathBuf,
        /// The missing file.
        data: PathBuf,
    },
    /// The metadata under a key of zoo's own is not what zoo writes.
    #[error("{}: its metadata `{key}` is malformed: {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The engine is not installed.
    #[error(
        "no {}: neither {} nor {} leads to its library. Run {}, or set {} to {}",
        library.name,
        library.variable,
        searched.display(),
        library.setup,
        library.variable,
        library.file
    )]
    NoLibrary {
        /// Which.
        library: &'static OnnxLibrary,
        /// The folder of the project that was searched.
        searched: PathBuf,
    },
    /// The engine's library does not load, or is of a version that does not fit.
    #[error(
        "{} in {}: {reason}. Run {}, or set {} to a library of version {} or newer",
        library.name,
        path.display(),
        library.setup,
        library.variable,
        library.oldest
    )]
    Library {
        /// Which.
        library: &'static OnnxLibrary,
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The engine has no such device or format.
    #[error("{engine} has no {what}: {remedy}")]
    Unsupported {
        /// The engine.
        engine: &'static str,
        /// What was asked.
        what: String,
        /// What can be asked instead.
        remedy: &'static str,
    },
    /// A provider was asked for and did not register.
    #[error("{engine}: {provider} can not run here: {reason}. {remedy}")]
    Provider {
        /// The engine.
        engine: &'static str,
        /// The provider.
        provider: &'static str,
        /// The engine's words.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The engine refuses the graph.
    #[error("{}: {engine} can not run this graph: {reason}{hint}", path.display())]
    Graph {
        /// The file.
        path: PathBuf,
        /// The engine with its version.
        engine: String,
        /// Its words.
        reason: String,
        /// What the file itself tells about the cause; may be empty.
        hint: String,
    },
    /// The input is not what the graph takes.
    #[error("{} can not take this input: {reason}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What it takes.
        reason: String,
    },
    /// The engine failed while it ran.
    #[error("{} on {engine}: {reason}", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// The engine with its version.
        engine: String,
        /// Its words.
        reason: String,
    },
}
