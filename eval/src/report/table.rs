//! Reports as tables for people.

use std::io::IsTerminal;

use comfy_table::presets::{ASCII_FULL_CONDENSED, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};

use super::{Report, Timings};

/// Which characters a table is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Plain ASCII lines, for files and pipes.
    Ascii,
    /// Box-drawing characters, for terminals.
    Utf8,
}

impl Style {
    /// Box-drawing where standard output is a terminal.
    pub fn for_stdout() -> Self {
        if std::io::stdout().is_terminal() {
            Style::Utf8
        } else {
            Style::Ascii
        }
    }

    /// An empty table with these columns.
    pub fn table(self, columns: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_preset(match self {
            Style::Ascii => ASCII_FULL_CONDENSED,
            Style::Utf8 => UTF8_FULL_CONDENSED,
        });
        table.set_header(columns);
        table
    }
}

const COLUMNS: [&str; 10] = [
    "model",
    "weights",
    "top-1 % (95 %)",
    "top-5 %",
    "loss",
    "images",
    "reported",
    "diff",
    "images/s",
    "limited by",
];

/// One line a model, and the warnings below.
pub fn table(reports: &[Report], style: Style) -> String {
    let mut table = style.table(&COLUMNS);
    for report in reports {
        table.add_row(row(report));
    }
    align_right(&mut table, 2..9);
    let mut text = table.to_string();
    text.push('\n');
    for report in reports {
        for warning in &report.warnings {
            text.push_str(&format!("warning: {}: {warning}\n", report.model));
        }
    }
    text
}

fn row(r: &Report) -> [String; COLUMNS.len()] {
    let images = if r.unreadable.is_empty() {
        r.images.to_string()
    } else {
        format!("{} ({} unreadable)", r.images, r.unreadable.len())
    };
    let timings = r.timings.as_ref();
    let reported = r.reported.as_ref();
    [
        r.model.clone(),
        r.weights.clone(),
        or_dash(r.top1.map(|a| {
            let [low, high] = a.interval95;
            format!("{:.2} ({low:.2} to {high:.2})", a.percent)
        })),
        or_dash(r.top5.map(|a| format!("{:.2}", a.percent))),
        or_dash(r.mean_loss.map(|loss| format!("{loss:.4}"))),
        images,
        or_dash(reported.map(|c| format!("{:.2}", c.top1))),
        or_dash(
            reported
                .and_then(|c| c.difference)
                .map(|d| format!("{d:+.2}")),
        ),
        or_dash(timings.map(|t| format!("{:.1}", t.images_per_s))),
        or_dash(timings.map(|t| t.limited_by.to_owned())),
    ]
}

/// One line a stage: what it gets through, how busy it was; and what limits the whole.
pub fn stages_table(timings: &Timings, style: Style) -> String {
    let mut table = style.table(&["stage", "threads", "images/s while busy", "busy"]);
    for stage in &timings.stages {
        table.add_row([
            stage.name.to_owned(),
            format!("{:.0}", stage.threads),
            format!("{:.1}", stage.images_per_s),
            format!("{:.0} %", 100.0 * stage.busy_share),
        ]);
    }
    align_right(&mut table, 1..4);
    let millis = timings.batch_ms;
    format!(
        "{table}\n{:.1} images/s, limited by: {}; model a batch: p50 {:.1}, p90 {:.1}, p99 {:.1} ms\n",
        timings.images_per_s, timings.limited_by, millis.p50, millis.p90, millis.p99
    )
}

fn align_right(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in table.column_iter_mut() {
        if columns.contains(&column.index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}
