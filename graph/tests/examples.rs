//! The examples run, and say what is known of their models.

#[allow(dead_code)]
#[path = "../examples/small_net.rs"]
mod small_net;
#[allow(dead_code)]
#[path = "../examples/tch_resnet18.rs"]
mod tch_resnet18;

#[test]
fn a_net_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("net.onnx");
    let (costs, written) = small_net::run(&file).unwrap();
    assert!(costs.complete(), "{costs}");
    assert_eq!(costs.total.macs, 16 * 30 * 30 * 27 + 16 * 10);
    assert_eq!(costs.params, 16 * 27 + 16 + 160 + 10);
    assert_eq!(written.kinds.get("Conv"), Some(&1));
    assert!(file.metadata().unwrap().len() > 4 * costs.params);
}

/// torchvision's table of its resnet18: 11,689,512 parameters, 1.814 GMACs.
#[test]
fn a_model_of_tch() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resnet18.onnx");
    let (costs, written) = tch_resnet18::run(&file).unwrap();
    assert!(costs.complete(), "{costs}");
    assert_eq!(costs.params, 11_689_512);
    assert!(
        (costs.total.macs as f64 / 1e9 - 1.814).abs() < 5e-4,
        "{costs}"
    );
    assert_eq!(written.kinds.get("Conv"), Some(&20));
}
