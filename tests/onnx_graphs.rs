//! What the ONNX writer makes of small nets: short graphs that compute what libtorch does.

use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, nn};
use zoo::graph::onnx::{ExportError, OnnxFile, OnnxOptions, export};
use zoo::graph::{Input, trace};
use zoo::runtime::{Engine, OnnxOptions as RunOptions, OrtSession};

/// Images of two channels.
const SHAPE: [i64; 3] = [2, 6, 8];

fn options() -> OnnxOptions {
    OnnxOptions {
        outputs: vec!["logits".to_owned()],
        ..OnnxOptions::default()
    }
}

/// Writes the net, and holds it to libtorch in ONNX Runtime at two batches.
fn written_as(
    store: &nn::VarStore,
    net: impl Fn(&Tensor) -> Tensor,
    options: &OnnxOptions,
    tolerance: f64,
) -> OnnxFile {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let traced = trace(store, &[Input::images(SHAPE)], |x| vec![net(&x[0])]).unwrap();
    let written = export(&traced, options, &path).unwrap();
    let file = zoo::runtime::OnnxFile::read(&path).unwrap();
    let one_thread = RunOptions {
        threads: Some(1),
        ..RunOptions::default()
    };
    let mut session = OrtSession::open(file, &one_thread).unwrap();
    for batch in [1, 4] {
        let x = Tensor::randn([batch, 2, 6, 8], (Kind::Float, Device::Cpu));
        let expected = tch::no_grad(|| net(&x));
        let found = session.logits(&x).unwrap();
        assert_eq!(found.size(), expected.size());
        let error = (found - &expected).abs().max() / expected.abs().max();
        let error = error.double_value(&[]);
        assert!(error <= tolerance, "{error} at batch {batch}: {written:?}");
    }
    written
}

fn kinds(net: impl Fn(&Tensor) -> Tensor) -> BTreeMap<String, usize> {
    let store = nn::VarStore::new(Device::Cpu);
    written_as(&store, net, &options(), 1e-5).kinds
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    let pairs = pairs.iter();
    pairs.map(|(kind, n)| ((*kind).to_owned(), *n)).collect()
}

fn pooled(x: &Tensor) -> Tensor {
    x.sum_dim_intlist([2i64, 3].as_slice(), false, None::<Kind>)
}

#[test]
fn transposes_meet_behind_elementwise_ops() {
    let through_one =
        kinds(|x| pooled(&x.permute([0, 2, 3, 1]).gelu("none").permute([0, 3, 1, 2])));
    assert_eq!(through_one, counts(&[("Gelu", 1), ("ReduceSum", 1)]));
    // One transpose on the other way in, instead of one in and one out.
    let through_a_sum = kinds(|x| {
        let y = x.reshape([-1, 6, 8, 2]).relu();
        pooled(&(x.sigmoid().permute([0, 2, 3, 1]) + y).permute([0, 3, 1, 2]))
    });
    assert_eq!(through_a_sum["Transpose"], 1, "{through_a_sum:?}");
    let two_for_one = kinds(|x| {
        let move_last = |x: Tensor| x.permute([0, 2, 3, 1]);
        (move_last(x.sigmoid()) * move_last(x.relu())).amax([1i64, 2], false)
    });
    assert_eq!(two_for_one["Transpose"], 1, "{two_for_one:?}");
    // Nothing to gain: it stays where it is.
    let alone = kinds(|x| x.permute([0, 2, 3, 1]).relu().amax([1i64, 2], false));
    assert_eq!(
        alone,
        counts(&[("Transpose", 1), ("Relu", 1), ("ReduceMax", 1)])
    );
}

#[test]
fn what_broadcasts_is_not_expanded() {
    let gated = kinds(|x| {
        let gate = x.mean_dim([2i64, 3].as_slice(), true, None::<Kind>);
        pooled(&(x * gate.sigmoid().expand_as(x)))
    });
    assert!(!gated.contains_key("Expand"), "{gated:?}");
    // Here the expansion makes the shape.
    let needed = kinds(|x| {
        let mean = x.mean_dim([2i64, 3].as_slice(), true, None::<Kind>);
        pooled(&(mean.expand_as(x) + 1.0))
    });
    assert_eq!(needed["Expand"], 1, "{needed:?}");
}

#[test]
fn factors_are_joined() {
    let scaled = kinds(|x| pooled(&(x * 1.0 * 3.0 * 0.5)));
    assert_eq!(scaled, counts(&[("Mul", 1), ("ReduceSum", 1)]));
}

