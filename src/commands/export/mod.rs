//! `zoo export`: models as ONNX files.

mod jobs;
mod ledger;
mod report;
mod table;

use super::model::ModelArguments;
use super::output::print_json;
use super::{Exit, model, stop_on_interrupt};
use anyhow::{Context, Result, bail};
use clap::Args;
use ledger::Ledger;
use report::{Exported, Report};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tch::Tensor;
use zoo::backbones::{InputForm, Variant};
use zoo::eval::Prepare;
use zoo::eval::data::{Classes, DataSet, OpenOptions, Sample, drawn};
use zoo::eval::pipeline::Images;
use zoo::export::{self, Chosen, Exporter, Settings};
use zoo::runtime::Session;

/// Write models as ONNX files, and hold each to libtorch in ONNX Runtime: random input at several batches, then images.
///
/// The batch is dynamic, height and width are those of --input-size. A file that differs is an error, is kept as FILE.unverified.onnx, and leaves alone what was at FILE.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Models or globs.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// The file, or with several models a folder for MODEL.onnx.
    #[arg(long, value_name = "FILE")]
    onnx: PathBuf,
    /// Images to hold the files to libtorch on: any data set that eval reads. Default: the drawn set.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// At most this many images.
    #[arg(long, default_value_t = 200)]
    limit: usize,
    /// Begin no further batch of a model's verification after so many seconds; two random batches are always run. What was
    /// run is in the report. Default: everything.
    #[arg(long, value_name = "SECONDS")]
    budget: Option<u64>,
    /// Do not run the files.
    #[arg(long)]
    no_verify: bool,
    /// Weights in FILE.data beside the file (always so beyond 2 GB).
    #[arg(long)]
    external_data: bool,
    /// Weights and arithmetic in half precision.
    #[arg(long)]
    fp16: bool,
    /// This many models at once, each in a process of its own; --threads are then those of each.
    #[arg(long, default_value = "1", value_name = "N")]
    jobs: std::num::NonZeroUsize,
    /// Write the outcome as a Markdown table, too, model by model as they end: into this file, between the marks
    /// `<!-- table: begin -->` and `<!-- table: end -->` where it has them. Rows of other models and sizes stay.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Delete each file once it was written and verified: for the report alone.
    #[arg(long)]
    discard: bool,
    /// Print JSON (schema zoo.export/1).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: ModelArguments,
}

impl Arguments {
    /// Height and width, where they are not the published ones.
    fn size(&self, variant: &Variant) -> Option<[i64; 2]> {
        let asked = self.run.options().size?;
        (asked != variant.build_options().size).then_some(asked)
    }

    /// An export that ended in an error.
    fn failed(&self, variant: &Variant, path: &Path, error: &anyhow::Error) -> Exported {
        Exported {
            model: variant.name.to_owned(),
            size: self.size(variant),
            file: path.display().to_string(),
            weights: String::new(),
            bytes: 0,
            nodes: 0,
            kinds: BTreeMap::new(),
            verification: None,
            error: Some(super::output::explain(error)),
        }
    }

    /// What else than the models, the file and how they run stands on a command line.
    fn command_line(&self) -> Vec<String> {
        let mut line = vec![format!("--limit={}", self.limit)];
        let images = self.images.iter();
        line.extend(images.map(|dir| format!("--images={}", dir.display())));
        line.extend(self.budget.map(|s| format!("--budget={s}")));
        for (flag, given) in [
            ("--no-verify", self.no_verify),
            ("--external-data", self.external_data),
            ("--fp16", self.fp16),
            ("--discard", self.discard),
        ] {
            line.extend(given.then(|| flag.to_owned()));
        }
        line
    }

    /// Where each model's file goes. The folder is made: a model can take minutes to get to its file.
    fn paths(&self, variants: Vec<&'static Variant>) -> Result<Vec<(&'static Variant, PathBuf)>> {
        let made = |folder: &Path| {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
        };
        let folder = self.onnx.is_dir() || self.onnx.as_os_str().as_encoded_bytes().ends_with(b"/");
        if variants.len() == 1 && !folder {
            self.onnx.parent().map_or(Ok(()), made)?;
            return Ok(vec![(variants[0], self.onnx.clone())]);
        }
        made(&self.onnx)?;
        let named = |v: &'static Variant| (v, self.onnx.join(format!("{}.onnx", v.name)));
        Ok(variants.into_iter().map(named).collect())
    }
}

/// Exports every model, also those after one that fails; one failure makes the exit code 1.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let variants = arguments.paths(model::variants(&arguments.models)?)?;
    let stop = stop_on_interrupt()?;
    let ledger = Ledger::new(arguments, variants.len())?;
    let jobs = arguments.jobs.get();
    match jobs {
        1 => one_by_one(arguments, &variants, &stop, &ledger),
        _ => jobs::run(arguments, &variants, jobs, &stop, &ledger),
    }
    let exports = ledger.close()?;
    let all_hold = exports.iter().all(|e| e.error.is_none());
    let interrupted = exports.len() < variants.len();
    if arguments.json {
        print_json(&Report {
            schema: report::SCHEMA.to_owned(),
            exports,
        })?;
    }
    Ok(match (interrupted, all_hold) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Done,
        (false, false) => Exit::Failed,
    })
}

