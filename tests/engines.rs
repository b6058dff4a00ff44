//! ONNX files and engines end to end.

mod common;

use common::{stderr, stdout, zoo};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::tempdir;

/// A protobuf field of bytes.
fn bytes(tag: u8, value: &[u8]) -> Vec<u8> {
    assert!(value.len() < 128, "one byte of length");
    [&[tag << 3 | 2, value.len() as u8], value].concat()
}

/// A protobuf field of a small number.
fn number(tag: u8, value: u8) -> Vec<u8> {
    vec![tag << 3, value]
}

fn node(op_type: &str, input: &str, output: &str) -> Vec<u8> {
    let fields = [
        bytes(1, input.as_bytes()),
        bytes(2, output.as_bytes()),
        bytes(4, op_type.as_bytes()),
    ];
    bytes(1, &fields.concat())
}

/// A float tensor [batch, dims..] as field `tag` of the graph.
fn tensor(tag: u8, name: &str, dims: &[u8]) -> Vec<u8> {
    let mut shape = bytes(1, &bytes(2, b"batch"));
    for &dim in dims {
        shape.extend(bytes(1, &number(1, dim)));
    }
    let kind = [number(1, 1), bytes(2, &shape)].concat();
    bytes(
        tag,
        &[bytes(1, name.as_bytes()), bytes(2, &bytes(1, &kind))].concat(),
    )
}

/// A model whose logits are the means of red, green and blue: `pool` is the operator that takes them.
fn channel_means(folder: &Path, name: &str, pool: &str) -> PathBuf {
    means_of(folder, name, pool, &tensor(11, "x", &[3, 32, 32]), 17)
}

/// The same of this input, in this version of the operators.
fn means_of(folder: &Path, name: &str, pool: &str, input: &[u8], opset: u8) -> PathBuf {
    let graph = [
        node(pool, "x", "p"),
        node("Flatten", "p", "logits"),
        bytes(2, b"g"),
        input.to_vec(),
        tensor(12, "logits", &[3]),
    ]
    .concat();
    // The graph is longer than one byte tells.
    let length = [(graph.len() & 127) as u8 | 128, (graph.len() >> 7) as u8];
    let model = [
        number(1, 8),
        vec![7 << 3 | 2],
        length.to_vec(),
        graph,
        bytes(8, &number(2, opset)),
    ]
    .concat();
    let path = folder.join(name);
    std::fs::write(&path, model).unwrap();
    path
}

/// Red, green and blue squares as class folders, in the order of the classes.
fn coloured(folder: &Path) -> PathBuf {
    let set = folder.join("set");
    for (class, pixel) in [[250, 10, 10], [10, 250, 10], [10, 10, 250]]
        .iter()
        .enumerate()
    {
        let class = set.join(class.to_string());
        std::fs::create_dir_all(&class).unwrap();
        std::fs::write(class.join("a.bmp"), bmp(*pixel)).unwrap();
    }
    set
}

/// A 40 x 40 image of one colour as an uncompressed 24-bit BMP.
fn bmp([red, green, blue]: [u8; 3]) -> Vec<u8> {
    let (side, header) = (40u32, 54u32);
    let size = header + 3 * side * side;
    let mut file = b"BM".to_vec();
    for word in [
        size,
        0,
        header,
        40,
        side,
        side,
        1 | 24 << 16,
        0,
        0,
        0,
        0,
        0,
        0,
    ] {
        file.extend(word.to_le_bytes());
    }
    for _ in 0..side * side {
        file.extend([blue, green, red]);
    }
    file
}

const PLAIN: [&str; 2] = ["--mean=0,0,0", "--std=1,1,1"];

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = zoo(folder);
    command.env("XDG_CACHE_HOME", folder.join("cache"));
    command
        .args(arguments)
        .args(["--threads", "1"])
        .output()
        .unwrap()
}

/// OpenVINO is an optional part of the set-up.
fn has_openvino() -> bool {
    let found = zoo::runtime::openvino_version();
    if let Err(e) = &found {
        eprintln!("SKIPPED: {e}");
    }
    found.is_ok()
}

