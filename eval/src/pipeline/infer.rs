//! From a filled batch to its record.

use std::ops::Range;
use std::time::Instant;

use super::feed::{Buffer, Filled};
use super::{EvalError, Job, NonFinite};
use crate::Predictor;
use crate::journal::{BatchRecord, Row, RowResult, Took};
use crate::metrics;

/// A batch and what the model said about it.
pub(super) struct Inferred {
    batch: usize,
    images: Range<usize>,
    unreadable: Vec<Option<String>>,
    /// One row an image; empty where no image could be read.
    logits: Vec<Vec<f64>>,
    took: Took,
}

/// Predicts a batch, and gives its buffer back.
pub(super) fn infer(
    predictor: &mut dyn Predictor,
    filled: Filled,
) -> Result<(Inferred, Buffer), EvalError> {
    let Filled {
        batch,
        images,
        image_len,
        mut buffer,
        unreadable,
        decode,
        preprocess,
    } = filled;
    let n = images.len();
    let started = Instant::now();
    let logits = if unreadable.iter().all(Option::is_some) {
        Vec::new()
    } else {
        let rows = predictor.predict(buffer.images(n, image_len), n);
        rows.map_err(|source| EvalError::Predict {
            batch,
            first: images.start,
            last: images.end - 1,
            source,
        })?
    };
    let took = Took {
        decode: decode.as_secs_f64(),
        preprocess: preprocess.as_secs_f64(),
        model: started.elapsed().as_secs_f64(),
        ..Took::default()
    };
    if !logits.is_empty() && logits.len() != n || logits.is_empty() && unreadable.contains(&None) {
        return Err(EvalError::Rows {
            batch,
            expected: n,
            found: logits.len(),
        });
    }
    let inferred = Inferred {
        batch,
        images,
        unreadable,
        logits,
        took,
    };
    Ok((inferred, buffer))
}

/// Scores a batch; `classes` is the width of the logits of other batches, where known.
pub(super) fn score(
    job: &Job<'_>,
    inferred: Inferred,
    classes: Option<usize>,
) -> Result<BatchRecord, EvalError> {
    let Inferred {
        batch,
        images,
        unreadable,
        logits,
        took,
    } = inferred;
    let expected = classes.or(logits.first().map(Vec::len)).unwrap_or(0);
    let mut rows = Vec::with_capacity(images.len());
    let mut logits = logits.iter();
    for (index, unreadable) in images.zip(unreadable) {
        let logits = logits.next();
        let result = match (unreadable, logits) {
            (Some(reason), _) => RowResult::Unreadable(reason),
            (None, Some(logits)) => score_one(job, index, logits, expected)?,
            (None, None) => {
                return Err(EvalError::Rows {
                    batch,
                    expected: rows.len() + 1,
                    found: rows.len(),
                });
            }
        };
        let sample = &job.samples[index];
        rows.push(Row {
            index,
            id: sample.id.clone(),
            label: sample.label,
            result,
        });
    }
    let read = |row: &Row| !matches!(row.result, RowResult::Unreadable(_));
    Ok(BatchRecord {
        batch,
        classes: rows.iter().any(read).then_some(expected),
        rows,
        took,
    })
}

fn score_one(
    job: &Job<'_>,
    index: usize,
    logits: &[f64],
    expected: usize,
) -> Result<RowResult, EvalError> {
    let sample = &job.samples[index];
    if logits.len() != expected || logits.is_empty() {
        return Err(EvalError::Width {
            id: sample.id.clone(),
            index,
            found: logits.len(),
            expected,
        });
    }
    if let Some(label) = sample.label.filter(|&label| label >= logits.len()) {
        return Err(EvalError::Label {
            id: sample.id.clone(),
            index,
            label,
            classes: logits.len(),
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
