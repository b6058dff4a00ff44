//! ONNX graphs of the zoo's models, exported when first needed.

use super::model::ModelArguments;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use zoo::backbones::Variant;
use zoo::export::{Exporter, Settings};

/// The model's graph with these weights, as a file: verified when it was written, and kept for the next time.
pub fn exported(variant: &'static Variant, run: &ModelArguments) -> Result<PathBuf> {
    let weights = run.source(variant)?.identity()?;
    let path = cache_file(variant, run, &weights)?;
    if path.exists() {
        return Ok(path);
    }
    eprintln!("zoo: exporting {} to {}", variant.name, path.display());
    let plain = ModelArguments {
        engine: super::engine::EngineArguments {
            engine: None,
            ..run.engine.clone()
        },
        dtype: zoo::runtime::Precision::F32,
        device: zoo::runtime::Device::Cpu,
        ..run.clone()
    };
    let session = plain.open_in_libtorch(variant)?;
    if session.new_head() {
        bail!(
            "{}: the checkpoint's head has another width than --classes, and an untrained head is not exported",
            variant.name
        );
    }
    let settings = Settings {
        weights,
        preprocessing: Some(run.preprocessing(variant)),
        ..Settings::default()
    };
    // Written under a name of this process, so that another one never reads half a file.
    let own = path.with_extension(format!("{}.onnx", std::process::id()));
    Exporter::new(&session, settings)?.write_verified(&own, &mut std::iter::empty())?;
    std::fs::rename(&own, &path).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// `~/.cache/zoo/onnx/MODEL-HASH.onnx`; the hash is that of everything the graph depends on.
fn cache_file(variant: &Variant, run: &ModelArguments, weights: &str) -> Result<PathBuf> {
    let settings = format!(
        "{} {} {weights} {:?} {:?} {} {:?} {:?} {} {}",
        program(),
        variant.name,
        run.preprocessing(variant),
        run.classes,
        run.no_fuse,
        run.neuron,
        run.time_steps,
        run.time_form,
        run.encoding
    );
    let hash: String = Sha256::digest(settings.as_bytes())
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let folder = super::auto::cache_folder().join("onnx");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder.join(format!("{}-{hash}.onnx", variant.name)))
}

/// What tells this program from another build of it, whose graphs may be others.
fn program() -> String {
    let built = std::env::current_exe().and_then(std::fs::metadata);
    let built = built.and_then(|m| Ok((m.len(), m.modified()?)));
    format!("{} {:?}", env!("CARGO_PKG_VERSION"), built.ok())
}
