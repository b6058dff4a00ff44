//! The figures of an evaluation, for programs (JSON, CSV) and for people (a table).
//!
//! All forms are made from one [`Report`]. Its schema is described field by field in
//! `docs/eval-report.md`; a field is never renamed or given another meaning under one schema version.

mod csv;
mod predictions;
mod table;
mod timings;

use serde::Serialize;

use crate::evaluation::Evaluation;
use crate::journal::{Header, Preprocessing, Reported, Row, RowResult};
use crate::metrics::{self, Accuracy};

pub use csv::{CSV_COLUMNS, to_csv};
pub use predictions::{PREDICTION_COLUMNS, PredictionFormat, write_predictions};
pub use table::{Style, stages_table, table};
pub use timings::{BatchMillis, Stage, Timings};

/// Name and version of the report's schema.
pub const SCHEMA: &str = "zoo.eval/1";

/// The figures of an evaluation. Two runs of one evaluation differ in `timings` only.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Version of the program.
    pub version: String,
    /// Canonical name of the model.
    pub model: String,
    /// Where the weights came from.
    pub weights: String,
    /// What the weights are.
    pub weights_identity: String,
    /// Whether they were trained.
    pub trained: bool,
    /// Name of the data set.
    pub data_set: String,
    /// Its layout on disk.
    pub layout: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// How images became inputs.
    pub preprocessing: Preprocessing,
    /// Floating-point type that the model computed in.
    pub dtype: String,
    /// Engine that ran the model.
    pub engine: String,
    /// Device that it ran on.
    pub device: String,
    /// Images a batch.
    pub batch: usize,
    /// `i/n` where this is one shard of an evaluation; `None` for all of it.
    pub shard: Option<String>,
    /// Width of the logits; `None` where no image could be read.
    pub classes: Option<usize>,
    /// Images of the data set (of the shard).
    pub images: usize,
    /// Images that have a label and could be read: those that the accuracies are over.
    pub labelled: usize,
    /// Images that could not be read; not part of any figure.
    pub unreadable: Vec<Named>,
    /// Images whose logits were not finite; wrong in the accuracies, not part of the mean loss.
    pub non_finite: Vec<Named>,
    /// Share whose label is the best class.
    pub top1: Option<Accuracy>,
    /// Share whose label is among the five best classes; `None` with five classes or fewer.
    pub top5: Option<Accuracy>,
    /// Mean cross-entropy in nats over the labelled images with finite logits.
    pub mean_loss: Option<f64>,
    /// What others reported for these weights.
    pub reported: Option<Comparison>,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
    /// Firing rates and estimated energy of a spiking network, counted on some of the images by whoever ran it; not part of
    /// the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy: Option<zoo_energy::Summary>,
    /// Where the time went; `None` where nothing was evaluated.
    pub timings: Option<Timings>,
}

/// An image and what was wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Named {
    /// Index in the data set.
    pub index: usize,
    /// Id in the data set.
    pub id: String,
    /// What was wrong.
    pub reason: String,
}

/// A reported accuracy beside the measured one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Reported top-1 accuracy in percent.
    pub top1: f64,
    /// Where it was reported.
    pub source: String,
    /// Measured minus reported, in percentage points.
    pub difference: Option<f64>,
}

impl Report {
    pub(crate) fn new(evaluation: &Evaluation) -> Self {
        let header = evaluation.header();
        let counts = Counts::over(evaluation);
        let top1 = Accuracy::new(counts.top1, counts.labelled);
        let top5 = Accuracy::new(counts.top5, counts.labelled)
            .filter(|_| counts.classes.is_some_and(|classes| classes > 5));
        let shard = (header.shard.count > 1).then(|| header.shard.to_string());
        let mut report = Report {
            schema: SCHEMA,
            version: header.version.clone(),
            model: header.model.clone(),
            weights: header.weights.clone(),
            weights_identity: header.weights_identity.clone(),
            trained: header.trained,
            data_set: header.data_set.clone(),
            layout: header.layout.clone(),
            fingerprint: header.fingerprint.clone(),
            preprocessing: header.preprocessing.clone(),
            dtype: header.dtype.clone(),
            engine: header.engine.clone(),
            device: header.device.clone(),
            batch: header.batch,
            shard,
            classes: counts.classes,
            images: counts.images,
            labelled: counts.labelled,
            mean_loss: counts.mean_loss(),
            unreadable: counts.unreadable,
            non_finite: counts.non_finite,
            top1,
            top5,
            reported: header
                .reported
                .as_ref()
                .map(|reported| compare(reported, top1)),
            warnings: Vec::new(),
            energy: None,
            timings: Timings::new(header, evaluation.batches(), evaluation.places()),
        };
        report.warnings = warnings(&report, header);
        report
    }

