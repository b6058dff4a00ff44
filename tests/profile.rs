//! `zoo profile`, end to end.

mod common;

use common::{figures, run, stderr, stdout};
use serde_json::Value;
use std::path::Path;
use tempfile::tempdir;

fn profile(folder: &Path, arguments: &[&str]) -> Value {
    let all = [&["profile", "--threads", "1", "--json"], arguments].concat();
    serde_json::from_str(&stdout(&run(folder, &all))).unwrap()
}

fn sum(rows: &Value, field: &str) -> u64 {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row[field].as_u64().unwrap()).sum()
}

#[test]
fn claimed_counted_and_executed_macs_and_tables_that_add_up() {
    let folder = tempdir().unwrap();
    let report = profile(
        folder.path(),
        &[
            "shvit-s1", "--batch", "2", "--limit", "2", "--depth", "1", "--energy",
        ],
    );
    assert_eq!(report["schema"], "zoo.profile/1");
    assert_eq!(report["complete"], true);
    assert_eq!(report["params"], 6_330_808);
    let total = &report["total"];
    for field in ["macs", "elementwise", "read", "written"] {
        assert!(total[field].as_u64().unwrap() > 0);
        assert_eq!(
            sum(&report["layers"], field),
            total[field],
            "layers, {field}"
        );
        assert_eq!(sum(&report["kinds"], field), total[field], "kinds, {field}");
        assert_eq!(
            report["modules"][0][field], total[field],
            "modules, {field}"
        );
    }
    let macs = &report["macs_of_an_image"];
    let counted = macs["counted"].as_f64().unwrap();
    assert_eq!(2.0 * counted, total["macs"].as_f64().unwrap());
    assert_eq!(macs["claimed"]["macs"], 0.241e9);
    assert_eq!(macs["executed"]["images"], 2);
    let executed = macs["executed"]["macs"].as_f64().unwrap();
    assert!(
        (executed / counted - 1.0).abs() < 1e-3,
        "{executed} of {counted}"
    );
    let modules = macs["modules"].as_array().unwrap();
    assert_eq!(modules[0]["counted"], macs["counted"]);
    assert_eq!(modules[0]["executed"]["macs"], macs["executed"]["macs"]);
    let inside = modules.iter().filter(|m| m["depth"] == 1);
    let inside: f64 = inside
        .map(|m| m["executed"]["macs"].as_f64().unwrap())
        .sum();
    assert_eq!(inside, executed);
    assert_eq!(report["energy"]["counts"], "graph");
    // Which of the two, the machine decides.
    let measured = &report["energy"]["measured"];
    assert_eq!(measured["batch"], 2);
    match measured["kind"].as_str() {
        Some("measured") => assert!(measured["joules_per_call"].as_f64().unwrap() > 0.0),
        Some("unavailable") => assert!(measured["reason"].as_str().unwrap().len() > 10),
        other => panic!("{other:?}"),
    }
    let estimates = report["energy"]["estimates"].as_array().unwrap();
    let float = estimates
        .iter()
        .find(|e| e["model"] == "quantized" && e["row"] == "float32")
        .unwrap();
    assert_eq!(float["operations"]["macs"], counted);
    assert!(float["constants"][0]["source"].is_string());
}

#[test]
fn work_that_is_skipped_shows_beside_the_graph() {
    let folder = tempdir().unwrap();
    let report = profile(folder.path(), &["sparsifiner-t", "--limit", "1"]);
    let executed = &report["macs_of_an_image"]["executed"];
    let (done, dense) = (
        executed["macs"].as_f64().unwrap(),
        executed["dense"].as_f64().unwrap(),
    );
    assert!(done < dense, "{done} of {dense}");
    assert_eq!(executed["form"], "fused");
    assert_eq!(executed["trained"], false);
    let modules = report["macs_of_an_image"]["modules"].as_array().unwrap();
    let of = |path: &str| &modules.iter().find(|m| m["path"] == path).unwrap()["executed"];
    assert_eq!(of("head")["macs"], of("head")["dense"]);
    let block = of("blocks.0");
    assert!(block["macs"].as_f64() < block["dense"].as_f64());
    let figure = |field: &str| of("blocks")[field].as_f64().unwrap();
    assert_eq!(
        figure("dense") - figure("macs"),
        dense - done,
        "blocks skip"
    );

    let report = profile(
        folder.path(),
        &[
            "step-sdt-cifar",
            "--weights",
            "formula:zoo:4",
            "--limit",
            "1",
            "--energy",
        ],
    );
    let executed = &report["macs_of_an_image"]["executed"];
    let rate = executed["firing_rate"].as_f64().unwrap();
    assert!(0.0 < rate && rate < 1.0);
    assert!(executed["nonzero"].as_f64().unwrap() < executed["macs"].as_f64().unwrap());
    assert_eq!(report["energy"]["counts"], "images");
    assert!(report["energy"]["sops"].as_f64().unwrap() > 0.0);
}

