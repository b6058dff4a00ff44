//! `zoo eval`: accuracy and speed on a data set.

use super::engine::{self, Model};
use super::model::{self, ModelArguments};
use super::output::print;
use super::{Exit, auto, stop_on_interrupt};
use anyhow::{Context, Result, bail};
use clap::Args;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::BufWriter;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;
use tch::{Kind, Tensor};
use zoo::backbones::{CIFAR_10, IMAGENET_1K};
use zoo::counting::{over_images, spread};
use zoo::energy::Summary;
use zoo::eval::data::{DataSet, Layout, OpenOptions, Sample, drawn};
use zoo::eval::journal::{Header, Preprocessing, Reported, Shard};
use zoo::eval::pipeline::{self, Images, Job, NonFinite, Outcome};
use zoo::eval::report::{
    PredictionFormat, Report, Style, stages_table, table, to_csv, write_predictions,
};
use zoo::eval::{Evaluation, PredictError, Predictor};
use zoo::runtime::{Device, Engine, EngineInfo, Session};

/// Evaluate models on ImageNet or CIFAR-10: top-1, top-5, loss, and what each stage of the pipeline gets through.
///
/// Without a folder, a small image set that zoo draws itself is used. Progress is kept in a journal: a run that was
/// killed or interrupted goes on where it was, and ends in the same report.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Models or globs.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// ImageNet: class folders, flat files with a list of labels, or tars; found by itself. Without DIR: the drawn set.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    imagenet: Option<Option<PathBuf>>,
    /// CIFAR-10's binary form: `test_batch.bin`, or the folder it is in.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["imagenet", "labels"])]
    cifar10: Option<PathBuf>,
    /// A list of labels to use instead of what is found beside the images.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Go on without images that a list names and that are missing.
    #[arg(long)]
    allow_missing: bool,
    /// Images per call.
    #[arg(long, default_value = "32")]
    batch: NonZeroUsize,
    /// Threads that decode and preprocess. Default: half of the cores (all but one beside a GPU).
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Evaluate part i of n only; `zoo merge` joins the journals of all parts.
    #[arg(long, default_value = "1/1", value_name = "i/n")]
    shard: Shard,
    /// Where to keep the journal (one model). Default: a file of its own for every setting, in .zoo/.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Forget what the journal says and begin anew.
    #[arg(long)]
    fresh: bool,
    /// Count images with logits that are not finite instead of stopping there.
    #[arg(long)]
    count_non_finite: bool,
    /// Print JSON: an array of reports (schema zoo.eval/1, docs/eval-report.md).
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV, one line a model.
    #[arg(long)]
    csv: bool,
    /// Write what the model said of each image, as .csv or .jsonl (one model).
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    #[command(flatten)]
    run: ModelArguments,
}

/// Images that firing rates and energy are counted on.
const COUNTED: usize = 64;

/// Evaluates every model and prints the reports, also of those done before an interruption.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let models = engine::models(&arguments.models, &arguments.run)?;
    check_single(arguments, models.len())?;
    let format = arguments
        .predictions
        .as_deref()
        .map(prediction_format)
        .transpose()?;
    let set = open_set(arguments)?;
    eprintln!("zoo: {}", set.describe());
    if let Some(skipped) = set.describe_skipped() {
        eprintln!("zoo: {skipped}");
    }
    let stop = stop_on_interrupt()?;
    let mut reports = Vec::new();
    let mut exit = Exit::Done;
    for model in &models {
        let (outcome, engine) = evaluate(arguments, model, &set, &stop)?;
        match outcome {
            Outcome::Finished(evaluation) => {
                if let (Some(path), Some(format)) = (&arguments.predictions, format) {
                    save_predictions(&evaluation, format, path)?;
                }
                let mut report = evaluation.report();
                if let Some(session) = engine.session() {
                    report.energy = energy(arguments, session, &set, &report)?;
                }
                reports.push(report);
            }
            Outcome::Interrupted { done, total } => {
                eprintln!(
                    "zoo: interrupted: {done} of {total} images of {} are in the journal; the same command goes on",
                    model.name
                );
                exit = Exit::Interrupted;
                break;
            }
        }
    }
    print_reports(&reports, arguments.json, arguments.csv)?;
    Ok(exit)
}

