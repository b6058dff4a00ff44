//! A table of MACs, held to figures that others counted.

use super::{Arguments, explain, open, print};
use crate::commands::output::table;
use crate::commands::{Exit, stop_on_interrupt};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use zoo::backbones::{ReportedMacs, Variant};
use zoo::profile::{Agreement, Figures};

/// A row of the table.
struct Row {
    name: &'static str,
    input: [i64; 2],
    params: u64,
    macs: u64,
    elementwise: u64,
    claimed: Option<ReportedMacs>,
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
    let input = session.input_size();
    let costs = session.trace()?.graph.costs(1);
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
        claimed: claimed(variant, input),
        agreement: figures.hold(variant.name, costs.total.macs),
    })
}

/// What is published of the model, where it is counted at the published size.
pub(super) fn claimed(variant: &Variant, input: [i64; 2]) -> Option<ReportedMacs> {
    let published = input == variant.build_options().size;
    variant.reported_macs().filter(|_| published)
}

/// The sources of the claims that are shown, with what they count.
fn claims(rows: &[Row], figures: &Figures) -> Vec<String> {
    let sources = rows
        .iter()
        .filter_map(|row| Some(row.claimed.as_ref()?.source));
    let sources: BTreeSet<&str> = sources.collect();
    let lines = sources.into_iter().map(|source| {
        let counted = figures.claims_of(source);
        let counted = counted.map_or(String::new(), |what| format!(": {what}"));
        format!("- **{source}**{counted}")
    });
    lines.collect()
}

/// A list under a title; nothing without items.
fn section(title: &str, items: &[String]) -> String {
    match items.is_empty() {
        true => String::new(),
        false => format!("\n## {title}\n\n{}\n", items.join("\n")),
    }
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
        "claimed",
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
            row.claimed
                .as_ref()
                .map_or(String::new(), |c| format!("{} G", c.giga)),
            figure.map_or(String::new(), |a| a.figure.clone()),
            figure.map_or(String::new(), |a| format!("{:+.2} %", 100.0 * a.difference)),
            figure.and_then(|a| a.note()).unwrap_or_default(),
        ]);
    }
    let reasons: Vec<String> = figures.reasons(rows.iter().map(|row| row.name)).collect();
    let reasons = section("Where the counts differ", &reasons);
    let claims = section("What the claims are", &claims(rows, figures));
    format!(
        "# Multiply-accumulates of the zoo's models\n\nWritten by `zoo profile '*' --table FILE --against tests/figures/macs.json` (zoo {}): \
         counted from the graph of the form that was trained, one image, all time steps; norms, softmax and activations are \
         elementwise. `zoo_graph::cost` says what counts as what.\n\nOfficial: counted on the official module (torch's flop counter / 2). \
         A count agrees where it differs by at most 0.1 % and half of the figure's last digit. Claimed: what is published, rounded as \
         there, and not always the same thing.\n\n{lines}\n{reasons}{claims}",
        env!("CARGO_PKG_VERSION")
    )
}
