//! The zoo's models as ONNX files: every family is written, run by ONNX Runtime and held to libtorch.

mod common;

use common::{stderr, stdout, zoo};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use zoo::backbones::{InputForm, Variant, variants};
use zoo::export::{self, Exporter, Settings, Verification};
use zoo::runtime::{OnnxFile, Options, Session, WeightsSource};

/// Sides of the input, the smallest that a model takes of these: the graphs' form does not depend on them.
const SIDES: [i64; 4] = [64, 128, 192, 224];

/// An input of this one takes 46 billion multiply-accumulates.
const LARGE: &str = "step-spt-modelnet40";

fn open(
    variant: &'static Variant,
    weights: &str,
    size: [i64; 2],
) -> Result<Session, Box<export::Error>> {
    let options = Options {
        threads: Some(1),
        size: Some(size),
        ..Options::default()
    };
    let weights: WeightsSource = weights.parse().unwrap();
    Session::open(variant, &weights, &options).map_err(|e| Box::new(e.into()))
}

/// With weights that suit it; `None` where the model does not take the size.
fn suited(variant: &'static Variant, size: [i64; 2]) -> Option<Session> {
    let chosen = export::choose(
        false,
        |weights| open(variant, weights, size),
        |session| Ok(export::random_inputs(session, 2)),
    );
    Some(chosen.ok().flatten()?.session)
}

