//! Counted and executed work side by side, module by module.

use super::Ran;
use crate::commands::output::{human, table};
use serde::Serialize;
use zoo::counting::Executed;
use zoo::graph::cost::ModuleCost;

/// A module's MACs of one image.
#[derive(Serialize)]
pub(super) struct Module {
    /// Its path; empty for the whole.
    path: String,
    depth: usize,
    /// By the graph.
    counted: f64,
    /// On images; null where none ran.
    executed: Option<Executed>,
}

/// The modules that have products, heads or neurons.
pub(super) fn modules(costs: &[ModuleCost], batch: i64, ran: Option<&Ran>) -> Vec<Module> {
    let modules = costs.iter().map(|module| Module {
        path: module.path.clone(),
        depth: module.depth,
        counted: module.work.macs as f64 / batch as f64,
        executed: ran.map(|ran| ran.execution.of_module(&module.path)),
    });
    modules.filter(Module::works).collect()
}

impl Module {
    fn works(&self) -> bool {
        self.counted > 0.0 || self.executed.is_some_and(|e| e.macs > 0.0 || skips(&e))
    }
}

/// Whether something is skipped, or could be.
pub(super) fn skips(executed: &Executed) -> bool {
    executed.macs != executed.dense || executed.heads_on.is_some() || executed.firing_rate.is_some()
}

/// A figure of a module.
type Column = (&'static str, &'static str, fn(&Executed) -> Option<String>);

const COLUMNS: [Column; 6] = [
    ("executed", "products that were multiplied", |e| {
        Some(human((e.macs - e.summed).round() as u64))
    }),
    (
        "unskipped",
        "the same products if nothing were skipped",
        |e| (e.dense != e.macs).then(|| human(e.dense.round() as u64)),
    ),
    (
        "not of zeros",
        "those with a left operand that is not zero",
        |e| e.firing_rate.map(|_| human(e.nonzero.round() as u64)),
    ),
    (
        "and sums",
        "additions of spikes in the place of products",
        |e| (e.summed > 0.0).then(|| human(e.additions.round() as u64)),
    ),
    ("heads on", "share of the routed heads that are on", |e| {
        e.heads_on.map(percent)
    }),
    ("firing rate", "mean of what neurons fire", |e| {
        e.firing_rate.map(percent)
    }),
];

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The modules that skip something, with the columns that any of them has; nothing of a model that skips nothing.
pub(super) fn text(model: &str, modules: &[Module]) -> Option<String> {
    let rows = modules.iter().filter_map(|m| Some((m, m.executed?)));
    let rows: Vec<_> = rows.filter(|(_, executed)| skips(executed)).collect();
    let any = |(.., of): &&Column| rows.iter().any(|(_, executed)| of(executed).is_some());
    let columns: Vec<_> = COLUMNS.iter().filter(any).collect();
    if rows.is_empty() {
        return None;
    }
    let names = columns.iter().map(|(name, ..)| *name);
    let header: Vec<&str> = ["MACs of one image", "counted"]
        .into_iter()
        .chain(names)
        .collect();
    let mut lines = table(&header);
    for (module, executed) in rows {
        let path = match module.path.as_str() {
            "" => model,
            path => path,
        };
        let first = [path.to_owned(), human(module.counted.round() as u64)];
        let figures = columns
            .iter()
            .map(|(.., of)| of(&executed).unwrap_or("-".to_owned()));
        lines.add_row(first.into_iter().chain(figures));
    }
    let legend = columns
        .iter()
        .map(|(name, what, _)| format!("{name}: {what}"));
    let legend: Vec<String> = legend.collect();
    Some(format!("{lines}\n{}", legend.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, executed: Executed) -> Module {
        Module {
            path: path.to_owned(),
            depth: 1,
            counted: 2e6,
            executed: Some(executed),
        }
    }

    #[test]
    fn modules_that_skip_are_shown_with_what_they_skip() {
        let plain = Executed {
            macs: 2e6,
            dense: 2e6,
            ..Executed::default()
        };
        assert!(text("net", &[module("stem", plain)]).is_none());
        let routed = Executed {
            dense: 8e6,
            heads_on: Some(0.25),
            ..plain
        };
        let shown = text("net", &[module("stem", plain), module("attn", routed)]).unwrap();
        assert!(
            !shown.contains("stem") && !shown.contains("firing"),
            "{shown}"
        );
        for part in ["attn", "8.00 M", "25.0 %", "unskipped", "heads on: share"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