/// Two steps of a leaky neuron with a hard reset: no step is longer than what a person would write.
#[test]
fn steps_of_spiking_neurons_are_short() {
    let spiking = kinds(|x| {
        let mut potential = x.zeros_like();
        let mut spikes = Vec::new();
        for i in 0..2 {
            potential = &potential + (x * f64::from(i + 1) - &potential) / 2.0;
            let fired = (&potential - 0.25).gt(0.0).to_kind(Kind::Float);
            potential = &potential * (1.0 - &fired);
            spikes.push(fired);
        }
        pooled(&(&spikes[0] * 3.0 + &spikes[1]))
    });
    let expected = [
        ("Add", 2),
        ("Cast", 2),
        ("Greater", 2),
        ("Mul", 5),
        ("ReduceSum", 1),
        ("Sub", 2),
    ];
    assert_eq!(spiking, counts(&expected));
}

#[test]
fn means_over_parts_that_do_not_divide_are_products() {
    // 6 x 8 to 4 x 3: neither side divides; to 3 x 4: both do.
    let products = kinds(|x| x.adaptive_avg_pool2d([4, 3]).flatten(1, -1));
    assert_eq!(products, counts(&[("MatMul", 2), ("Reshape", 1)]));
    let windows = kinds(|x| x.adaptive_avg_pool2d([3, 4]).flatten(1, -1));
    assert_eq!(windows, counts(&[("AveragePool", 1), ("Reshape", 1)]));
    let larger = kinds(|x| x.flatten(2, 3).adaptive_avg_pool1d([50]).flatten(1, -1));
    assert_eq!(larger, counts(&[("MatMul", 1), ("Reshape", 2)]));
}

#[test]
fn norms_are_folded_and_shapes_are_known() {
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let conv = nn::conv2d(&root / "conv", 2, 4, 3, nn::ConvConfig::default());
    let norm = nn::batch_norm2d(&root / "norm", 4, nn::BatchNormConfig::default());
    let net = |x: &Tensor| {
        let x = x.apply(&conv).apply_t(&norm, false);
        pooled(&x.flatten(2, 3).transpose(1, 2).reshape([-1, 4, 6, 4]))
    };
    let written = written_as(&store, net, &options(), 1e-5);
    let expected = [
        ("Conv", 1),
        ("Transpose", 1),
        ("Reshape", 2),
        ("ReduceSum", 1),
    ];
    assert_eq!(written.kinds, counts(&expected));
}

/// Beyond the limit, as beyond 2 GB: ONNX Runtime reads them from there.
#[test]
fn weights_lie_in_a_file_of_their_own_beyond_the_limit() {
    let store = nn::VarStore::new(Device::Cpu);
    let layer = nn::linear(store.root(), 2, 3, nn::LinearConfig::default());
    // Six weights and three biases, and where the pooling's axes are said.
    let bytes = 4 * (6 + 3) + 8 * 2;
    for (embed_up_to, expected) in [
        (bytes, &["net.onnx"][..]),
        (bytes - 1, &["net.onnx", "net.onnx.data"]),
        (0, &["net.onnx", "net.onnx.data"]),
    ] {
        let options = OnnxOptions {
            embed_up_to,
            ..options()
        };
        let written = written_as(&store, |x| pooled(x).apply(&layer), &options, 1e-5);
        let files = written.files.iter();
        let named: Vec<_> = files.map(|f| f.file_name().unwrap()).collect();
        assert_eq!(named, expected, "{embed_up_to}: {written:?}");
    }
}

#[test]
fn half_precision_is_near_and_names_what_it_can_not_hold() {
    let store = nn::VarStore::new(Device::Cpu);
    let layer = nn::linear(store.root() / "layer", 2, 3, nn::LinearConfig::default());
    let net = |x: &Tensor| pooled(x).apply(&layer);
    let half = OnnxOptions {
        half: true,
        ..options()
    };
    let written = written_as(&store, net, &half, 5e-3);
    assert_eq!(written.kinds["Cast"], 2);
    tch::no_grad(|| {
        let _filled = store
            .variables()
            .remove("layer.bias")
            .map(|mut bias| bias.fill_(1e5));
    });
    let traced = trace(&store, &[Input::images(SHAPE)], |x| vec![net(&x[0])]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    match export(&traced, &half, &folder.path().join("net.onnx")) {
        Err(ExportError::Unsupported { what }) => assert!(what.contains("layer.bias"), "{what}"),
        other => panic!("{other:?}"),
    }
}
