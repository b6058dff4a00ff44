//! ONNX graphs of the zoo's models, exported when an engine first needs them.

use super::auto::{cache_folder, short_hash};
use super::model::ModelArguments;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use zoo::backbones::Variant;
use zoo::graph::onnx::{OnnxOptions, export};
use zoo::runtime::{Device, OnnxPreprocessing, Options, PREPROCESSING_KEY, Precision, Session};

/// The metadata key of the weights' identity.
pub const WEIGHTS_KEY: &str = "zoo.weights";
/// The metadata key of the model's name.
pub const MODEL_KEY: &str = "zoo.model";

/// The model's graph with these weights, as a file of the cache.
pub fn exported(variant: &'static Variant, run: &ModelArguments) -> Result<PathBuf> {
    let source = run.source()?;
    let identity = source.identity()?;
    let path = cached(variant, run, &identity)?;
    if path.is_file() {
        return Ok(path);
    }
    let options = Options {
        device: Device::Cpu,
        precision: Precision::F32,
        ..run.options()
    };
    let session = Session::open(variant, &source, &options)?;
    if session.new_head() {
        bail!(
            "{}: the checkpoint's head has another width than --classes, and an untrained head is not exported",
            variant.name
        );
    }
    let onnx = OnnxOptions {
        name: variant.name.to_owned(),
        description: format!("{} with {identity}", variant.name),
        outputs: vec!["logits".to_owned()],
        metadata: metadata(variant, &identity)?,
        ..OnnxOptions::default()
    };
    let (height, width) = variant.preprocessing.size;
    let trace = session.trace([height as i64, width as i64])?;
    let folder = path.parent().context("a folder for exported graphs")?;
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    // Under another name until it is complete; weights that are too large for one file lie beside it under that name.
    let part = folder.join(format!("{}.part.onnx", std::process::id()));
    let written =
        export(&trace, &onnx, &part).with_context(|| format!("exporting {}", variant.name))?;
    let data = part.with_extension("onnx.data");
    if data.exists() {
        bail!(
            "{}: graphs with weights beyond 2 GB are not kept: export it to a file and give that",
            variant.name
        );
    }
    std::fs::rename(&part, &path).with_context(|| path.display().to_string())?;
    eprintln!(
        "zoo: exported {}: {} operators, in {}",
        variant.name,
        written.nodes,
        path.display()
    );
    Ok(path)
}

/// What travels with the graph of a model of the zoo.
pub fn metadata(variant: &Variant, identity: &str) -> Result<BTreeMap<String, String>> {
    let preprocessing = OnnxPreprocessing::from(&variant.preprocessing);
    Ok(BTreeMap::from([
        (MODEL_KEY.to_owned(), variant.name.to_owned()),
        (WEIGHTS_KEY.to_owned(), identity.to_owned()),
        (
            PREPROCESSING_KEY.to_owned(),
            serde_json::to_string(&preprocessing)?,
        ),
        (
            "zoo.version".to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
    ]))
}

/// `onnx/MODEL-HASH.onnx` in the cache: one file for each program, model, weights and head.
fn cached(variant: &Variant, run: &ModelArguments, identity: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().and_then(std::fs::metadata)?;
    let built = program
        .modified()
        .ok()
        .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    let built = built.map_or(0, |since| since.as_secs());
    let key = format!(
        "{built} {} {identity} {:?} {}",
        program.len(),
        run.classes,
        run.no_fuse
    );
    let name = format!("{}-{}.onnx", variant.name, short_hash(key.as_bytes()));
    Ok(cache_folder().join("onnx").join(name))
}
