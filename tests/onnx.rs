//! The zoo's models as ONNX files: every family is written, run by ONNX Runtime and held to libtorch.

use std::collections::BTreeMap;
use std::path::Path;
use zoo::backbones::{InputForm, Variant, variants};
use zoo::export::{Exporter, Settings, Verification};
use zoo::runtime::{OnnxFile, Options, Session, WeightsSource};

/// Sides of the input, the smallest that a model takes of these: the graphs' form does not depend on them.
const SIDES: [i64; 4] = [64, 128, 192, 224];

fn open(variant: &'static Variant, weights: &str, size: [i64; 2]) -> Session {
    let options = Options {
        threads: Some(1),
        size: Some(size),
        ..Options::default()
    };
    let weights: WeightsSource = weights.parse().unwrap();
    Session::open(variant, &weights, &options).unwrap_or_else(|e| panic!("{}: {e}", variant.name))
}

/// Traced at the smallest size that the model takes, and written.
fn export(
    variant: &'static Variant,
    weights: &str,
    path: &Path,
) -> Result<(BTreeMap<String, usize>, Verification), String> {
    let published = variant.build_options().size;
    let small = SIDES.map(|side| [side, side]);
    let smaller = small.into_iter().filter(|s| s[0] < published[0]);
    for size in smaller.chain([published]) {
        let session = open(variant, weights, size);
        let size = match session.input_form() {
            InputForm::Images => size,
            _ => published,
        };
        let settings = Settings {
            size: Some(size),
            ..Settings::default()
        };
        let Ok(exporter) = Exporter::new(&session, settings) else {
            continue;
        };
        let (file, held) = exporter
            .write_verified(path, &[])
            .map_err(|e| e.to_string())?;
        return Ok((file.kinds, held));
    }
    Err("no size is taken".to_owned())
}

/// The smallest variant of each family; STEP's models are families of their own.
fn families() -> Vec<&'static Variant> {
    let mut smallest: BTreeMap<String, &'static Variant> = BTreeMap::new();
    for variant in variants() {
        let parts = if variant.family == "step" { 2 } else { 0 };
        let own: Vec<&str> = variant.name.split('-').take(parts).collect();
        let family = format!("{} {}", variant.family, own.join("-"));
        let known = smallest.entry(family).or_insert(variant);
        if variant.params < known.params {
            *known = variant;
        }
    }
    smallest.into_values().collect()
}

#[test]
fn every_family_is_written_and_agrees_with_libtorch() {
    let folder = tempfile::tempdir().unwrap();
    let mut failed = Vec::new();
    for variant in families() {
        let path = folder.path().join(format!("{}.onnx", variant.name));
        match export(variant, "formula:zoo:0.7", &path) {
            Err(e) => failed.push(format!("{}: {e}", variant.name)),
            Ok((kinds, held)) => {
                eprintln!("{}: {held:?}", variant.name);
                // The batch is read off the input once at most; no other shape is.
                let shapes = kinds.get("Shape").copied().unwrap_or(0);
                if shapes > 1 || held.inputs != 16 {
                    failed.push(format!("{}: {kinds:?}, {held:?}", variant.name));
                }
                if let Err(e) = OnnxFile::read(&path) {
                    failed.push(e.to_string());
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
