//! The finished batches of a run: those of its journal, and those that it adds.

use std::collections::BTreeMap;

use super::{EvalError, Job, NonFinite};
use crate::data::Sample;
use crate::evaluation::Evaluation;
use crate::journal::{BatchRecord, Header, Journal, JournalError, Row, RowResult};

pub(super) struct Store {
    header: Header,
    journal: Option<Journal>,
    batches: BTreeMap<usize, BatchRecord>,
    classes: Option<usize>,
    images: usize,
}

impl Store {
    pub(super) fn open(job: &Job<'_>) -> Result<Self, EvalError> {
        let (journal, batches) = match job.journal {
            Some(path) => {
                let (journal, batches) = Journal::open(path, &job.header, job.fresh)?;
                check_rows(job, path, &batches)?;
                (Some(journal), batches)
            }
            None => (None, BTreeMap::new()),
        };
        Ok(Store {
            header: job.header.clone(),
            journal,
            classes: batches.values().find_map(|record| record.classes),
            images: batches.values().map(|record| record.rows.len()).sum(),
            batches,
        })
    }

    pub(super) fn has(&self, batch: usize) -> bool {
        self.batches.contains_key(&batch)
    }

    /// Width of the logits, once a batch is done.
    pub(super) fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// Images done.
    pub(super) fn images(&self) -> usize {
        self.images
    }

    pub(super) fn add(&mut self, record: BatchRecord) -> Result<(), JournalError> {
        if let Some(journal) = &mut self.journal {
            journal.append(&record)?;
        }
        self.classes = self.classes.or(record.classes);
        self.images += record.rows.len();
        self.batches.insert(record.batch, record);
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), JournalError> {
        self.journal.as_mut().map_or(Ok(()), Journal::sync)
    }

    pub(super) fn finish(self) -> Evaluation {
        Evaluation::new(self.header, self.batches.into_values().collect())
    }
}

/// Holds what the journal says to the samples and to the job's rules.
fn check_rows(
    job: &Job<'_>,
    path: &std::path::Path,
    batches: &BTreeMap<usize, BatchRecord>,
) -> Result<(), EvalError> {
    for row in batches.values().flat_map(|record| &record.rows) {
        let sample = job.samples.get(row.index);
        if sample.is_none_or(|sample| sample.id != row.id || sample.label != row.label) {
            return Err(JournalError::OtherImage {
                path: path.to_owned(),
                index: row.index,
                journal: describe_row(row),
                data_set: sample.map(describe_sample).unwrap_or_default(),
            }
            .into());
        }
        if let (RowResult::NonFinite(found), NonFinite::Fail) = (&row.result, job.non_finite) {
            return Err(EvalError::NonFinite {
                id: row.id.clone(),
                index: row.index,
                found: found.clone(),
            });
        }
    }
    Ok(())
}

fn describe_row(row: &Row) -> String {
    describe(&row.id, row.label)
}

fn describe_sample(sample: &Sample) -> String {
    describe(&sample.id, sample.label)
}

fn describe(id: &str, label: Option<usize>) -> String {
    match label {
        Some(label) => format!("{id}, label {label}"),
        None => format!("{id}, no label"),
    }
}
