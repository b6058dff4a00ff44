//! Counted work and estimated energy: records that do not hold are found out; the command end to end.

mod common;

use common::{goldens, run, stderr, stdout};
use serde_json::Value;
use std::path::Path;
use tempfile::tempdir;
use zoo::runtime::Precision;
use zoo::verify::{Check, Outcome, Record, verify};

/// The record of spikformer's work with something changed, beside the record of its model.
fn changed(change: impl FnOnce(&mut Value)) -> Outcome {
    let folder = tempdir().unwrap();
    let model = "step_spikformer_cifar.json";
    std::fs::copy(goldens().join(model), folder.path().join(model)).unwrap();
    let name = "step_energy_spikformer_cifar.json";
    let text = std::fs::read_to_string(goldens().join(name)).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    change(&mut json);
    let path = folder.path().join(name);
    std::fs::write(&path, json.to_string()).unwrap();
    let mut check = Check::new(Precision::F64);
    check.options.threads = Some(1);
    verify(&Record::open(&path).unwrap(), &check).unwrap()
}

#[test]
fn one_operation_more_is_found_out() {
    let outcome = changed(|json| {
        let macs = json["layers"][3]["macs"].as_u64().unwrap();
        json["layers"][3]["macs"] = (macs + 1).into();
    });
    let failures = format!("{:?}", outcome.failures);
    assert_eq!(outcome.failures.len(), 2, "{failures}");
    assert!(failures.contains("layers.macs"), "{failures}");
}

#[test]
fn one_spike_more_is_found_out() {
    let outcome = changed(|json| {
        let spikes = json["totals"]["spikes_nonzero"].as_f64().unwrap();
        json["totals"]["spikes_nonzero"] = (spikes + 1.0).into();
    });
    let failures = format!("{:?}", outcome.failures);
    assert!(failures.contains("totals.spikes_nonzero"), "{failures}");
}

#[test]
fn a_layer_that_is_not_recorded_is_named() {
    let outcome = changed(|json| {
        json["layers"].as_array_mut().unwrap().remove(5);
        json["neurons"][0]["layer"] = "nowhere".into();
    });
    let failures = format!("{:?}", outcome.failures);
    for name in [
        "layer of block.0.attn.q_linear",
        "neurons of nowhere",
        "neurons of patch_embed.proj_lif",
    ] {
        assert!(failures.contains(name), "{name}: {failures}");
    }
}

fn energy(folder: &Path, arguments: &[&str]) -> Value {
    let all = [&["energy", "--threads", "1", "--json"], arguments].concat();
    serde_json::from_str(&stdout(&run(folder, &all))).unwrap()
}

/// MACs as the official modules have them: torch's flop counter / 2, attention included.
#[test]
fn ordinary_models_have_the_macs_of_their_papers() {
    let folder = tempdir().unwrap();
    for (model, giga) in [
        ("shvit-s1", 0.2413),
        ("vit-s", 4.599),
        ("biformer-t", 2.22),
        ("sparsifiner-tiny", 1.342),
    ] {
        let report = energy(folder.path(), &[model, "--limit", "1"]);
        let macs = report["macs_per_step"].as_f64().unwrap() / 1e9;
        assert!((macs / giga - 1.0).abs() < 2.5e-3, "{model}: {macs}");
        assert!(report["firing_rate"].is_null());
        assert!(report["neurons"].as_array().unwrap().is_empty());
    }
}

#[test]
fn a_spiking_model_has_rates_and_energies_with_their_constants() {
    let folder = tempdir().unwrap();
    let model = [
        "step-spikformer-cifar",
        "--weights",
        "formula:zoo:3",
        "--limit",
        "3",
        "--batch",
        "2",
    ];
    let report = energy(folder.path(), &model);
    assert_eq!(report["schema"], "zoo.energy/1");
    assert_eq!(
        (&report["images"], &report["steps"]),
        (&3.into(), &4.into())
    );
    // 3.74 G over 4 steps; the classifier runs once.
    assert_eq!(report["macs"], (7_472_291_328u64 / 2) as f64);
    assert_eq!(report["neuron_updates"], (11_599_872 / 2) as f64);
    let rate = report["firing_rate"].as_f64().unwrap();
    assert!((0.05..0.5).contains(&rate), "{rate}");
    let sops = report["sops"].as_f64().unwrap();
    assert!(sops < report["macs"].as_f64().unwrap() / 2.0);
    let estimates = report["estimates"].as_array().unwrap();
    let step = estimates.iter().find(|e| e["model"] == "step").unwrap();
    let state = step["energy"]["state_pj"].as_f64().unwrap();
    assert!((state / (3.12 * 64.0 * 5_799_936.0) - 1.0).abs() < 1e-12);
    for estimate in estimates {
        assert!(!estimate["constants"].as_array().unwrap().is_empty());
        assert!(!estimate["definition"].as_str().unwrap().is_empty());
    }
    let text = stdout(&run(
        folder.path(),
        &[&["energy", "--threads", "1"], &model[..]].concat(),
    ));
    assert!(
        text.contains("block.0.attn.q_lif") && text.contains("Horowitz"),
        "{text}"
    );
}

#[test]
fn events_are_refused_where_images_are_taken() {
    let folder = tempdir().unwrap();
    let output = run(
        folder.path(),
        &["energy", "shvit-s1", "--events", "a.aedat"],
    );
    assert!(!output.status.success());
    assert!(stderr(&output).contains("--images"), "{}", stderr(&output));
}

/// Accuracy, firing rates and energy in one report.
#[test]
fn eval_reports_the_energy_of_spiking_models() {
    let folder = tempdir().unwrap();
    // Two images in CIFAR-10's binary form: a label, then three planes of 32 x 32.
    let image = |label: u8| {
        let pixels = (0..3072u32).map(move |i| (i * 37 % 251) as u8);
        std::iter::once(label).chain(pixels)
    };
    let bytes: Vec<u8> = image(1).chain(image(7)).collect();
    std::fs::write(folder.path().join("test_batch.bin"), bytes).unwrap();
    let eval = |model: &str| -> Value {
        let arguments = [
            "eval",
            model,
            "--cifar10",
            "test_batch.bin",
            "--weights",
            "formula:zoo:3",
            "--json",
            "--threads",
            "1",
        ];
        serde_json::from_str(&stdout(&run(folder.path(), &arguments))).unwrap()
    };
    let report = &eval("step-spikformer-cifar")[0];
    assert_eq!(report["labelled"], 2);
    assert_eq!(report["energy"]["images"], 2);
    assert!(report["energy"]["firing_rate"].as_f64().unwrap() > 0.0);
    assert!(eval("ninformer-cifar10")[0].get("energy").is_none());
}
