//! The other commands end to end.

mod common;

use common::{goldens, run, stderr, stdout};
use serde_json::Value;
use tempfile::tempdir;

#[test]
fn list_filters_and_prints_json() {
    let folder = tempdir().unwrap();
    let table = stdout(&run(folder.path(), &["list", "shvit-s?"]));
    assert!(
        table.contains("shvit-s4") && !table.contains("shvit-s1-dist"),
        "{table}"
    );
    let json: Value =
        serde_json::from_str(&stdout(&run(folder.path(), &["list", "--json"]))).unwrap();
    assert_eq!(json["schema"], "zoo.list/1");
    let models = json["models"].as_array().unwrap();
    assert!(
        models
            .iter()
            .any(|m| m["name"] == "shvit-s1" && m["params"] == 6_330_808)
    );
}

#[test]
fn weights_go_out_under_timms_names_and_come_back() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    stdout(&run(
        folder,
        &[
            "weights",
            "convert",
            "formula:zoo:0.7",
            "timm.safetensors",
            "--model",
            "shvit-s1",
            "--names",
            "timm",
        ],
    ));
    let json = stdout(&run(
        folder,
        &["weights", "inspect", "timm.safetensors", "--json"],
    ));
    let inspected: Value = serde_json::from_str(&json).unwrap();
    let names: Vec<&str> = inspected["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 397);
    assert!(
        names.contains(&"stages.1.downsample.3.m.c.weight"),
        "{names:?}"
    );
    stdout(&run(
        folder,
        &[
            "weights",
            "convert",
            "timm.safetensors",
            "official.safetensors",
            "--model",
            "shvit-s1",
        ],
    ));
    stdout(&run(
        folder,
        &[
            "weights",
            "convert",
            "formula:zoo:0.7",
            "direct.safetensors",
            "--model",
            "shvit-s1",
        ],
    ));
    let tensors = |file: &str| -> Value {
        let json = stdout(&run(folder, &["weights", "inspect", file, "--json"]));
        serde_json::from_str::<Value>(&json).unwrap()["tensors"].clone()
    };
    assert_eq!(
        tensors("official.safetensors"),
        tensors("direct.safetensors")
    );
    let misfit = run(
        folder,
        &[
            "weights",
            "convert",
            "direct.safetensors",
            "x",
            "--model",
            "shvit-s2",
        ],
    );
    assert_eq!(misfit.status.code(), Some(1));
    let message = stderr(&misfit);
    assert!(
        message.contains("direct.safetensors") && message.contains("blocks2.1.conv3.bn.bias"),
        "{message}"
    );
    assert!(!folder.join("x").exists());
}

#[test]
fn verify_says_what_it_ran_and_fails_with_1() {
    let folder = tempdir().unwrap();
    let record = goldens().join("shvit_s1");
    let record = record.to_str().unwrap();
    let json = stdout(&run(
        folder.path(),
        &["verify", record, "--json", "--threads", "1"],
    ));
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&1.into(), &0.into())
    );
    let tight = run(
        folder.path(),
        &[
            "verify",
            record,
            "--dtype",
            "f32",
            "--tolerance",
            "1e-12",
            "--threads",
            "1",
        ],
    );
    assert_eq!(tight.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&tight.stdout).contains("logits"));

    std::fs::write(
        folder.path().join("a.json"),
        r#"{"name":"a","kind":"neuron","salt":"s","gain":1}"#,
    )
    .unwrap();
    let other = stdout(&run(folder.path(), &["verify", "."]));
    assert!(
        other.contains("neuron") && other.contains("1 not run"),
        "{other}"
    );
    std::fs::write(folder.path().join("b.json"), "{").unwrap();
    let broken = run(folder.path(), &["verify", "b.json"]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(stderr(&broken).contains("b.json"));
}

#[test]
fn info_counts_every_parameter_of_a_model() {
    let folder = tempdir().unwrap();
    let arguments = ["info", "shvit-s1", "--depth", "1", "--json"];
    let info: Value = serde_json::from_str(&stdout(&run(folder.path(), &arguments))).unwrap();
    assert_eq!(info["schema"], "zoo.info/1");
    assert_eq!(info["trainable"], info["params"]);
    assert_eq!(info["stages"][0]["size"], serde_json::json!([14, 14]));
    let table = stdout(&run(folder.path(), &arguments[..4]));
    assert!(table.contains("patch_embed") && table.contains("top-1"));
    let unknown = run(folder.path(), &["info", "shvit-s11"]);
    assert!(!unknown.status.success() && stderr(&unknown).contains("shvit-s1"));
}

#[test]
fn predict_reads_drawn_images_and_bench_times_them() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    stdout(&run(folder, &["draw", "set"]));
    let kind = std::fs::read_dir(folder.join("set"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let image = std::fs::read_dir(kind)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let image = image.to_str().unwrap();
    let json = stdout(&run(
        folder,
        &["predict", "shvit-s1", image, "--json", "--threads", "1"],
    ));
    let report: Value = serde_json::from_str(&json).unwrap();
    let top = report["predictions"][0]["top"].as_array().unwrap();
    assert_eq!(top.len(), 5);
    assert!(top[0]["name"].is_string() && report["trained"] == false);

    let predict = ["predict", "shvit-s1", image, "--json", "--threads", "1"];
    let features = stdout(&run(folder, &[&predict[..], &["--features"]].concat()));
    let report: Value = serde_json::from_str(&features).unwrap();
    let features = report["predictions"][0]["features"].as_array().unwrap();
    assert_eq!(features.len(), 320);

    let json = stdout(&run(
        folder,
        &[
            "bench",
            "shvit-s1",
            "--images",
            "set",
            "--batch",
            "1",
            "--rounds",
            "1",
            "--block",
            "0.05",
            "--max-load",
            "1000",
            "--threads",
            "1",
            "--json",
        ],
    ));
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["schema"], "zoo.bench/1");
    assert_eq!(report["input"]["kind"], "images");
    assert!(report["cases"][0]["stats"]["p50_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn without_cuda_the_remedy_is_named() {
    let folder = tempdir().unwrap();
    let output = run(
        folder.path(),
        &["predict", "shvit-s1", "x.jpg", "--device", "cuda"],
    );
    if output.status.success() {
        return;
    }
    let message = stderr(&output);
    assert!(
        message.contains("libtorch_cuda.so")
            || message.contains("no such device")
            || message.contains("x.jpg"),
        "{message}"
    );
}
