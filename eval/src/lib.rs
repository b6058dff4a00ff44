//! Data sets, the evaluation pipeline and its journal, metrics, benchmark statistics, reports.
//!
//! Knows no model and no engine: it takes anything that turns a batch into logits ([`Predictor`]).
//!
//! An evaluation is [`pipeline::run`]: samples are decoded and preprocessed by worker threads
//! ([`Prepare`]), predicted on the calling thread, scored ([`metrics`]) and written down batch by
//! batch ([`journal`]); the [`report`] is computed from what was written down, so a run that was
//! killed and resumed, or split into shards and [`merge`]d, ends in the report of a single run.

pub mod bench;
pub mod data;
pub mod evaluation;
pub mod journal;
pub mod merge;
pub mod metrics;
pub mod pipeline;
pub mod report;

pub use evaluation::Evaluation;

/// Turns a batch of preprocessed images into logits.
pub trait Predictor {
    /// `batch` is `n` images, NCHW, f32, contiguous, preprocessed; returns `n` rows of logits.
    ///
    /// Logits are f64 so that a float64 engine loses nothing on the way to the metrics.
    fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError>;
}

/// An engine's failure on one batch, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PredictError(pub String);

/// Turns a sample into the input of a model, in two steps that are timed apart.
///
/// Called from several threads at once. A panic in either step is caught and counts as an
/// unreadable image: one bad file does not end a run of fifty thousand.
pub trait Prepare: Sync {
    /// A decoded image; at most one per worker thread is alive.
    type Image;

    /// How many floats one preprocessed image is: channels x height x width.
    fn image_len(&self) -> usize;

    /// Reads and decodes a sample; the error says why it cannot be read, without its name.
    fn decode(&self, sample: &data::Sample) -> Result<Self::Image, String>;

    /// Writes the preprocessed image as CHW over the whole of `out`, which is
    /// [`Prepare::image_len`] long and holds an older image.
    fn preprocess(&self, image: &Self::Image, out: &mut [f32]);
}
