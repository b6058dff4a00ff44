//! What the model said about each image, for further analysis.

use std::io::{self, Write};
use std::path::Path;

use crate::evaluation::Evaluation;
use crate::journal::{Row, RowResult};
use crate::metrics::KEPT;

/// The columns of the CSV form; empty where there is no such value.
pub const PREDICTION_COLUMNS: [&str; 16] = [
    "index", "id", "label", "status", "reason", "nll", "top1", "top2", "top3", "top4", "top5",
    "logit1", "logit2", "logit3", "logit4", "logit5",
];

/// How predictions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictionFormat {
    /// One line an image, with a header line.
    Csv,
    /// One JSON object an image: a row as the journal has it.
    JsonLines,
}

impl PredictionFormat {
    /// By the file's extension: `csv` or `jsonl`; `None` for any other.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "csv" => Some(PredictionFormat::Csv),
            "jsonl" => Some(PredictionFormat::JsonLines),
            _ => None,
        }
    }
}

/// Writes one line an image, by index. `out` should be buffered.
pub fn write_predictions(
    evaluation: &Evaluation,
    format: PredictionFormat,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        PredictionFormat::Csv => {
            let mut writer = csv::Writer::from_writer(out);
            writer.write_record(PREDICTION_COLUMNS)?;
            for row in evaluation.rows() {
                writer.write_record(record(row))?;
            }
            writer.flush()
        }
        PredictionFormat::JsonLines => {
            for row in evaluation.rows() {
                serde_json::to_writer(&mut *out, row)?;
                out.write_all(b"\n")?;
            }
            out.flush()
        }
    }
}

fn record(row: &Row) -> Vec<String> {
    let mut cells = vec![
        row.index.to_string(),
        row.id.clone(),
        row.label.map(|label| label.to_string()).unwrap_or_default(),
    ];
    match &row.result {
        RowResult::Scored { top, logits, nll } => {
            cells.extend(["ok".into(), String::new()]);
            cells.push(nll.map(|nll| nll.to_string()).unwrap_or_default());
            let at = |k| top.get(k).map(usize::to_string).unwrap_or_default();
            cells.extend((0..KEPT).map(at));
            let at = |k| logits.get(k).map(f64::to_string).unwrap_or_default();
            cells.extend((0..KEPT).map(at));
        }
        RowResult::Unreadable(reason) => cells.extend(["unreadable".into(), reason.clone()]),
        RowResult::NonFinite(reason) => cells.extend(["non_finite".into(), reason.clone()]),
    }
    cells.resize(PREDICTION_COLUMNS.len(), String::new());
    cells
}
