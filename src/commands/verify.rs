//! `zoo verify`: models against records of what the official ones compute.

use super::Exit;
use super::output::{print, print_json, table};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use zoo::runtime::{Device, Options, Precision};
use zoo::verify::{Check, Failure, Form, Outcome, Record, find_records, verify};

/// Run parity records and print, for each output, the largest relative error.
///
/// A record is NAME.json beside NAME.safetensors; docs/records.md says how to make one from any Python model. Names and
/// shapes are compared first, then every output of the plain and of the fused form. Exit code 1 when a record fails.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Records, or folders of records.
    #[arg(required = true, value_name = "RECORD|DIR")]
    records: Vec<PathBuf>,
    /// f64 (every output counts), f32 or bf16 (only the logits count).
    #[arg(long, default_value = "f64")]
    dtype: Precision,
    /// Largest relative error, max |a - b| / max |b|. Default: 1e-9 in f64, 1e-4 in f32 (2e-2 for Sparsifiner, whose
    /// choices flip; 5e-2 for SPT, whose firing rates count in place of the logits), 5e-3 in tf32, 5e-2 in bf16 and f16.
    #[arg(long)]
    tolerance: Option<f64>,
    /// cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Threads of libtorch's operators. Default: all cores.
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// Print JSON (schema zoo.verify/1).
    #[arg(long)]
    json: bool,
    /// Only the records that failed or could not be run, and the count.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'a str,
    dtype: String,
    passed: usize,
    failed: usize,
    not_run: usize,
    records: &'a [Outcome],
}

/// Verifies every record and reports.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let mut check = Check::new(arguments.dtype);
    check.options = Options {
        device: arguments.device,
        threads: arguments.threads.map(Into::into),
        ..Options::default()
    };
    check.tolerance = arguments.tolerance;
    let mut outcomes = Vec::new();
    for path in find_records(&arguments.records)? {
        let record = Record::open(&path)?;
        let outcome = verify(&record, &check)?;
        let hidden = arguments.json || (arguments.quiet && outcome.passed());
        if !hidden {
            print_outcome(&outcome)?;
        }
        outcomes.push(outcome);
    }
    let count = |pick: fn(&Outcome) -> bool| outcomes.iter().filter(|o| pick(o)).count();
    let passed = count(Outcome::passed);
    let not_run = count(|o| o.model.is_err());
    let failed = outcomes.len() - passed - not_run;
    if arguments.json {
        print_json(&Report {
            schema: "zoo.verify/1",
            dtype: check.precision.to_string(),
            passed,
            failed,
            not_run,
            records: &outcomes,
        })?;
    } else {
        print(format!(
            "{passed} passed, {failed} failed, {not_run} not run ({})",
            check.precision
        ))?;
    }
    Ok(if failed > 0 { Exit::Failed } else { Exit::Done })
}

fn print_outcome(outcome: &Outcome) -> Result<()> {
    let model = match &outcome.model {
        Ok(model) => model,
        Err(reason) => return print(format!("{}: not run: {reason}\n", outcome.record)),
    };
    print(format!(
        "{} as {model}: {} (tolerance {:e})",
        outcome.record,
        if outcome.passed() { "ok" } else { "FAILED" },
        outcome.tolerance
    ))?;
    for failure in &outcome.failures {
        print(format!("  {}", describe(failure)))?;
    }
    let state_fails = outcome.failures.iter().any(concerns_state);
    if !state_fails {
        print(format!("  {} names and shapes equal", outcome.names))?;
    }
    let mut lines = table(&["output", "plain", "fused"]);
    for plain in outcome.outputs.iter().filter(|o| o.form == Form::Plain) {
        let fused = outcome
            .outputs
            .iter()
            .find(|o| o.form == Form::Fused && o.output == plain.output);
        let show = |error: Option<f64>| error.map_or("absent".to_owned(), |e| format!("{e:.1e}"));
        lines.add_row([
            plain.output.clone(),
            show(plain.relative_error),
            fused.map_or("-".to_owned(), |o| show(o.relative_error)),
        ]);
    }
    print(format!("{lines}\n"))
}

fn concerns_state(failure: &Failure) -> bool {
    !matches!(
        failure,
        Failure::Output { .. } | Failure::OutputShape { .. }
    )
}

fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Params { recorded, found } => {
            format!("{found} parameters, the record has {recorded}")
        }
        Failure::MissingNames { names } => format!("not in the model: {}", names.join(", ")),
        Failure::ExtraNames { names } => format!("not in the record: {}", names.join(", ")),
        Failure::Shapes { differ } => differ
            .iter()
            .map(|(name, recorded, found)| format!("{name} is {found:?}, recorded {recorded:?}"))
            .collect::<Vec<_>>()
            .join("; "),
        Failure::OutputShape {
            output,
            recorded,
            found,
        } => format!("output {output} is {found:?}, recorded {recorded:?}"),
        Failure::Output { output, form } => {
            format!("output {output} ({form:?}) is beyond the tolerance or absent")
        }
        Failure::Engine { reason } => format!("did not run: {reason}"),
    }
}
