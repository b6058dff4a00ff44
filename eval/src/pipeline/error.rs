//! Why an evaluation stopped.

use crate::PredictError;
use crate::journal::JournalError;

/// Why an evaluation stopped. Batches that were finished before are in the journal.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The data set is empty.
    #[error("the data set has no images")]
    NoImages,
    /// The header is of another data set.
    #[error("the header says {header} images, the data set has {samples}")]
    HeaderImages {
        /// Images in the header.
        header: usize,
        /// Images in the data set.
        samples: usize,
    },
    /// A setting that must be at least 1.
    #[error("{0} is 0: it must be at least 1")]
    Zero(&'static str),
    /// A batch that no memory holds.
    #[error("a batch of {0} images is larger than any memory: choose a smaller batch")]
    BatchTooLarge(usize),
    /// The worker threads could not be started.
    #[error("cannot start the worker threads: {0}; choose fewer workers")]
    Workers(#[from] rayon::ThreadPoolBuildError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The engine failed.
    #[error("the engine failed on batch {batch} (images {first} to {last}): {source}")]
    Predict {
        /// Index of the batch.
        batch: usize,
        /// Index of its first image.
        first: usize,
        /// Index of its last image.
        last: usize,
        /// The engine's words.
        source: PredictError,
    },
    /// The engine gave another number of rows than images.
    #[error("batch {batch}: the engine gave {found} rows of logits for {expected} images")]
    Rows {
        /// Index of the batch.
        batch: usize,
        /// Images of the batch.
        expected: usize,
        /// Rows that came back.
        found: usize,
    },
    /// The engine gave rows without a single logit.
    #[error("the engine gave no logits: is this a model with a classification head?")]
    NoLogits,
    /// The engine gave rows of different widths.
    #[error("image {index} `{id}`: {found} logits where other images have {expected}")]
    Width {
        /// Id of the image.
        id: String,
        /// Index of the image.
        index: usize,
        /// Its number of logits.
        found: usize,
        /// That of the others.
        expected: usize,
    },
    /// A label for which there is no logit.
    #[error(
        "image {index} `{id}` has label {label}, but the model has only {classes} classes (0 to {}): the data set is not one for this model, or its labels need mapping",
        .classes - 1
    )]
    Label {
        /// Id of the image.
        id: String,
        /// Index of the image.
        index: usize,
        /// Its label.
        label: usize,
        /// Width of the logits, at least 1.
        classes: usize,
    },
    /// Logits that are not finite.
    #[error(
        "image {index} `{id}`: the model gave {found}; try another dtype or engine, or count such images instead of stopping"
    )]
    NonFinite {
        /// Id of the image.
        id: String,
        /// Index of the image.
        index: usize,
        /// How many of its logits.
        found: String,
    },
}
