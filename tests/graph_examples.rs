//! The examples of the graph crate run, say what is known of their models, and write files that ONNX Runtime runs alike.

#[allow(dead_code)]
#[path = "../graph/examples/small_net.rs"]
mod small_net;
#[allow(dead_code)]
#[path = "../graph/examples/tch_resnet18.rs"]
mod tch_resnet18;

use std::path::Path;
use tch::{Device, Kind, Tensor};
use zoo::runtime::{Engine, OnnxFile, OnnxOptions, OrtSession};

/// Images as wide as high.
fn images(batch: i64, side: i64) -> Tensor {
    tch::manual_seed(batch);
    tch::set_num_threads(1);
    Tensor::randn([batch, 3, side, side], (Kind::Float, Device::Cpu))
}

/// The largest difference of the file's logits, in shares of the largest logit.
fn difference(file: &Path, images: &Tensor, logits: &Tensor) -> f64 {
    let one_thread = OnnxOptions {
        threads: Some(1),
        ..OnnxOptions::default()
    };
    let file = OnnxFile::read(file).unwrap();
    let mut session = OrtSession::open(file, &one_thread).unwrap();
    let found = session.logits(images).unwrap();
    assert_eq!(found.size(), logits.size());
    let error = (found - logits).abs().max() / logits.abs().max();
    error.double_value(&[])
}

#[test]
fn a_net_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("net.onnx");
    let images = images(5, 32);
    let (costs, written, logits) = small_net::run(&file, &images).unwrap();
    assert!(costs.complete(), "{costs}");
    assert_eq!(costs.total.macs, 16 * 30 * 30 * 27 + 16 * 10);
    assert_eq!(costs.params, 16 * 27 + 16 + 160 + 10);
    assert_eq!(written.kinds.get("Conv"), Some(&1));
    assert!(difference(&file, &images, &logits) < 1e-5);
}

/// torchvision's table of its resnet18: 11,689,512 parameters, 1.814 GMACs.
#[test]
fn a_model_of_tch() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resnet18.onnx");
    let images = images(2, 224);
    let (costs, written, logits) = tch_resnet18::run(&file, &images).unwrap();
    assert!(costs.complete(), "{costs}");
    assert_eq!(costs.params, 11_689_512);
    assert!(
        (costs.total.macs as f64 / 1e9 - 1.814).abs() < 5e-4,
        "{costs}"
    );
    assert_eq!(written.kinds.get("Conv"), Some(&20));
    assert!(difference(&file, &images, &logits) < 1e-5);
}
