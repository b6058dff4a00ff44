//! Both engines on graphs whose result is known.

use super::sample::{changed, channel_means, node, write};
use super::*;
use crate::Engine;
use tch::{Kind, Tensor};

type Open = fn(OnnxFile, &OnnxOptions) -> Result<Box<dyn Engine>, OnnxError>;

/// The engines that are installed; OpenVINO is an optional part of the set-up.
fn engines() -> Vec<(&'static str, Open)> {
    let ort: Open = |file, options| Ok(Box::new(OrtSession::open(file, options)?));
    let openvino: Open = |file, options| Ok(Box::new(OpenvinoSession::open(file, options)?));
    let mut engines = vec![("onnxruntime", ort)];
    match openvino_version() {
        Ok(_) => engines.push(("openvino", openvino)),
        Err(e) => eprintln!("SKIPPED: {e}"),
    }
    engines
}

fn one_thread() -> OnnxOptions {
    OnnxOptions {
        threads: Some(1),
        ..OnnxOptions::default()
    }
}

fn images(batch: i64) -> Tensor {
    Tensor::arange(batch * 60, (Kind::Float, tch::Device::Cpu)).reshape([batch, 3, 4, 5])
}

fn open(
    open: Open,
    model: &sample::Model,
    options: &OnnxOptions,
) -> Result<Box<dyn Engine>, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = OnnxFile::read(&write(folder.path(), model)).map_err(|e| e.to_string())?;
    open(file, options).map_err(|e| e.to_string())
}

/// One batch size after another on one session, also an input that is not contiguous.
#[test]
fn logits_are_the_graphs() {
    for (name, opened) in engines() {
        // OpenVINO reads the file again for every batch size.
        let folder = tempfile::tempdir().unwrap();
        let file = OnnxFile::read(&write(folder.path(), &channel_means(-1))).unwrap();
        let mut session = opened(file, &one_thread()).unwrap();
        for batch in [1, 3, 1, 2] {
            let x = images(batch);
            let expected = x.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
            let apart = x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
            for x in [&x, &apart, &session.prepare(&x)] {
                let found = session.logits(x).unwrap();
                assert_eq!(found.size(), [batch, 3]);
                let error = (found - &expected).abs().max().double_value(&[]);
                assert!(error < 1e-4, "{name} at batch {batch}: {error}");
            }
        }
        let info = session.info();
        assert!(info.engine.starts_with(name), "{info:?}");
        assert_eq!((info.threads, info.precision), (1, Precision::F32));
        assert!(
            info.version.starts_with(|c: char| c.is_ascii_digit()),
            "{info:?}"
        );
    }
}

#[test]
fn wrong_shapes_are_refused() {
    for (name, opened) in engines() {
        let mut session = open(opened, &channel_means(2), &one_thread()).unwrap();
        let message = session.logits(&images(1)).unwrap_err().to_string();
        assert!(
            message.contains("sample.onnx") && message.contains("--batch 2"),
            "{name}: {message}"
        );
    }
}

#[test]
fn unknown_operators_are_named_with_the_file() {
    for (name, opened) in engines() {
        let unknown = changed(|g| g.node[0] = node("Telepathy", "images", "pooled"));
        let message = session_error(opened, &unknown);
        assert!(
            message.contains("sample.onnx") && message.contains("Telepathy"),
            "{name}: {message}"
        );
        let custom = changed(|g| g.node[0].domain = "com.example".to_owned());
        let message = session_error(opened, &custom);
        assert!(
            message.contains("com.example::GlobalAveragePool (1)"),
            "{name}: {message}"
        );
    }
}

/// What opening says, or where an engine finds out later, running.
fn session_error(opened: Open, model: &sample::Model) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = OnnxFile::read(&write(folder.path(), model)).unwrap();
    match opened(file, &one_thread()) {
        Err(e) => e.to_string(),
        Ok(mut session) => session.logits(&images(1)).unwrap_err().to_string(),
    }
}

#[test]
fn what_an_engine_can_not_do_is_refused() {
    for (name, opened) in engines() {
        for options in [
            OnnxOptions {
                precision: Precision::F64,
                ..one_thread()
            },
            OnnxOptions {
                device: Device::Cuda(0),
                ..one_thread()
            },
        ] {
            match open(opened, &channel_means(-1), &options) {
                // A machine with onnxruntime-gpu.
                Ok(_) => assert_eq!((name, options.device), ("onnxruntime", Device::Cuda(0))),
                Err(message) => assert!(message.contains("say --"), "{name}: {message}"),
            }
        }
    }
}

#[test]
fn bf16_is_openvinos_only() {
    let options = OnnxOptions {
        precision: Precision::Bf16,
        ..one_thread()
    };
    for (name, opened) in engines() {
        match (name, open(opened, &channel_means(-1), &options)) {
            ("openvino", opened) => assert!(opened.is_ok()),
            (_, opened) => {
                let message = opened.err().unwrap();
                assert!(message.contains("--engine openvino"), "{message}");
            }
        }
    }
}
