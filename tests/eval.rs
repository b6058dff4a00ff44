//! `zoo eval` end to end: the right figures, and the same report however a run was cut.

mod common;

use common::{goldens, run, stderr, stdout, test_data, zoo};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::tempdir;

/// A run small enough for a test: the drawn set, one thread each.
const DRAWN: &[&str] = &[
    "eval",
    "shvit-s1",
    "--imagenet",
    "--threads",
    "1",
    "--workers",
    "1",
    "--batch",
    "8",
    "--json",
];

fn without_timings(json: &str) -> Value {
    let mut reports: Value = serde_json::from_str(json).unwrap();
    for report in reports.as_array_mut().unwrap() {
        let report = report.as_object_mut().unwrap();
        assert!(report.remove("timings").is_some());
    }
    reports
}

fn with<'a>(base: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [base, more].concat()
}

fn lines(journal: &Path) -> usize {
    std::fs::read_to_string(journal).map_or(0, |text| text.lines().count())
}

/// Starts a run and waits until its journal holds some batches.
fn start_and_wait(folder: &Path, batches: usize) -> std::process::Child {
    let mut child = zoo(folder)
        .args(with(DRAWN, &["--journal", "j"]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while lines(&folder.join("j")) < 1 + batches {
        assert!(started.elapsed() < Duration::from_secs(300), "no progress");
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn killed_interrupted_and_sharded_runs_end_in_the_same_report() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let whole = without_timings(&stdout(&run(folder, DRAWN)));
    assert_eq!(whole[0]["images"], 192);
    assert_eq!(whole[0]["trained"], false);

    let mut child = start_and_wait(folder, 3);
    child.kill().unwrap();
    child.wait().unwrap();
    let killed_at = lines(&folder.join("j"));
    assert!((4..25).contains(&killed_at), "{killed_at} lines");

    let mut child = start_and_wait(folder, killed_at + 2);
    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));

    let resumed = run(folder, &with(DRAWN, &["--journal", "j"]));
    assert_eq!(without_timings(&stdout(&resumed)), whole);

    for shard in ["1/2", "2/2"] {
        let journal = format!("s{}", &shard[..1]);
        stdout(&run(
            folder,
            &with(DRAWN, &["--shard", shard, "--journal", &journal]),
        ));
    }
    let merged = run(folder, &["merge", "s1", "s2", "--json"]);
    assert_eq!(without_timings(&stdout(&merged)), whole);

    let missing = run(folder, &["merge", "s1"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("2/2"), "{}", stderr(&missing));

    let other = run(
        folder,
        &with(DRAWN, &["--journal", "s1", "--dtype", "bf16"]),
    );
    assert_eq!(other.status.code(), Some(1));
    assert!(stderr(&other).contains("--fresh"), "{}", stderr(&other));
}

#[test]
fn the_sample_gives_the_recorded_logits() {
    let Some(data) = test_data() else { return };
    let folder = tempdir().unwrap();
    let images = data.join("imagenet-sample");
    let output = run(
        folder.path(),
        &[
            "eval",
            "shvit-s1",
            "--imagenet",
            images.to_str().unwrap(),
            "--weights",
            "formula:zoo:0.7",
            "--dtype",
            "f64",
            "--threads",
            "1",
            "--workers",
            "1",
            "--batch",
            "8",
            "--predictions",
            "p.jsonl",
            "--json",
        ],
    );
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let golden: Value = serde_json::from_str(
        &std::fs::read_to_string(goldens().join("eval/shvit_s1_imagenet_sample.json")).unwrap(),
    )
    .unwrap();
    let loss = report[0]["mean_loss"].as_f64().unwrap();
    assert!((loss - golden["mean_nll"].as_f64().unwrap()).abs() < 1e-6);
    assert_eq!(report[0]["top1"]["correct"], golden["top1"]);
    assert_eq!(report[0]["top5"]["correct"], golden["top5"]);
    let predictions = std::fs::read_to_string(folder.path().join("p.jsonl")).unwrap();
    let rows: Vec<Value> = predictions
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let expected = golden["rows"].as_array().unwrap();
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(expected) {
        compare_row(row, expected);
    }
}

/// Labels equal; logits within 1e-6 (the record has six decimals); top-5 equal but for ties below 1e-5.
fn compare_row(row: &Value, expected: &Value) {
    let file = expected["file"].as_str().unwrap();
    assert!(row["id"].as_str().unwrap().ends_with(file));
    assert_eq!(row["label"], expected["label"], "{file}");
    let scored = &row["result"]["scored"];
    let floats = |v: &Value| -> Vec<f64> {
        let values = v.as_array().unwrap().iter();
        values.map(|x| x.as_f64().unwrap()).collect()
    };
    let (ours, theirs) = (floats(&scored["logits"]), floats(&expected["logits"]));
    for (a, b) in ours.iter().zip(&theirs) {
        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{file}: {a} {b}");
    }
    let tied = theirs.windows(2).any(|w| w[0] - w[1] < 1e-5)
        || expected["margin_top5"].as_f64().unwrap() < 1e-5;
    if !tied {
        assert_eq!(scored["top"], expected["top5"], "{file}");
    }
}

#[test]
fn cifar10_records_are_evaluated_and_other_data_is_refused() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let records: Vec<u8> = (0..5u8)
        .flat_map(|label| {
            std::iter::once(label).chain((0..3072).map(move |i| (i % 251) as u8 ^ label))
        })
        .collect();
    std::fs::write(folder.join("test_batch.bin"), records).unwrap();
    let run_on = |path: &str| {
        let arguments = [
            "eval",
            "activator-cifar10",
            "--cifar10",
            path,
            "--threads",
            "1",
            "--json",
        ];
        run(folder, &arguments)
    };
    let reports: Value = serde_json::from_str(&stdout(&run_on("."))).unwrap();
    assert_eq!(reports[0]["images"], 5);
    std::fs::write(folder.join("x.bin"), [1; 4000]).unwrap();
    let refused = run_on("x.bin");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("x.bin"), "{}", stderr(&refused));
}

#[test]
fn bad_input_is_named_and_ends_with_1() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("notes.txt"), "no image").unwrap();
    std::fs::write(folder.join("bad.pth"), "<html>not found</html>").unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["eval", "shvit-s9", "--imagenet"],
            &["shvit-s9", "shvit-s1"],
        ),
        (&["eval", "shvit-s1", "--imagenet", "nowhere"], &["nowhere"]),
        (&["eval", "shvit-s1", "--imagenet", "."], &["image"]),
        (
            &["eval", "shvit-s1", "--weights", "bad.pth"],
            &["bad.pth", "HTML"],
        ),
        (
            &["eval", "shvit-s1", "--weights", "gone.pth"],
            &["gone.pth"],
        ),
        (
            &["eval", "shvit-s1", "--weights", "formula:zoo:x"],
            &["formula"],
        ),
        (&["eval", "shvit-*", "--journal", "j"], &["--journal"]),
        (&["predict", "shvit-s1", "notes.txt"], &["notes.txt"]),
        (
            &["bench", "shvit-s1", "--batch", "0", "--rounds", "1"],
            &["batch"],
        ),
    ];
    for (arguments, named) in cases {
        let output = run(folder, arguments);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        for part in *named {
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
        assert!(!message.contains("panicked"), "{message}");
    }
    let usage = run(folder, &["eval"]);
    assert_eq!(usage.status.code(), Some(2));
    let usage = run(folder, &["eval", "shvit-s1", "--dtype", "int7"]);
    assert_eq!(usage.status.code(), Some(2));
}