    /// Indented JSON with a line end.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// The reproducible part.
    pub fn without_timings(&self) -> Self {
        Report {
            timings: None,
            ..self.clone()
        }
    }
}

fn compare(reported: &Reported, top1: Option<Accuracy>) -> Comparison {
    Comparison {
        top1: reported.top1,
        source: reported.source.clone(),
        difference: top1.map(|measured| measured.percent - reported.top1),
    }
}

fn warnings(report: &Report, header: &Header) -> Vec<String> {
    let mut found = Vec::new();
    if !report.trained {
        found.push("the weights are not trained: the accuracy says nothing about the model".into());
    }
    if !report.unreadable.is_empty() {
        found.push(format!(
            "{} of {} images could not be read and are not part of the figures",
            report.unreadable.len(),
            report.images
        ));
    }
    if !report.non_finite.is_empty() {
        found.push(format!(
            "{} images gave logits that are not finite; they count as wrong and are not part of the loss",
            report.non_finite.len()
        ));
    }
    if report.labelled == 0 {
        found.push("no image has a label and could be read: there is no accuracy".into());
    }
    if report.trained
        && let (Some(top1), Some(classes)) = (report.top1, report.classes)
    {
        if metrics::at_chance(top1.correct, top1.of, classes) {
            found.push(format!(
                "top-1 is at chance level for {classes} classes ({} of {} correct) though the weights are trained: the labels may be permuted, or the preprocessing or weights be of another model",
                top1.correct, top1.of
            ));
        } else if let Some(reported) = &header.reported
            && !(top1.interval95[0]..=top1.interval95[1]).contains(&reported.top1)
        {
            found.push(format!(
                "the reported top-1 of {} % lies outside the 95 % interval of the measured one ({:.2} to {:.2} %)",
                reported.top1, top1.interval95[0], top1.interval95[1]
            ));
        }
    }
    found
}

/// Sums over all rows, in the order of their index.
#[derive(Default)]
struct Counts {
    classes: Option<usize>,
    images: usize,
    labelled: usize,
    top1: usize,
    top5: usize,
    losses: usize,
    loss: f64,
    unreadable: Vec<Named>,
    non_finite: Vec<Named>,
}

impl Counts {
    fn over(evaluation: &Evaluation) -> Self {
        let mut counts = Counts {
            classes: evaluation.batches().iter().find_map(|b| b.classes),
            ..Counts::default()
        };
        for row in evaluation.rows() {
            counts.add(row);
        }
        counts
    }

    fn add(&mut self, row: &Row) {
        self.images += 1;
        match &row.result {
            RowResult::Unreadable(reason) => {
                self.unreadable.push(named(row, reason));
                return;
            }
            RowResult::NonFinite(reason) => self.non_finite.push(named(row, reason)),
            RowResult::Scored { top, nll, .. } => {
                self.top1 += usize::from(row.label.is_some() && top.first() == row.label.as_ref());
                self.top5 += usize::from(row.label.is_some_and(|label| top.contains(&label)));
                self.losses += usize::from(nll.is_some());
                self.loss += nll.unwrap_or(0.0);
            }
        }
        self.labelled += usize::from(row.label.is_some());
    }

    fn mean_loss(&self) -> Option<f64> {
        (self.losses > 0).then(|| self.loss / self.losses as f64)
    }
}

fn named(row: &Row, reason: &str) -> Named {
    Named {
        index: row.index,
        id: row.id.clone(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
