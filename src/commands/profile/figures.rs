//! A table of MACs, held to figures that others counted.

use super::{Arguments, explain, input_size, open, print};
use crate::commands::output::table;
use crate::commands::{Exit, stop_on_interrupt};
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::atomic::Ordering;
use zoo::backbones::Variant;
use zoo::profile::{Agreement, Figures};

/// A row of the table.
struct Row {
    name: &'static str,
    input: [i64; 2],
    params: u64,
    macs: u64,
    elementwise: u64,
    agreement: Option<Agreement>,
}

/// Counts every model, also those after one that fails; a failure, or a figure that differs without a reason, makes the exit code 1.
pub(super) fn run(
    arguments: &Arguments,
    variants: &[&'static Variant],
    path: &Path,
) -> Result<Exit> {
    let figures = match &arguments.against {
        Some(file) => Figures::read(file)?,
        None => Figures::default(),
    };
    let stop = stop_on_interrupt()?;
    let mut rows = Vec::new();
    let mut failures = 0;
    for &variant in variants {
        if stop.load(Ordering::Relaxed) {
            return Ok(Exit::Interrupted);
        }
        match row(arguments, variant, &figures) {
            Ok(row) => {
                print(line(&row))?;
                failures += usize::from(row.agreement.as_ref().is_some_and(|a| !a.holds()));
                rows.push(row);
            }
            Err(e) => {
                print(format!("{}: FAILED: {}", variant.name, explain(&e)))?;
                failures += 1;
            }
        }
        let text = markdown(&rows, &figures);
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(match failures {
        0 => Exit::Done,
        _ => Exit::Failed,
    })
}

fn row(arguments: &Arguments, variant: &'static Variant, figures: &Figures) -> Result<Row> {
    let session = open(arguments, variant, !arguments.fused)?;
    let input = input_size(arguments, variant);
    let costs = session.trace(input)?.graph.costs(1);
    anyhow::ensure!(
        costs.complete(),
        "no rule for {}",
        costs.unknown.into_keys().collect::<Vec<_>>().join(", ")
    );
    Ok(Row {
        name: variant.name,
        input,
        params: session.params(),
        macs: costs.total.macs,
        elementwise: costs.total.elementwise,
        agreement: figures.hold(variant.name, costs.total.macs),
    })
}

fn line(row: &Row) -> String {
    let held = row
        .agreement
        .as_ref()
        .map_or(String::new(), |a| format!(": {a}"));
    format!("{} {:.4} G MACs{held}", row.name, row.macs as f64 / 1e9)
}

fn markdown(rows: &[Row], figures: &Figures) -> String {
    let mut lines = table(&[
        "model",
        "input",
        "params",
        "MACs",
        "elementwise",
        "official",
        "difference",
        "note",
    ]);
    lines.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    lines.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    for row in rows {
        let [height, width] = row.input;
        let figure = row.agreement.as_ref();
        lines.add_row([
            row.name.to_owned(),
            format!("{height}x{width}"),
            row.params.to_string(),
            format!("{:.4} G", row.macs as f64 / 1e9),
            format!("{:.4} G", row.elementwise as f64 / 1e9),
            figure.map_or(String::new(), |a| a.figure.clone()),
            figure.map_or(String::new(), |a| format!("{:+.2} %", 100.0 * a.difference)),
            figure.and_then(|a| a.note()).unwrap_or_default(),
        ]);
    }
    let reasons: Vec<String> = figures.reasons(rows.iter().map(|row| row.name)).collect();
    let reasons = match reasons.is_empty() {
        true => String::new(),
        false => format!("\n## Where the counts differ\n\n{}\n", reasons.join("\n")),
    };
    format!(
        "# Multiply-accumulates of the zoo's models\n\nWritten by `zoo profile '*' --table FILE --against tests/goldens/macs.json` (zoo {}): \
         counted from the graph of the form that was trained, one image, all time steps; norms, softmax and activations are \
         elementwise. `zoo_graph::cost` says what counts as what.\n\nOfficial: counted on the official module (torch's flop counter / 2). \
         A count agrees where it differs by at most 0.1 % and half of the figure's last digit.\n\n{lines}\n{reasons}",
        env!("CARGO_PKG_VERSION")
    )
}