/// What makes sense for one model only.
fn check_single(arguments: &Arguments, models: usize) -> Result<()> {
    let single = [
        ("--journal", arguments.journal.is_some()),
        ("--predictions", arguments.predictions.is_some()),
        ("--weights FILE", arguments.run.names_a_file()?),
    ];
    for (option, given) in single {
        if given && models > 1 {
            bail!("{option} is for one model, and {models} were named");
        }
    }
    Ok(())
}

fn prediction_format(path: &Path) -> Result<PredictionFormat> {
    PredictionFormat::of_path(path)
        .with_context(|| format!("{}: say .csv or .jsonl", path.display()))
}

fn open_set(arguments: &Arguments) -> Result<DataSet> {
    let options = OpenOptions {
        labels: arguments.labels.clone(),
        allow_missing: arguments.allow_missing,
        ..OpenOptions::default()
    };
    if let Some(path) = &arguments.cifar10 {
        let set = DataSet::open(path, &options)?;
        if set.layout != Layout::Cifar10 {
            bail!(
                "{}: {}, not CIFAR-10's binary form (3073 bytes an image): give test_batch.bin, or --imagenet for image files",
                path.display(),
                set.layout
            );
        }
        return Ok(set);
    }
    match &arguments.imagenet {
        Some(Some(dir)) => Ok(DataSet::open(dir, &options)?),
        _ => Ok(drawn()),
    }
}

/// The data set's name in reported figures; none for the drawn set, on which nobody reported.
fn data_name(arguments: &Arguments) -> Option<&'static str> {
    match (&arguments.cifar10, &arguments.imagenet) {
        (Some(_), _) => Some(CIFAR_10),
        (None, Some(Some(_))) => Some(IMAGENET_1K),
        _ => None,
    }
}

/// Decoding threads and the engine's threads: together the cores of the machine.
fn split_cores(arguments: &Arguments) -> (usize, usize) {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = arguments.workers.map_or_else(
        || match arguments.run.device {
            Device::Cpu => (cores / 2).max(1),
            Device::Cuda(_) => cores.saturating_sub(1).max(1),
        },
        NonZeroUsize::get,
    );
    let threads = arguments
        .run
        .threads
        .map_or_else(|| cores.saturating_sub(workers).max(1), NonZeroUsize::get);
    (workers, threads)
}

fn evaluate(
    arguments: &Arguments,
    model: &Model,
    set: &DataSet,
    stop: &AtomicBool,
) -> Result<(Outcome, Box<dyn Engine>)> {
    let (workers, threads) = split_cores(arguments);
    let run = ModelArguments {
        threads: NonZeroUsize::new(threads),
        ..arguments.run.clone()
    };
    let engine = auto::resolve(model, &run, arguments.batch.get())?;
    let opened = model.open(engine, &run)?.for_images(&model.name)?;
    if opened.new_head {
        bail!(
            "{}: the checkpoint's head has another width than --classes, so the head would be new, and the accuracy of an \
             untrained head means nothing: leave --classes away, or give a checkpoint with that head",
            model.name
        );
    }
    let header = header(arguments, model, set, &opened.engine.info())?;
    let journal = match &arguments.journal {
        Some(path) => path.clone(),
        None => default_journal(&header)?,
    };
    let mut predictor = EnginePredictor {
        engine: opened.engine,
        size: model.preprocessing.size,
    };
    let job = Job {
        header,
        samples: &set.samples,
        workers,
        non_finite: if arguments.count_non_finite {
            NonFinite::Count
        } else {
            NonFinite::Fail
        },
        journal: Some(&journal),
        fresh: arguments.fresh,
    };
    let images = Images {
        transform: model::transform(&model.preprocessing),
    };
    let mut observer = pipeline::for_stderr(&model.name);
    let outcome = pipeline::run(&job, &images, &mut predictor, stop, observer.as_mut())?;
    Ok((outcome, predictor.engine))
}