#[test]
fn an_onnx_file_predicts_and_says_what_ran() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    channel_means(folder, "means.onnx", "GlobalAveragePool");
    let set = coloured(folder);
    let green = set.join("1/a.bmp");
    let mut engines = vec![("ort", "onnxruntime CPUExecutionProvider")];
    if has_openvino() {
        engines.push(("openvino", "openvino CPU"));
    }
    for (engine, named) in engines {
        let output = run(
            folder,
            &[
                &[
                    "predict",
                    "means.onnx",
                    green.to_str().unwrap(),
                    "--engine",
                    engine,
                    "--json",
                    "--top=3",
                ][..],
                &PLAIN,
            ]
            .concat(),
        );
        assert!(
            stderr(&output).contains("does not state its preprocessing"),
            "{}",
            stderr(&output)
        );
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert!(
            report["engine"].as_str().unwrap().starts_with(named),
            "{report}"
        );
        let top = &report["predictions"][0]["top"];
        assert_eq!(top[0]["class"], 1, "{report}");
        for (rank, expected) in [250.0 / 255.0, 10.0 / 255.0].iter().enumerate() {
            let logit = top[rank]["logit"].as_f64().unwrap();
            assert!((logit - expected).abs() < 1e-6, "{logit}");
        }
    }
}

#[test]
fn an_onnx_file_is_evaluated_and_timed() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    channel_means(folder, "means.onnx", "GlobalAveragePool");
    coloured(folder);
    let evaluated = run(
        folder,
        &[
            &[
                "eval",
                "means.onnx",
                "--imagenet",
                "set",
                "--json",
                "--batch=2",
            ][..],
            &PLAIN,
        ]
        .concat(),
    );
    let reports: Value = serde_json::from_str(&stdout(&evaluated)).unwrap();
    assert_eq!(reports[0]["top1"]["correct"], 3, "{reports}");
    assert_eq!(
        (&reports[0]["model"], &reports[0]["classes"]),
        (&"means".into(), &3.into())
    );
    let engine = reports[0]["engine"].as_str().unwrap();
    assert!(
        engine.starts_with("onnxruntime CPUExecutionProvider 1."),
        "{engine}"
    );
    assert!(
        reports[0]["weights_identity"]
            .as_str()
            .unwrap()
            .starts_with("means.onnx:sha256:")
    );
    let timed = run(
        folder,
        &[
            "bench",
            "means.onnx",
            "--batch=1",
            "--rounds=1",
            "--block=0.02",
            "--max-load=1000",
            "--energy=0",
            "--json",
        ],
    );
    let report: Value = serde_json::from_str(&stdout(&timed)).unwrap();
    assert_eq!(
        report["subjects"][0]["engine"],
        "onnxruntime CPUExecutionProvider"
    );
    assert_eq!(
        report["subjects"][0]["input"],
        serde_json::json!([3, 32, 32])
    );
}

/// The zoo's own models: their graphs are exported into the cache, once, and give libtorch's logits.
/// As published, and with another input than that.
#[test]
fn a_model_of_the_zoo_gives_the_same_logits_in_every_engine() {
    let folder = tempdir().unwrap();
    let published = logits_in_every_engine(folder.path(), &[]);
    let other = ["--input-size=96x128", "--mean=0.5,0.5,0.5"];
    let other = logits_in_every_engine(folder.path(), &other);
    assert!(published != other);
    let cache = std::fs::read_dir(folder.path().join("cache/zoo/onnx"));
    assert_eq!(cache.unwrap().count(), 2, "one export for all engines");
}

fn logits_in_every_engine(folder: &Path, input: &[&str]) -> Vec<(u64, f64)> {
    let image = coloured(folder).join("0/a.bmp");
    let image = image.to_str().unwrap();
    let logits = |engine: &str| -> Vec<(u64, f64)> {
        let arguments = ["predict", "shvit-s1", image, "--json", "--top=1000"];
        let arguments = [&arguments[..], &["--engine", engine], input].concat();
        let report: Value = serde_json::from_str(&stdout(&run(folder, &arguments))).unwrap();
        let top = report["predictions"][0]["top"].as_array().unwrap();
        let mut logits: Vec<(u64, f64)> = top
            .iter()
            .map(|g| (g["class"].as_u64().unwrap(), g["logit"].as_f64().unwrap()))
            .collect();
        logits.sort_by_key(|(class, _)| *class);
        logits
    };
    let expected = logits("libtorch");
    let scale = expected.iter().fold(0.0, |a: f64, (_, b)| a.max(b.abs()));
    let mut engines = vec!["ort", "ort"];
    if has_openvino() {
        engines.push("openvino");
    }
    for engine in engines {
        for ((class, a), (_, b)) in logits(engine).iter().zip(&expected) {
            assert!(
                (a - b).abs() < 1e-5 * scale,
                "{engine}, class {class}: {a} and {b}"
            );
        }
    }
    expected
}

