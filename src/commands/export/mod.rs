//! `zoo export`: models as ONNX files.

mod jobs;
mod report;
mod table;

use super::output::{print, print_json};
use super::{Exit, model, stop_on_interrupt};
use anyhow::{Context, Result, bail};
use clap::Args;
use report::{Exported, Report};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Tensor;
use zoo::backbones::{InputForm, Variant};
use zoo::eval::Prepare;
use zoo::eval::data::{Classes, DataSet, OpenOptions, drawn};
use zoo::eval::pipeline::Images;
use zoo::export::{Exporter, Settings};
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
    /// Write the outcome as a Markdown table, too: into this file, between the marks `<!-- table: begin -->` and
    /// `<!-- table: end -->` where it has them.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Delete each file once it was verified: for the table alone.
    #[arg(long, conflicts_with = "no_verify")]
    discard: bool,
    /// Print JSON (schema zoo.export/1).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: model::ModelArguments,
}

impl Arguments {
    /// What else than the models, the file and how they run stands on a command line.
    fn command_line(&self) -> Vec<String> {
        let mut line = vec![format!("--limit={}", self.limit)];
        let images = self.images.iter();
        line.extend(images.map(|dir| format!("--images={}", dir.display())));
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

    /// Where each model's file goes.
    fn paths(&self, variants: Vec<&'static Variant>) -> Result<Vec<(&'static Variant, PathBuf)>> {
        if variants.len() == 1 && !self.onnx.is_dir() {
            return Ok(vec![(variants[0], self.onnx.clone())]);
        }
        std::fs::create_dir_all(&self.onnx).with_context(|| self.onnx.display().to_string())?;
        let named = |v: &'static Variant| (v, self.onnx.join(format!("{}.onnx", v.name)));
        Ok(variants.into_iter().map(named).collect())
    }
}

/// Exports every model, also those after one that fails; one failure makes the exit code 1.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let variants = arguments.paths(model::variants(&arguments.models)?)?;
    let stop = stop_on_interrupt()?;
    let tell = |exported: &Exported| {
        // A closed pipe ends the command when the report is printed.
        let _closed = match arguments.json {
            true => Ok(()),
            false => print(exported.line()),
        };
    };
    let jobs = arguments.jobs.get();
    let exports = match jobs {
        1 => one_by_one(arguments, &variants, &stop, &tell),
        _ => jobs::run(arguments, &variants, jobs, &stop, &tell),
    };
    let all_hold = exports.iter().all(|e| e.error.is_none());
    let interrupted = exports.len() < variants.len();
    if let Some(path) = &arguments.table {
        table::write(path, &exports)?;
    }
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
    done: &dyn Fn(&Exported),
) -> Vec<Exported> {
    let running = variants
        .iter()
        .take_while(|_| !stop.load(Ordering::Relaxed));
    let exports = running.map(|(variant, path)| {
        let exported = export(arguments, variant, path).unwrap_or_else(|e| {
            let file = path.display().to_string();
            Exported::failed(variant.name, &file, super::output::explain(&e))
        });
        done(&exported);
        exported
    });
    exports.collect()
}

fn export(arguments: &Arguments, variant: &'static Variant, path: &Path) -> Result<Exported> {
    let size = arguments.run.engine.input_size;
    let size = size.map(|(height, width)| [height as i64, width as i64]);
    let session = arguments.run.open_in_libtorch_at(variant, size)?;
    let weights = arguments.run.source()?.identity()?;
    let settings = Settings {
        weights: weights.clone(),
        classes: class_names(&session),
        size,
        external_data: arguments.external_data,
        half: arguments.fp16,
    };
    let exporter = Exporter::new(&session, settings)?;
    let (file, verification) = if arguments.no_verify {
        (exporter.write(path)?, None)
    } else {
        let images = images(arguments, &session)?;
        let (file, verification) = exporter.write_verified(path, &images)?;
        (file, Some(verification))
    };
    let mut exported = Exported {
        model: variant.name.to_owned(),
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

/// Batches of images as the model takes them; none where it takes something else.
fn images(arguments: &Arguments, session: &Session) -> Result<Vec<Tensor>> {
    const BATCH: usize = 8;
    if session.input_form() != InputForm::Images || session.input_channels() != 3 {
        return Ok(Vec::new());
    }
    let options = OpenOptions {
        need_labels: false,
        ..OpenOptions::default()
    };
    let set = match &arguments.images {
        Some(dir) => DataSet::open(dir, &options)?,
        None => drawn(),
    };
    let mut preprocessing = session.variant().preprocessing;
    if let Some(size) = arguments.run.engine.input_size {
        preprocessing.size = size;
    }
    let images = Images {
        transform: model::transform(&preprocessing),
    };
    let (height, width) = preprocessing.size;
    let mut batches = Vec::new();
    for samples in set.samples[..arguments.limit.min(set.samples.len())].chunks(BATCH) {
        let mut pixels = vec![0.0; samples.len() * images.image_len()];
        for (sample, out) in samples.iter().zip(pixels.chunks_mut(images.image_len())) {
            match images.decode(sample) {
                Ok(image) => images.preprocess(&image, out),
                Err(reason) => bail!("{}: {reason}; leave it out of --images", sample.id),
            }
        }
        let shape = [samples.len() as i64, 3, height as i64, width as i64];
        batches.push(Tensor::from_slice(&pixels).reshape(shape));
    }
    Ok(batches)
}