/// Firing rates and energies of a spiking network on some of the images that could be read; `None` for others.
fn energy(
    arguments: &Arguments,
    session: &Session,
    set: &DataSet,
    report: &Report,
) -> Result<Option<Summary>> {
    let unreadable: Vec<&str> = report.unreadable.iter().map(|n| n.id.as_str()).collect();
    let readable: Vec<Sample> = set
        .samples
        .iter()
        .filter(|s| !unreadable.contains(&s.id.as_str()))
        .cloned()
        .collect();
    let images = Images {
        transform: arguments.run.transform(session.variant()),
    };
    let count = |limit| {
        let samples = spread(&readable, limit);
        over_images(session, &images, &samples, arguments.batch.get())
    };
    if readable.is_empty() || !count(1)?.counts().spiking() {
        return Ok(None);
    }
    let average = count(COUNTED)?;
    let counted = average.images() as u64;
    let summary = Summary::new(
        average.counts(),
        counted,
        set.describe(),
        super::energy::ONES,
    );
    Ok(Some(summary))
}

fn header(
    arguments: &Arguments,
    model: &Model,
    set: &DataSet,
    engine: &EngineInfo,
) -> Result<Header> {
    let identity = model.weights_identity(&arguments.run)?;
    let trained = model.trained(&arguments.run)?;
    // What is published is of the published size.
    let size = model.preprocessing.size;
    let published = model.variant().filter(|v| v.preprocessing.size == size);
    let reported = published.map_or(&[][..], |v| v.reported);
    Ok(Header {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: model.name.clone(),
        weights: arguments
            .run
            .weights
            .clone()
            .unwrap_or_else(|| identity.clone()),
        weights_identity: identity,
        trained,
        data_set: set.root.clone(),
        layout: set.describe(),
        fingerprint: set.fingerprint()?,
        images: set.samples.len(),
        preprocessing: Preprocessing::from(&model::transform(&model.preprocessing)),
        dtype: engine.precision.to_string(),
        engine: format!(
            "{} {} ({})",
            engine.engine,
            engine.version,
            engine.options.join(", ")
        ),
        device: engine.device.to_string(),
        batch: arguments.batch.get(),
        threads: engine.threads,
        shard: arguments.shard,
        machine: machine(),
        reported: data_name(arguments)
            .filter(|_| trained)
            .and_then(|data| reported.iter().find(|r| r.data == data))
            .map(|r| Reported {
                top1: r.top1,
                source: r.source.to_owned(),
            }),
    })
}

fn machine() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// `.zoo/MODEL-HASH.journal`: another setting is another file, so that no run is in another's way.
fn default_journal(header: &Header) -> Result<PathBuf> {
    let identity = serde_json::to_vec(header)?;
    let hash: String = Sha256::digest(&identity)
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let folder = PathBuf::from(".zoo");
    std::fs::create_dir_all(&folder).with_context(|| {
        format!(
            "{}: the journal is kept here (--journal FILE puts it elsewhere)",
            folder.display()
        )
    })?;
    Ok(folder.join(format!("{}-{hash}.journal", header.model)))
}

struct EnginePredictor {
    engine: Box<dyn Engine>,
    size: (usize, usize),
}

impl Predictor for EnginePredictor {
    fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
        let error = |e: &dyn std::fmt::Display| PredictError(e.to_string());
        let shape = [n as i64, 3, self.size.0 as i64, self.size.1 as i64];
        let logits = self
            .engine
            .logits(&Tensor::from_slice(batch).reshape(shape))
            .map_err(|e| error(&e))?;
        let logits = logits.to_device(tch::Device::Cpu).to_kind(Kind::Double);
        Vec::<Vec<f64>>::try_from(logits).map_err(|e| error(&e))
    }
}

fn save_predictions(evaluation: &Evaluation, format: PredictionFormat, path: &Path) -> Result<()> {
    let named = || path.display().to_string();
    let file = File::create(path).with_context(named)?;
    write_predictions(evaluation, format, &mut BufWriter::new(file)).with_context(named)
}

/// The reports as a table with the stages of each run, as JSON or as CSV.
pub fn print_reports(reports: &[Report], json: bool, csv: bool) -> Result<()> {
    if json {
        return super::output::print_json(&reports);
    }
    if csv {
        return print(to_csv(reports)?.trim_end());
    }
    if reports.is_empty() {
        return Ok(());
    }
    let style = Style::for_stdout();
    print(table(reports, style).trim_end())?;
    for report in reports {
        if let Some(summary) = &report.energy {
            print(format!("\n{}", report.model))?;
            super::energy::print_summary(summary)?;
        }
        if let Some(timings) = &report.timings {
            print(format!(
                "\n{}\n{}",
                report.model,
                stages_table(timings, style).trim_end()
            ))?;
        }
    }
    Ok(())
}
