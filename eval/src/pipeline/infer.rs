//! From a filled batch to its record.

use std::ops::Range;
use std::time::Instant;

use super::feed::{Buffer, Filled};
use super::{EvalError, Job, NonFinite};
use crate::Predictor;
use crate::data::Sample;
use crate::journal::{BatchRecord, Row, RowResult, Took};
use crate::metrics;

/// A batch and what the model said about it.
pub(super) struct Inferred {
    batch: usize,
    images: Range<usize>,
    /// One an image: its logits, or why it could not be read.
    logits: Vec<Result<Vec<f64>, String>>,
    took: Took,
}

impl Inferred {
    /// Width of the logits of the first image that could be read.
    pub(super) fn classes(&self) -> Option<usize> {
        let mut read = self.logits.iter().flatten();
        read.next().map(Vec::len)
    }
}

/// Predicts a batch, and gives its buffer back.
pub(super) fn infer(
    predictor: &mut dyn Predictor,
    mut filled: Filled,
) -> Result<(Inferred, Buffer), EvalError> {
    let started = Instant::now();
    let rows = predict(predictor, &mut filled)?;
    let took = Took {
        decode: filled.decode.as_secs_f64(),
        preprocess: filled.preprocess.as_secs_f64(),
        model: started.elapsed().as_secs_f64(),
        ..Took::default()
    };
    let logits = filled
        .unreadable
        .into_iter()
        .zip(rows)
        .map(|(unreadable, row)| unreadable.map_or(Ok(row), Err))
        .collect();
    let inferred = Inferred {
        batch: filled.batch,
        images: filled.images,
        logits,
        took,
    };
    Ok((inferred, filled.buffer))
}

/// One row an image; the model is not asked about a batch without a readable image.
fn predict(predictor: &mut dyn Predictor, filled: &mut Filled) -> Result<Vec<Vec<f64>>, EvalError> {
    let n = filled.images.len();
    if filled.unreadable.iter().all(Option::is_some) {
        return Ok(vec![Vec::new(); n]);
    }
    let rows = predictor
        .predict(filled.buffer.images(n, filled.image_len), n)
        .map_err(|source| EvalError::Predict {
            batch: filled.batch,
            first: filled.images.start,
            last: filled.images.end - 1,
            source,
        })?;
    if rows.len() != n {
        return Err(EvalError::Rows {
            batch: filled.batch,
            expected: n,
            found: rows.len(),
        });
    }
    Ok(rows)
}

/// Holds all labels, also those of batches to come, to the width of the logits.
pub(super) fn check_labels(samples: &[Sample], classes: usize) -> Result<(), EvalError> {
    for (index, sample) in samples.iter().enumerate() {
        if let Some(label) = sample.label.filter(|&label| label >= classes) {
            return Err(EvalError::Label {
                id: sample.id.clone(),
                index,
                label,
                classes,
            });
        }
    }
    Ok(())
}

/// Scores a batch whose labels fit; `classes` is the width of the logits of other batches, where known.
pub(super) fn score(
    job: &Job<'_>,
    inferred: Inferred,
    classes: Option<usize>,
) -> Result<BatchRecord, EvalError> {
    let found = inferred.classes();
    let expected = classes.or(found).unwrap_or(0);
    let rows = inferred
        .images
        .zip(inferred.logits)
        .map(|(index, logits)| {
            let sample = &job.samples[index];
            let result = match logits {
                Err(reason) => RowResult::Unreadable(reason),
                Ok(logits) => score_one(job, index, &logits, expected)?,
            };
            Ok(Row {
                index,
                id: sample.id.clone(),
                label: sample.label,
                result,
            })
        })
        .collect::<Result<_, EvalError>>()?;
    Ok(BatchRecord {
        batch: inferred.batch,
        classes: found,
        rows,
        took: inferred.took,
    })
}

fn score_one(
    job: &Job<'_>,
    index: usize,
    logits: &[f64],
    expected: usize,
) -> Result<RowResult, EvalError> {
    let sample = &job.samples[index];
    if logits.len() != expected {
        return Err(EvalError::Width {
            id: sample.id.clone(),
            index,
            found: logits.len(),
            expected,
        });
    }
    let result = metrics::score(logits, sample.label);
    match &result {
        RowResult::NonFinite(found) if job.non_finite == NonFinite::Fail => {
            Err(EvalError::NonFinite {
                id: sample.id.clone(),
                index,
                found: found.clone(),
            })
        }
        _ => Ok(result),
    }
}
