//! What a finished batch leaves behind.

use serde::{Deserialize, Serialize};

/// One finished batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Index of the batch in the whole data set.
    pub batch: usize,
    /// Width of the logits; `None` where no image of the batch could be read.
    pub classes: Option<usize>,
    /// One row an image, by index.
    pub rows: Vec<Row>,
    /// Where the time went; the only part that differs between two runs.
    pub took: Took,
}

/// One image of a finished batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Index in the whole data set.
    pub index: usize,
    /// The sample's id.
    pub id: String,
    /// The sample's label.
    pub label: Option<usize>,
    /// What came of it.
    pub result: RowResult,
}

/// What came of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowResult {
    /// The model gave finite logits.
    Scored {
        /// Classes of the (at most) five largest logits, best first; ties by the lower class.
        top: Vec<usize>,
        /// Their logits.
        logits: Vec<f64>,
        /// Cross-entropy of the label in nats; `None` without a label.
        nll: Option<f64>,
    },
    /// The image could not be read; why.
    Unreadable(String),
    /// The model gave logits that are not finite; how many.
    NonFinite(String),
}

/// Seconds that a batch took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Took {
    /// Reading and decoding, summed over the worker threads.
    pub decode: f64,
    /// Preprocessing, summed over the worker threads.
    pub preprocess: f64,
    /// The model.
    pub model: f64,
    /// Waiting for a batch to be ready, on the model's thread.
    pub wait: f64,
    /// Wall time since the batch before it in the same process (or since the start).
    pub span: f64,
    /// Number of worker threads.
    pub workers: usize,
}
