//! A report in text.

use super::{Arguments, By, Layer, Macs, Ran, Report, skipped};
use crate::commands::output::{human, print, table};
use anyhow::Result;
use zoo::graph::cost::Work;

/// What every row ends in.
const WORK: [&str; 5] = ["MACs", "elementwise", "read", "written", "live"];

/// Prints totals, the table that was asked for, and the comparisons.
pub(super) fn print_report(arguments: &Arguments, report: &Report) -> Result<()> {
    let [height, width] = report.input;
    print(format!(
        "{} ({} form), batch {}, input {height}x{width}: {} parameters, {} elements of buffers",
        report.model,
        report.form,
        report.batch,
        human(report.params),
        human(report.buffers)
    ))?;
    match arguments.by {
        By::Module => print_modules(report)?,
        By::Layer => print_layers(&report.layers)?,
        By::Kind => print_kinds(report)?,
    }
    print_totals(report)?;
    for line in comparison(&report.macs_of_an_image, report.complete) {
        print(line)?;
    }
    if let Some(modules) = skipped::text(report.model, &report.macs_of_an_image.modules) {
        print(modules)?;
    }
    match &report.energy {
        Some(energies) => energies.print(),
        None => Ok(()),
    }
}

fn print_totals(report: &Report) -> Result<()> {
    let work = &report.total;
    let at_least = if report.complete { "" } else { "at least " };
    print(format!(
        "total: {at_least}{} MACs, {at_least}{} elementwise operations, {at_least}{} read, {at_least}{} written; activations take \
         {at_least}{} at once (live)",
        human(work.macs),
        human(work.elementwise),
        bytes(work.read),
        bytes(work.written),
        bytes(work.live)
    ))?;
    for (kind, count) in &report.unknown {
        print(format!("not counted, no rule: {kind} ({count})"))?;
    }
    Ok(())
}

fn print_modules(report: &Report) -> Result<()> {
    let mut rows = table(&[&["module", "operators", "params"], WORK.as_slice()].concat());
    for module in &report.modules {
        let name = match module.path.rsplit('.').next() {
            Some(last) if module.depth > 0 => last,
            _ => report.model,
        };
        let indented = format!("{}{name}", "  ".repeat(module.depth));
        let first = [indented, module.nodes.to_string(), human(module.params)];
        rows.add_row(first.into_iter().chain(columns(&module.work)));
    }
    print(rows)
}

fn print_layers(layers: &[Layer]) -> Result<()> {
    let mut rows = table(&[&["layer", "operator", "result", "params"], WORK.as_slice()].concat());
    for layer in layers {
        let first = [
            layer.module.clone(),
            short(&layer.kind),
            format!("{:?}", layer.output),
            human(layer.params),
        ];
        rows.add_row(first.into_iter().chain(columns(&layer.work)));
    }
    print(rows)
}

fn print_kinds(report: &Report) -> Result<()> {
    let mut rows = table(&[&["operator", "times", "params"], WORK.as_slice()].concat());
    for kind in &report.kinds {
        let name = match kind.known {
            true => short(&kind.kind),
            false => format!("{} (no rule)", short(&kind.kind)),
        };
        let first = [name, kind.nodes.to_string(), human(kind.params)];
        rows.add_row(first.into_iter().chain(columns(&kind.work)));
    }
    print(rows)
}

fn short(kind: &str) -> String {
    kind.trim_start_matches("aten::").to_owned()
}

fn columns(work: &Work) -> [String; 5] {
    let show = |n: u64| if n == 0 { "-".to_owned() } else { human(n) };
    [
        show(work.macs),
        show(work.elementwise),
        bytes(work.read),
        bytes(work.written),
        bytes(work.live),
    ]
}

/// `44.9 MB`, `768 B`.
fn bytes(n: u64) -> String {
    match n {
        0 => "-".to_owned(),
        1..1_000 => format!("{n} B"),
        _ => human(n) + "B",
    }
}

/// Claimed, counted and executed MACs of an image, a line each.
fn comparison(macs: &Macs, complete: bool) -> Vec<String> {
    let giga = |n: f64| format!("{:.4} G", n / 1e9);
    let mut lines = vec!["MACs of one image:".to_owned()];
    lines.push(match &macs.claimed {
        Some(claimed) => format!("  claimed   {} G ({})", claimed.macs / 1e9, claimed.source),
        None => "  claimed   nothing known".to_owned(),
    });
    let at_least = if complete { "" } else { "at least " };
    lines.push(format!(
        "  counted   {at_least}{} (the graph)",
        giga(macs.counted)
    ));
    if let Some(ran) = &macs.executed {
        lines.extend(executed(ran));
    }
    lines
}

/// What ran, on what, and what it skipped.
fn executed(ran: &Ran) -> Vec<String> {
    let giga = |n: f64| format!("{:.4} G", n / 1e9);
    let done = &ran.executed;
    let products = giga(done.macs - done.summed);
    let mut lines = vec![format!("  executed  {products} ({} form)", ran.form)];
    let mut more = |line: String| lines.push(format!("            {line}"));
    if done.summed > 0.0 {
        let (summed, additions) = (giga(done.summed), giga(done.additions));
        more(format!(
            "and {additions} additions of spikes in the place of {summed}"
        ));
    }
    if done.macs != done.dense {
        more(format!("{} if nothing were skipped", giga(done.dense)));
    }
    if let Some(on) = done.heads_on {
        more(format!("{:.1} % of the routed heads on", 100.0 * on));
    }
    if let Some(rate) = done.firing_rate {
        let (nonzero, rate) = (giga(done.nonzero), 100.0 * rate);
        more(format!(
            "{nonzero} have a left operand that is not zero; firing rate {rate:.2} %"
        ));
    }
    more(match done.images {
        1 => format!("of one input: {}", ran.data),
        n => format!("mean of {n} images: {}", ran.data),
    });
    if !ran.trained && skipped::skips(done) {
        more("the weights are not trained: what they skip, route or fire means nothing".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::Claimed;
    use super::*;
    use zoo::counting::{Executed, Execution};

    #[test]
    fn claimed_counted_and_executed_stand_side_by_side() {
        let macs = Macs {
            claimed: Some(Claimed {
                macs: 0.241e9,
                source: "the paper",
            }),
            counted: 2.413e8,
            modules: Vec::new(),
            executed: Some(Ran {
                data: "drawn".to_owned(),
                form: "fused",
                trained: false,
                execution: Execution::default(),
                executed: Executed {
                    images: 2,
                    macs: 1e8,
                    dense: 2e8,
                    heads_on: Some(0.5),
                    ..Executed::default()
                },
            }),
        };
        let text = comparison(&macs, false).join("\n");
        for part in [
            "claimed   0.241 G (the paper)",
            "counted   at least 0.2413 G",
            "executed  0.1000 G (fused form)",
            "mean of 2 images: drawn",
            "0.2000 G if nothing were skipped",
            "50.0 % of the routed heads on",
            "not trained",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