fn one_by_one(
    arguments: &Arguments,
    variants: &[(&'static Variant, PathBuf)],
    stop: &AtomicBool,
    ledger: &Ledger<'_>,
) {
    for (place, (variant, path)) in variants.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let exported = export(arguments, variant, path)
            .unwrap_or_else(|e| arguments.failed(variant, path, &e));
        ledger.enter(place, exported);
    }
}

fn export(arguments: &Arguments, variant: &'static Variant, path: &Path) -> Result<Exported> {
    let (session, weights) = open(arguments, variant)?;
    let settings = Settings {
        weights: weights.clone(),
        classes: class_names(&session),
        preprocessing: Some(arguments.run.preprocessing(variant)),
        external_data: arguments.external_data,
        half: arguments.fp16,
        budget: arguments.budget.map(Duration::from_secs),
    };
    let exporter = Exporter::new(&session, settings)?;
    let (file, verification) = if arguments.no_verify {
        (exporter.write(path)?, None)
    } else {
        let images = images(arguments, &session)?;
        let batches = images.iter().flat_map(Batches::read);
        let mut batches = batches.map(|x| x.map_err(Into::into));
        let (file, verification) = exporter.write_verified(path, &mut batches)?;
        (file, Some(verification))
    };
    let mut exported = Exported {
        model: variant.name.to_owned(),
        size: arguments.size(variant),
        file: path.display().to_string(),
        weights,
        bytes: file.bytes,
        nodes: file.nodes,
        kinds: file.kinds,
        verification,
        error: None,
    };
    if arguments.discard {
        for written in file.files {
            std::fs::remove_file(&written).with_context(|| written.display().to_string())?;
        }
        exported.file = String::new();
    }
    Ok(exported)
}

/// The model and its weights' identity; where no weights are named, the formula's with the gain that suits it best.
fn open(arguments: &Arguments, variant: &'static Variant) -> Result<(Session, String)> {
    let run = &arguments.run;
    if run.weights.is_some() || arguments.no_verify {
        let session = run.open_in_libtorch(variant)?;
        return Ok((session, run.source(variant)?.identity()?));
    }
    let open = |weights: &str| {
        let run = ModelArguments {
            weights: Some(weights.to_owned()),
            ..run.clone()
        };
        run.open_in_libtorch(variant)
    };
    let chosen = export::choose(arguments.fp16, open, |session| probe(arguments, session))?;
    let Chosen { session, weights } = chosen.with_context(|| {
        format!(
            "{}: no formula weights tell inputs apart, so that the file could not be verified: give --weights FILE, or say \
             --no-verify",
            variant.name
        )
    })?;
    Ok((session, weights))
}

/// Random inputs and, where the model takes images, as many of these.
fn probe(arguments: &Arguments, session: &Session) -> Result<Tensor> {
    const EACH: usize = 4;
    let random = export::random_inputs(session, EACH as i64);
    Ok(match images(arguments, session)? {
        None => random,
        Some(images) => {
            let some = &images.samples[..EACH.min(images.samples.len())];
            Tensor::cat(&[random, images.batch(some)?], 0)
        }
    })
}

/// Names of ImageNet's classes, where the head as published has these.
fn class_names(session: &Session) -> Vec<String> {
    let classes = Classes::imagenet();
    let variant = session.variant();
    let published = session.options().head == zoo::runtime::Head::Published;
    if !published || variant.classes != classes.len() as i64 {
        return Vec::new();
    }
    classes.iter().map(|class| class.name.clone()).collect()
}

/// Images as a model takes them.
struct Batches {
    images: Images,
    samples: Vec<Sample>,
}

/// None where the model takes something else.
fn images(arguments: &Arguments, session: &Session) -> Result<Option<Batches>> {
    if session.input_form() != InputForm::Images || session.input_channels() != 3 {
        return Ok(None);
    }
    let options = OpenOptions {
        need_labels: false,
        ..OpenOptions::default()
    };
    let set = match &arguments.images {
        Some(dir) => DataSet::open(dir, &options)?,
        None => drawn(),
    };
    let mut samples = set.samples;
    samples.truncate(arguments.limit);
    Ok(Some(Batches {
        images: Images {
            transform: arguments.run.transform(session.variant()),
        },
        samples,
    }))
}

impl Batches {
    /// One batch after the other, each read when it is asked for.
    fn read(&self) -> impl Iterator<Item = Result<Tensor>> {
        const BATCH: usize = 8;
        self.samples
            .chunks(BATCH)
            .map(|samples| self.batch(samples))
    }

    fn batch(&self, samples: &[Sample]) -> Result<Tensor> {
        let length = self.images.image_len();
        let mut pixels = vec![0.0; samples.len() * length];
        for (sample, out) in samples.iter().zip(pixels.chunks_mut(length)) {
            match self.images.decode(sample) {
                Ok(image) => self.images.preprocess(&image, out),
                Err(reason) => bail!("{}: {reason}; leave it out of --images", sample.id),
            }
        }
        let (height, width) = self.images.transform.size;
        let shape = [samples.len() as i64, 3, height as i64, width as i64];
        Ok(Tensor::from_slice(&pixels).reshape(shape))
    }
}