#[test]
fn what_can_not_run_is_named_with_its_remedy() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    channel_means(folder, "means.onnx", "GlobalAveragePool");
    channel_means(folder, "odd.onnx", "Telepathy");
    std::fs::write(folder.join("cat.onnx"), "not a model").unwrap();
    let whole = std::fs::read(folder.join("means.onnx")).unwrap();
    std::fs::write(folder.join("cut.onnx"), &whole[..whole.len() / 2]).unwrap();
    let image = tensor(11, "x", &[3, 32, 32]);
    means_of(folder, "new.onnx", "GlobalAveragePool", &image, 99);
    means_of(
        folder,
        "flat.onnx",
        "GlobalAveragePool",
        &tensor(11, "x", &[3]),
        17,
    );
    let mut integers = image.clone();
    // The element type is the one byte after the first two lengths, the name and the type's own.
    let at = integers.windows(2).position(|w| w == [1 << 3, 1]).unwrap();
    integers[at + 1] = 7;
    means_of(folder, "integers.onnx", "GlobalAveragePool", &integers, 17);
    for (arguments, parts) in [
        (
            &["odd.onnx"][..],
            &["odd.onnx", "Telepathy", "ONNX Runtime 1."][..],
        ),
        (&["cat.onnx"], &["cat.onnx is not an ONNX model"]),
        (
            &["cut.onnx"],
            &["cut.onnx is not an ONNX model", "cut short"],
        ),
        (&["new.onnx"], &["new.onnx", "ONNX Runtime 1.", "99"]),
        (
            &["flat.onnx"],
            &[
                "flat.onnx",
                "[batch, 3]",
                "[batch, channels, height, width]",
            ],
        ),
        (&["integers.onnx"], &["integers.onnx", "element type 7"]),
        (&["none.onnx"], &["none.onnx", "No such file"]),
        (
            &["means.onnx", "--engine=libtorch"],
            &["means.onnx", "--engine ort"],
        ),
        (
            &["means.onnx", "--dtype=bf16"],
            &["bf16", "--engine openvino"],
        ),
        (
            &["means.onnx", "--input-size=64x64"],
            &["means.onnx takes 32x32"],
        ),
        (
            &["means.onnx", "--weights=formula"],
            &["--weights", "holds its own weights"],
        ),
        (
            &["means.onnx", "--engine=openvino", "--device=cuda"],
            &["device cuda:0", "--device cpu"],
        ),
        (
            &["halonet-26t", "--input-size=100x100"],
            &["halonet-26t", "whole blocks of 8x8"],
        ),
    ] {
        if arguments.contains(&"--engine=openvino") && !has_openvino() {
            continue;
        }
        // Options may stand before the image.
        let output = run(folder, &[&["predict"], arguments, &["x.bmp"]].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let message = stderr(&output);
        for part in parts {
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
    }
    let mut command = zoo(folder);
    command.env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so");
    let output = command
        .args(["predict", "means.onnx", "x.bmp"])
        .output()
        .unwrap();
    let message = stderr(&output);
    assert!(
        message.contains("/nowhere/libonnxruntime.so") && message.contains("scripts/setup"),
        "{message}"
    );
}

#[test]
fn engines_are_compared_and_the_fastest_is_chosen() {
    if !has_openvino() {
        return;
    }
    let folder = tempdir().unwrap();
    let folder = folder.path();
    channel_means(folder, "means.onnx", "GlobalAveragePool");
    let compared = run(
        folder,
        &[
            "compare",
            "means.onnx",
            "--batch=2",
            "--rounds=1",
            "--block=0.02",
            "--max-load=1000",
            "--json",
        ],
    );
    let report: Value = serde_json::from_str(&stdout(&compared)).unwrap();
    assert_eq!(report["schema"], "zoo.bench/1");
    let outputs = report["comparison"]["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 2, "{report}");
    assert!(
        outputs[1]["max_relative_difference"].as_f64().unwrap() < 1e-5,
        "{report}"
    );
    assert_eq!(report["cases"].as_array().unwrap().len(), 2);

    coloured(folder);
    let predicted = run(
        folder,
        &[
            &["predict", "means.onnx", "set/0/a.bmp", "--engine=auto"][..],
            &PLAIN,
        ]
        .concat(),
    );
    let message = stderr(&predicted);
    assert!(
        message.contains("zoo: auto: means at batch 1: "),
        "{message}"
    );
    assert!(
        stdout(&predicted).contains("   0"),
        "{}",
        stdout(&predicted)
    );
}
