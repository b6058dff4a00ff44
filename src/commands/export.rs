//! `zoo export`: models as ONNX files.

use super::output::{print, print_json, table};
use super::{Exit, model, stop_on_interrupt};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use tch::Tensor;
use zoo::backbones::{InputForm, Variant};
use zoo::eval::Prepare;
use zoo::eval::data::{DataSet, OpenOptions, drawn};
use zoo::eval::pipeline::Images;
use zoo::export::{Exporter, Settings, Verification};
use zoo::runtime::Session;

/// Write models as ONNX files, and hold each to libtorch in ONNX Runtime: random input at several batches, then images.
///
/// The batch is dynamic. A file that differs is an error, is kept as FILE.unverified.onnx, and leaves alone what was at FILE.
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
    /// Write the outcome as a Markdown table, too.
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

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    exports: Vec<Exported>,
}

#[derive(Serialize)]
struct Exported {
    model: &'static str,
    file: String,
    weights: String,
    bytes: u64,
    /// Operators, all and by kind.
    nodes: usize,
    kinds: std::collections::BTreeMap<String, usize>,
    /// `null` with --no-verify.
    verification: Option<Verification>,
    error: Option<String>,
}

/// Exports every model, also those after one that fails; one failure makes the exit code 1.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let variants = model::variants(&arguments.models)?;
    let many = variants.len() > 1 || arguments.onnx.is_dir();
    if many {
        std::fs::create_dir_all(&arguments.onnx)
            .with_context(|| arguments.onnx.display().to_string())?;
    }
    let stop = stop_on_interrupt()?;
    let mut exports = Vec::new();
    let mut interrupted = false;
    for variant in variants {
        if stop.load(Ordering::Relaxed) {
            interrupted = true;
            break;
        }
        let path = match many {
            true => arguments.onnx.join(format!("{}.onnx", variant.name)),
            false => arguments.onnx.clone(),
        };
        let exported = export(arguments, variant, &path)
            .unwrap_or_else(|e| failed(variant, &path, &super::output::explain(&e)));
        if !arguments.json {
            print(line(&exported))?;
        }
        exports.push(exported);
        if let Some(table) = &arguments.table {
            std::fs::write(table, markdown(&exports))
                .with_context(|| table.display().to_string())?;
        }
    }
    let all_hold = exports.iter().all(|e| e.error.is_none());
    if arguments.json {
        print_json(&Report {
            schema: "zoo.export/1",
            exports,
        })?;
    }
    Ok(match (interrupted, all_hold) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Done,
        (false, false) => Exit::Failed,
    })
}

fn export(arguments: &Arguments, variant: &'static Variant, path: &Path) -> Result<Exported> {
    let session = arguments.run.open_in_libtorch(variant)?;
    let weights = arguments.run.source()?.identity()?;
    let settings = Settings {
        weights: weights.clone(),
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
        model: variant.name,
        file: path.display().to_string(),
        weights,
        bytes: std::fs::metadata(path)?.len(),
        nodes: file.nodes,
        kinds: file.kinds,
        verification,
        error: None,
    };
    if arguments.discard {
        std::fs::remove_file(path).with_context(|| path.display().to_string())?;
        exported.file = String::new();
    }
    Ok(exported)
}

fn failed(variant: &'static Variant, path: &Path, error: &str) -> Exported {
    Exported {
        model: variant.name,
        file: path.display().to_string(),
        weights: String::new(),
        bytes: 0,
        nodes: 0,
        kinds: std::collections::BTreeMap::new(),
        verification: None,
        error: Some(error.to_owned()),
    }
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
    let preprocessing = &session.variant().preprocessing;
    let images = Images {
        transform: model::transform(preprocessing),
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

fn line(e: &Exported) -> String {
    if let Some(error) = &e.error {
        return format!("{}: FAILED: {error}", e.model);
    }
    let mut line = format!(
        "{}: {} operators, {:.1} MB{}{}",
        e.model,
        e.nodes,
        e.bytes as f64 / 1e6,
        if e.file.is_empty() { "" } else { ", " },
        e.file
    );
    // Writing to a text can not fail.
    let _ = match &e.verification {
        Some(v) => write!(
            line,
            "; equal to libtorch within {:.1e} of the largest logit (batches {:?} of random input), same top-1 on {} of {} images",
            v.max_relative_difference, v.random_batches, v.same_top1, v.images
        ),
        None => write!(line, "; NOT verified"),
    };
    line
}

fn markdown(exports: &[Exported]) -> String {
    let mut lines = table(&["model", "operators", "MB", "max difference", "same top-1"]);
    lines.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    for e in exports {
        let verified = e.verification.as_ref();
        lines.add_row([
            e.model.to_owned(),
            e.nodes.to_string(),
            format!("{:.1}", e.bytes as f64 / 1e6),
            match (&e.error, verified) {
                (Some(error), _) => format!("FAILED: {error}"),
                (None, Some(v)) => format!("{:.1e}", v.max_relative_difference),
                (None, None) => "not verified".to_owned(),
            },
            verified.map_or(String::new(), |v| match v.images {
                0 => "takes no RGB images".to_owned(),
                images => format!("{} of {images}", v.same_top1),
            }),
        ]);
    }
    format!(
        "# The zoo's models as ONNX files\n\nWritten by `zoo export '*' --onnx DIR --table FILE` (zoo {}): each file is run by ONNX Runtime at \
         batches 1, 2, 5 and 8 of random input and on images, and compared with libtorch in float32. The difference is that of a \
         logit, relative to the largest of its batch.\n\n{lines}\n",
        env!("CARGO_PKG_VERSION")
    )
}
