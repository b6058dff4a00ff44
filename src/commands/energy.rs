//! `zoo energy`: firing rates and estimated energy.

use super::output::{human, print, print_json, table};
use super::{Exit, model};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use tch::Tensor;
use zoo::backbones::{InputForm, Variant};
use zoo::counting::{self, over_images, spread};
use zoo::energy::{Average, Estimate, Summary, millijoules};
use zoo::eval::data::{DataSet, OpenOptions, drawn};
use zoo::eval::pipeline::Images;
use zoo::events::{Limits, frames, resize};
use zoo::runtime::Session;
use zoo::weights::formula::Formula;

/// Share of one-bits that bit-serial rows assume where nobody says better: that of random bits.
pub const ONES: f64 = 0.5;

/// Estimate the energy of an image from what the model really does on images: firing rates, synaptic operations, memory.
///
/// Nothing here is measured in joules (`zoo bench` does that): each row names the model of energy and its constants, and rows
/// of different models are not to be compared. docs/energy.md has the definitions.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The model, spiking or not.
    model: String,
    /// Images: any data set that `zoo eval` reads. Default: the drawn set.
    #[arg(
        long,
        visible_alias = "imagenet",
        visible_alias = "cifar10",
        value_name = "PATH"
    )]
    images: Option<PathBuf>,
    /// Recordings of an event camera, for models of event frames: .aedat, .bin or .npz.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "images")]
    events: Vec<PathBuf>,
    /// Images to count on, evenly spaced over the set.
    #[arg(long, default_value = "64", value_name = "N")]
    limit: NonZeroUsize,
    /// Images per call.
    #[arg(long, default_value = "8")]
    batch: NonZeroUsize,
    /// Share of one-bits R_b that the bit-serial rows assume.
    #[arg(long, default_value_t = ONES, value_name = "R_b", value_parser = share)]
    ones: f64,
    /// Print JSON (schema zoo.energy/1).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: model::ModelArguments,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    model: &'static str,
    weights: String,
    trained: bool,
    parameters: u64,
    #[serde(flatten)]
    summary: Summary,
}

/// Counts and prints.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let variant = model::variant(&arguments.model)?;
    let source = arguments.run.source(variant)?;
    let session = open_plain(arguments, variant)?;
    let trained = source.trained() && !session.new_head();
    if !trained {
        eprintln!("zoo: the weights are not trained: their firing rates mean nothing");
    }
    let (average, data) = count(arguments, &session)?;
    let images = average.images() as u64;
    let report = Report {
        schema: "zoo.energy/1",
        model: variant.name,
        weights: source.identity()?,
        trained,
        parameters: session.params(),
        summary: Summary::new(average.counts(), images, data, arguments.ones),
    };
    if arguments.json {
        print_json(&report)?;
    } else {
        print(format!(
            "{}: {} parameters",
            report.model, report.parameters
        ))?;
        print_rates(&report.summary)?;
        print_summary(&report.summary)?;
    }
    Ok(Exit::Done)
}

/// The form that was trained: what folding and fused kernels save is no part of the published counts.
fn open_plain(arguments: &Arguments, variant: &'static Variant) -> Result<Session> {
    let run = model::ModelArguments {
        no_fuse: true,
        ..arguments.run.clone()
    };
    run.open_in_libtorch(variant)
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ones) if (0.0..=1.0).contains(&ones) => Ok(ones),
        _ => Err("a share between 0 and 1".to_owned()),
    }
}

fn count(arguments: &Arguments, session: &Session) -> Result<(Average, String)> {
    match session.input_form() {
        InputForm::Images if arguments.events.is_empty() => on_images(arguments, session),
        InputForm::Frames { steps } if !arguments.events.is_empty() => {
            on_events(arguments, session, steps)
        }
        _ if !arguments.events.is_empty() => bail!(
            "{} takes no frames of events: give images (--images PATH)",
            session.variant().name
        ),
        form if arguments.images.is_some() => bail!(
            "{} takes {form}, not images{}",
            session.variant().name,
            match form {
                InputForm::Frames { .. } => ": give recordings (--events FILE..)",
                _ => "",
            }
        ),
        _ => on_formula(session),
    }
}

fn on_images(arguments: &Arguments, session: &Session) -> Result<(Average, String)> {
    let set = match &arguments.images {
        Some(path) => DataSet::open(path, &OpenOptions::default())?,
        None => drawn(),
    };
    let images = Images {
        transform: arguments.run.transform(session.variant()),
    };
    let samples = spread(&set.samples, arguments.limit.get());
    let average = over_images(session, &images, &samples, arguments.batch.get())?;
    Ok((average, set.describe()))
}