/// Traced at the smallest size that the model takes, and written.
fn export(
    variant: &'static Variant,
    path: &Path,
    budget: Option<Duration>,
) -> Result<(BTreeMap<String, usize>, Verification), String> {
    let published = variant.build_options().size;
    let small = SIDES.map(|side| [side, side]);
    // Of points and sequences, the published height is 1.
    let smaller = small.into_iter().filter(|s| s[0] < published[0]);
    for size in smaller.chain([published]) {
        let Some(session) = suited(variant, size) else {
            continue;
        };
        let settings = Settings {
            budget,
            ..Settings::default()
        };
        let Ok(exporter) = Exporter::new(&session, settings) else {
            continue;
        };
        let (file, held) = exporter
            .write_verified(path, &mut std::iter::empty())
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

/// Failures are collected, so that one run names them all.
fn hold(models: Vec<&'static Variant>, budget: Option<Duration>, inputs: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut failed = Vec::new();
    for variant in models {
        let path = folder.path().join(format!("{}.onnx", variant.name));
        match export(variant, &path, budget) {
            Err(e) => failed.push(format!("{}: {e}", variant.name)),
            Ok((kinds, held)) => {
                eprintln!("{}: {held:?}", variant.name);
                // The batch is read off the input once at most; no other shape is.
                let shapes = kinds.get("Shape").copied().unwrap_or(0);
                if shapes > 1 || held.inputs != inputs {
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

#[test]
fn every_family_is_written_and_agrees_with_libtorch() {
    let mut models = families();
    models.retain(|v| v.name != LARGE);
    hold(models, None, 16);
}

/// In batches of 1 and 2 alone.
#[test]
fn the_largest_is_written_and_agrees_with_libtorch() {
    let large = zoo::backbones::find(LARGE).unwrap();
    assert!(families().iter().any(|v| v.name == LARGE));
    hold(vec![large], Some(Duration::ZERO), 3);
}

/// The command: several processes, weights apart, a table between its marks.
#[test]
fn several_models_are_exported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let table = folder.join("table.md");
    let marks = "<!-- table: begin --><!-- table: end -->";
    std::fs::write(&table, format!("# Mine\n\n{marks}\nstays\n")).unwrap();
    let models = ["activator-only-geglu-cifar10", "ninformer-mnist"];
    let small = zoo(folder)
        .args([
            "export",
            "shvit-s1",
            "--input-size=64x96",
            "--onnx=not/there/small.onnx",
        ])
        .args(["--no-verify", "--threads=1", "--table=table.md"])
        .output()
        .unwrap();
    assert!(small.status.success(), "{}", stderr(&small));
    assert!(folder.join("not/there/small.onnx").is_file());
    assert!(stdout(&small).contains("weights formula:zoo:0.7"));
    let output = zoo(folder)
        .arg("export")
        .args(models)
        .args(["--onnx=out", "--jobs=2", "--threads=1", "--limit=3"])
        .args(["--external-data", "--table=table.md", "--json"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["schema"], "zoo.export/1");
    for (model, exported) in models.iter().zip(report["exports"].as_array().unwrap()) {
        assert_eq!(exported["model"], *model);
        assert_eq!(exported["error"], Value::Null, "{exported}");
        assert_eq!(exported["verification"]["other_top1"], 0, "{exported}");
        for end in ["onnx", "onnx.data"] {
            assert!(
                folder.join(format!("out/{model}.{end}")).is_file(),
                "{model}.{end}"
            );
        }
    }
    // Three of the drawn images; a model of grey digits takes none.
    assert_eq!(report["exports"][0]["verification"]["images"], 3);
    assert_eq!(report["exports"][1]["verification"]["images"], 0);
    let table = std::fs::read_to_string(table).unwrap();
    assert!(table.starts_with("# Mine") && table.ends_with("stays\n"));
    assert!(models.iter().all(|model| table.contains(model)), "{table}");
    assert!(table.contains("| shvit-s1 64x96 |"), "{table}");
}

/// Equal logits of a model that gives the same ones for everything prove nothing.
#[test]
fn weights_that_tell_nothing_apart_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let output = zoo(folder)
        .args(["export", "activator-only-geglu-cifar10", "--onnx=a.onnx"])
        .args(["--threads=1", "--limit=1", "--weights=formula:zoo:1e-6"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        told.contains("FAILED") && told.contains("--weights"),
        "{told}"
    );
    assert!(!folder.join("a.onnx").exists() && folder.join("a.unverified.onnx").exists());
}

/// One model that fails stops no other one, and the table has all of them.
#[test]
fn a_model_that_fails_stops_no_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let weights = folder.join("mnist.safetensors");
    let written = zoo(folder)
        .args(["weights", "convert", "formula", "mnist.safetensors"])
        .args(["--model", "ninformer-mnist"])
        .output()
        .unwrap();
    assert!(
        written.status.success() && weights.exists(),
        "{}",
        stderr(&written)
    );
    let output = zoo(folder)
        .args(["export", "activator-only-geglu-cifar10", "ninformer-mnist"])
        .args(["--onnx=out/", "--jobs=2", "--threads=1", "--limit=1"])
        .args(["--weights=mnist.safetensors", "--table=table.md"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let table = std::fs::read_to_string(folder.join("table.md")).unwrap();
    let row = |name: &str| table.lines().find(|line| line.contains(name)).unwrap();
    assert!(
        row("activator-only-geglu-cifar10").contains("FAILED"),
        "{table}"
    );
    assert!(!row("ninformer-mnist").contains("FAILED"), "{table}");
    assert!(folder.join("out/ninformer-mnist.onnx").is_file());
}

/// A file whose input is no RGB image runs on random input, and is refused where images would be read.
#[test]
fn a_file_of_grey_digits_is_timed_and_takes_no_images() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let exported = zoo(folder)
        .args([
            "export",
            "ninformer-mnist",
            "--onnx=digits.onnx",
            "--threads=1",
        ])
        .output()
        .unwrap();
    assert!(exported.status.success(), "{}", stderr(&exported));
    let timed = zoo(folder)
        .args([
            "bench",
            "digits.onnx",
            "--batch=1",
            "--rounds=1",
            "--block=0.02",
        ])
        .args(["--max-load=1000", "--energy=0", "--threads=1", "--json"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_str(&stdout(&timed)).unwrap();
    assert_eq!(report["subjects"][0]["input"][0], 1, "{report}");
    let refused = zoo(folder)
        .args(["predict", "digits.onnx", "x.png", "--threads=1"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let told = stderr(&refused);
    assert!(
        told.contains("digits") && told.contains("1 channels"),
        "{told}"
    );
}

/// Inputs of another form and another size, and half precision.
#[test]
fn forms_sizes_and_half_precision_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    let held = |name: &str, weights: &str, size: Option<[i64; 2]>, settings: Settings| {
        let variant = zoo::backbones::find(name).unwrap();
        let size = size.unwrap_or(variant.build_options().size);
        let session = open(variant, weights, size).unwrap();
        let exporter = Exporter::new(&session, settings).unwrap();
        let (_, held) = exporter
            .write_verified(&path, &mut std::iter::empty())
            .unwrap();
        (held, OnnxFile::read(&path).unwrap())
    };
    let half = Settings {
        half: true,
        ..Settings::default()
    };
    let (verification, file) = held("resnet-50", "formula:zoo:0.9", Some([64, 32]), half);
    // It was computed in another format, and the size is stated.
    assert!(
        verification.max_relative_difference > 1e-5,
        "{verification:?}"
    );
    assert_eq!(file.size(), Some((64, 32)));
    assert_eq!(file.preprocessing().unwrap().size, (64, 32));
    let (_, file) = held("step-tim", "formula:zoo:3", None, Settings::default());
    assert!(matches!(
        file.form(),
        InputForm::Frames { .. } | InputForm::Clips { .. }
    ));
    assert_eq!(file.shape().len(), 5);
}
