//! Data sets, the evaluation pipeline and its journal, metrics, benchmark statistics, reports.
//!
//! Knows no model and no engine: it takes anything that turns a batch into logits ([`Predictor`]).

pub mod bench;
pub mod data;

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
