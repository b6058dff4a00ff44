//! `zoo compare`: one model in several engines, side by side.

use super::output::{print, print_json};
use super::race::{Agreement, Field, LeftOut, tolerance};
use super::{Exit, engine, model, stop_on_interrupt};
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use zoo::eval::bench::{Ended, Report, Schedule};
use zoo::runtime::EngineName;

/// Compare engines on one model: how far their outputs are apart, then p50, p90, p99 and images/s in turn.
///
/// Every engine is a process of its own. An engine that does not run is named with its reason; the exit status is then 1, as
/// it is when outputs differ by more than rounding.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A model, or a .onnx file.
    model: String,
    /// Engines; the others are compared with the first.
    #[arg(long, value_delimiter = ',', default_values_t = EngineName::ALL, value_name = "ENGINE")]
    engines: Vec<EngineName>,
    /// Images per call.
    #[arg(long, value_delimiter = ',', default_value = "1,8", value_parser = batch)]
    batch: Vec<usize>,
    /// Rounds of blocks.
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// Seconds of a block.
    #[arg(long, default_value_t = 0.25)]
    block: f64,
    /// Discard blocks during which other processes used more cores than this.
    #[arg(long, default_value_t = 0.25, value_name = "CORES")]
    max_load: f64,
    /// Print JSON (schema zoo.bench/1 with `comparison`).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: model::ModelArguments,
}

fn batch(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("1 or more images".to_owned()),
    }
}

#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    report: &'a Report,
    comparison: Comparison<'a>,
}

#[derive(Serialize)]
struct Comparison<'a> {
    outputs: &'a [Agreement],
    tolerance: f64,
    left_out: &'a [LeftOut],
}

/// Compares the engines and prints the report.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    if arguments.run.engine.engine.is_some() {
        bail!("compare takes --engines A,B,..; --engine is for one");
    }
    let model = engine::one(&arguments.model, &arguments.run)?;
    let mut engines = arguments.engines.clone();
    if model.variant().is_none() {
        engines.retain(|engine| engine.takes_onnx());
    }
    let stop = stop_on_interrupt()?;
    let field = Field::start(&model, &arguments.run, &engines, &arguments.batch)?;
    let (outputs, left_out) = (field.agreement.clone(), field.left_out.clone());
    let tolerance = tolerance(arguments.run.dtype);
    if !arguments.json {
        print_outputs(&outputs, &left_out, tolerance)?;
    }
    if outputs.is_empty() {
        bail!("{}: no engine runs it", model.name);
    }
    let schedule = Schedule {
        rounds: arguments.rounds,
        block_s: arguments.block,
        max_other_load: arguments.max_load,
        ..Schedule::default()
    };
    let report = field.time(schedule, &arguments.batch, &stop)?;
    if arguments.json {
        print_json(&Output {
            report: &report,
            comparison: Comparison {
                outputs: &outputs,
                tolerance,
                left_out: &left_out,
            },
        })?;
    } else {
        print(&report)?;
    }
    let equal = outputs
        .iter()
        .all(|found| found.beyond(tolerance).is_none());
    Ok(match report.ended {
        Ended::Stopped => Exit::Interrupted,
        _ if equal && left_out.is_empty() => Exit::Done,
        _ => Exit::Failed,
    })
}

fn print_outputs(outputs: &[Agreement], left_out: &[LeftOut], tolerance: f64) -> Result<()> {
    let base = outputs.first().map_or("", |first| &first.engine);
    for found in outputs.iter().skip(1) {
        let difference = found
            .max_relative_difference
            .map_or("no number".to_owned(), |d| {
                format!("{d:.1e} of the largest logit")
            });
        let verdict = if found.beyond(tolerance).is_some() {
            "DIFFERS"
        } else {
            "equal"
        };
        print(format!(
            "{} and {base}: {verdict}: at most {difference} apart, same top-1 on {} of {} inputs",
            found.engine, found.same_top1, found.images
        ))?;
    }
    for LeftOut { engine, reason } in left_out {
        print(format!("{engine}: LEFT OUT: {reason}"))?;
    }
    Ok(())
}