#[test]
fn text_says_what_is_estimated_and_graphs_are_written() {
    let folder = tempdir().unwrap();
    for (file, part) in [
        ("g.txt", "aten::linear("),
        ("g.json", "\"nodes\":["),
        ("g.dot", "digraph model"),
        ("g.mmd", "flowchart TD"),
    ] {
        let arguments = [
            "profile",
            "activator-cifar10",
            "--limit",
            "0",
            "--graph",
            file,
        ];
        let text = stdout(&run(folder.path(), &arguments));
        assert!(text.contains("claimed   nothing known") && !text.contains("executed"));
        let written = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(written.contains(part), "{file}");
    }
    for by in ["layer", "kind"] {
        let arguments = ["profile", "activator-cifar10", "--by", by, "--energy"];
        let text = stdout(&run(folder.path(), &arguments));
        assert!(
            text.contains("ESTIMATED") && text.contains("layer_norm"),
            "{text}"
        );
    }
}

#[test]
fn another_size_is_counted_and_nothing_is_claimed_of_it() {
    let folder = tempdir().unwrap();
    let of = |size| {
        profile(
            folder.path(),
            &["shvit-s1", "--limit", "0", "--input-size", size],
        )
    };
    let (small, large) = (of("128x128"), of("256x256"));
    let head = profile(
        folder.path(),
        &["shvit-s1", "--limit", "0", "--classes", "5"],
    );
    assert_eq!(head["macs_of_an_image"]["claimed"], Value::Null);
    assert_eq!(small["macs_of_an_image"]["claimed"], Value::Null);
    assert_eq!(small["input"], serde_json::json!([128, 128]));
    let counted = |report: &Value| report["macs_of_an_image"]["counted"].as_f64().unwrap();
    assert!(counted(&large) > 3.5 * counted(&small));
}

#[test]
fn a_table_is_held_to_figures() {
    let folder = tempdir().unwrap();
    let figures = figures().join("macs.json");
    let figures = figures.to_str().unwrap();
    let table = |against: &str| {
        let models = ["profile", "activator-*", "--threads", "1"];
        run(
            folder.path(),
            &[&models[..], &["--table", "t.md", "--against", against]].concat(),
        )
    };
    stdout(&table(figures));
    let text = std::fs::read_to_string(folder.path().join("t.md")).unwrap();
    assert_eq!(text.matches("| activator-").count(), 4, "{text}");
    assert!(text.contains("168.6 M"), "{text}");

    let wrong = std::fs::read_to_string(figures)
        .unwrap()
        .replace("168.6 M", "170.0 M");
    std::fs::write(folder.path().join("wrong.json"), wrong).unwrap();
    let output = table("wrong.json");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("DIFFERS"));
}

#[test]
fn what_can_not_be_done_says_so() {
    let folder = tempdir().unwrap();
    let output = run(folder.path(), &["profile", "shvit-s?"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--table"));
    let model = ["profile", "activator-cifar10"];
    for (arguments, what) in [
        (["--limit=0", "--graph=g.png"], ".mmd"),
        (["--limit=1", "--images=nowhere"], "nowhere"),
        (["--limit=1", "--images=."], "no images here"),
        (["--limit=1", "--engine=ort"], "leave --engine away"),
    ] {
        let output = run(folder.path(), &[&model[..], &arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(what), "{}", stderr(&output));
    }
    let arguments = ["profile", "step-tim", "--limit", "1", "--images", "."];
    let output = run(folder.path(), &arguments);
    assert!(
        stderr(&output).contains("leave --images away"),
        "{}",
        stderr(&output)
    );
}
