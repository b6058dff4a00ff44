//! Several models at once, each in a process of its own: libtorch's threads and memory are a process's.

use super::Arguments;
use super::ledger::Ledger;
use super::report::{Exported, Report};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use zoo::backbones::Variant;
use zoo::runtime::EngineName;

/// Exports every variant to its path, `jobs` at a time, the largest first; the ledger hears of each as it ends, in any order.
pub fn run(
    arguments: &Arguments,
    variants: &[(&'static Variant, PathBuf)],
    jobs: usize,
    stop: &AtomicBool,
    ledger: &Ledger<'_>,
) {
    let mut order: Vec<usize> = (0..variants.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(variants[i].0.params));
    let next = AtomicUsize::new(0);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let (variant, path) = &variants[i];
            let exported = one(arguments, variant, path);
            ledger.enter(
                i,
                exported.unwrap_or_else(|e| arguments.failed(variant, path, &e)),
            );
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(variants.len()) {
            scope.spawn(work);
        }
    });
}

/// The outcome of `zoo export` of one model in a process of its own.
fn one(arguments: &Arguments, variant: &Variant, path: &Path) -> Result<Exported> {
    let program = std::env::current_exe().context("where this program is")?;
    let output = Command::new(program)
        .arg("export")
        .arg(variant.name)
        .arg("--json")
        .arg("--onnx")
        .arg(path)
        .args(arguments.command_line())
        .args(arguments.run.command_line(EngineName::Libtorch))
        .output()
        .context("starting a process")?;
    let report: Result<Report, _> = serde_json::from_slice(&output.stdout);
    let exported = report.ok().and_then(|r| r.exports.into_iter().next());
    exported.with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or("it said nothing");
        format!("its process ended with {}: {last}", output.status)
    })
}