fn on_events(arguments: &Arguments, session: &Session, steps: i64) -> Result<(Average, String)> {
    let [height, width] = session.input_size();
    let mut average = Average::default();
    let recordings = arguments.events.iter().take(arguments.limit.get());
    for path in recordings {
        let named = || path.display().to_string();
        let recording = zoo::events::open(path, &Limits::default())?;
        let counted = frames(&recording, steps as usize).with_context(named)?;
        let resized = resize(&counted, height as usize, width as usize).with_context(named)?;
        let shape = [1, steps, 2, height, width];
        let x = Tensor::from_slice(&resized.values).reshape(shape);
        counting::add(session, &x, &mut average)?;
    }
    let count = arguments.events.len();
    Ok((average, format!("recordings of events ({count} files)")))
}

fn on_formula(session: &Session) -> Result<(Average, String)> {
    let x = formula_input(session);
    let mut average = Average::default();
    counting::add(session, &x, &mut average)?;
    Ok((
        average,
        format!("uniform random numbers {:?}: rates mean nothing", x.size()),
    ))
}

/// One input of the size that the model was opened for, of numbers that are always the same.
pub fn formula_input(session: &Session) -> Tensor {
    let formula = Formula {
        salt: "zoo".to_owned(),
        gain: 1.0,
    };
    let shape = session.input_shape(1);
    let unsigned: Vec<usize> = shape.iter().map(|n| n.unsigned_abs() as usize).collect();
    Tensor::from_slice(&formula.fill_input(&unsigned)).reshape(&shape[..])
}

/// Firing rates by layer; nothing for an ordinary network.
fn print_rates(summary: &Summary) -> Result<()> {
    if summary.neurons.is_empty() {
        return Ok(());
    }
    let mut rates = table(&["neurons", "updates a step", "rate", "fired"]);
    for layer in &summary.neurons {
        rates.add_row([
            layer.module.clone(),
            human(layer.elements as u64),
            format!("{:.4}", layer.rate),
            format!("{:.2} %", 100.0 * layer.nonzero),
        ]);
    }
    print(rates)
}

/// Operations and energies, a row for each estimate.
pub fn print_summary(summary: &Summary) -> Result<()> {
    print(format!(
        "of one image, mean of {} ({}): {} MACs x {} steps{}",
        summary.images,
        summary.data,
        human(summary.macs_per_step as u64),
        summary.steps,
        operations(summary)
    ))?;
    let header = [
        "estimated mJ",
        "of",
        "arithmetic",
        "state",
        "weights",
        "activations",
        "total",
    ];
    let mut energies = table(&header);
    for estimate in &summary.estimates {
        energies.add_row(row(estimate));
    }
    print(energies)?;
    for constant in constants(&summary.estimates) {
        print(constant)?;
    }
    Ok(())
}

fn operations(summary: &Summary) -> String {
    let (Some(sops), Some(rate)) = (summary.sops, summary.firing_rate) else {
        return String::new();
    };
    format!(
        ", {} of them of real values; {} synaptic operations, {} updates of neurons, firing rate {:.2} %",
        human(summary.analog_macs as u64),
        human(sops as u64),
        human(summary.neuron_updates as u64),
        100.0 * rate
    )
}

fn row(estimate: &Estimate) -> [String; 7] {
    let energy = &estimate.energy;
    let show = |pj: Option<f64>| pj.map_or("-".to_owned(), |pj| format!("{:.4}", millijoules(pj)));
    [
        estimate.model.name().to_owned(),
        estimate.row.clone(),
        show(Some(energy.arithmetic_pj)),
        show(energy.state_pj),
        show(energy.weights_pj),
        show(energy.activations_pj),
        show(Some(energy.total_pj())),
    ]
}

/// Every constant that was used, once, with its source.
fn constants(estimates: &[Estimate]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for constant in estimates.iter().flat_map(|e| &e.constants) {
        let line = format!(
            "{}: {} pJ per {} ({})",
            constant.name,
            constant.picojoules,
            constant.per.name(),
            constant.source
        );
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use zoo::energy::{Counts, estimates};

    #[test]
    fn constants_are_named_once() {
        let lines = constants(&estimates(&Counts::default(), ONES));
        let macs = lines.iter().filter(|l| l.contains("4.6 pJ per operation"));
        assert_eq!(macs.count(), 1, "{lines:?}");
    }

    #[test]
    fn the_share_of_one_bits_is_a_share() {
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(share("1.5").is_err() && share("NaN").is_err() && share("half").is_err());
    }
}
