//! The traps of tracing are errors that say what to change, and what they say to do helps.

use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};
use zoo_graph::{Graph, Input, Origin, TraceError, constant, is_tracing, scope, trace};

/// A net with one layer, `head.fc`, in front of `tail`.
fn traced(tail: impl Fn(&Tensor) -> Tensor) -> Result<Graph, TraceError> {
    let store = nn::VarStore::new(Device::Cpu);
    let fc = nn::linear(store.root() / "head" / "fc", 4, 4, Default::default());
    let input = Input {
        name: "x".to_owned(),
        shape: vec![4],
        kind: Kind::Float,
    };
    let traced = trace(&store, &[input], |x| vec![tail(&fc.forward(&x[0]))]);
    assert!(!is_tracing(), "a trace that failed goes on");
    traced.map(|trace| trace.graph)
}

/// The error, after checking that its text has these parts.
#[track_caller]
fn refused(parts: &[&str], tail: impl Fn(&Tensor) -> Tensor) -> TraceError {
    let error = traced(tail).unwrap_err();
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
    error
}

#[test]
fn a_tensor_made_from_numbers() {
    let remedy = ["when the model is built", "zoo_graph::constant"];
    let table = || Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]);
    let error = refused(&remedy, |y| y + table());
    assert!(matches!(error, TraceError::Created { .. }), "{error:?}");
    let error = refused(&remedy, |y| {
        y + Tensor::zeros(y.size(), (Kind::Float, Device::Cpu))
    });
    assert!(matches!(error, TraceError::Created { .. }), "{error:?}");

    let made = table();
    for graph in [traced(|y| y + &made), traced(|y| y + constant(table))] {
        let graph = graph.unwrap();
        let constants = graph.values.iter().filter(|v| v.origin == Origin::Constant);
        let shapes: Vec<_> = constants.map(|v| v.fixed_shape()).collect();
        assert_eq!(shapes, [Some(vec![4])]);
    }
}

#[test]
fn a_tensor_changed_in_place() {
    let remedy = ["`aten::relu_` behind `head.fc`", "without underscore"];
    let error = refused(&remedy, |y| y.shallow_clone().relu_());
    assert!(matches!(error, TraceError::InPlace { .. }), "{error:?}");
    assert!(traced(Tensor::relu).is_ok());
}

/// Its result is read by nobody: the change would be lost.
#[test]
fn a_part_changed_in_place() {
    let error = refused(&["`aten::zero_`"], |y| {
        let y = y.relu();
        let _part = y.narrow(1, 0, 2).zero_();
        y
    });
    assert!(matches!(error, TraceError::InPlace { .. }), "{error:?}");
}

#[test]
fn a_kernel_that_the_tracer_does_not_see() {
    let doubled = |y: &Tensor| {
        let numbers = Vec::<Vec<f32>>::try_from(y).unwrap().concat();
        let doubled: Vec<f32> = numbers.iter().map(|n| 2.0 * n).collect();
        Tensor::from_slice(&doubled).reshape([-1, 4])
    };
    let remedy = ["behind `head.fc`", "outside of libtorch", "is_tracing()"];
    let error = refused(&remedy, doubled);
    assert!(matches!(error, TraceError::Read { .. }), "{error:?}");
    // What it gives would be a constant.
    let remedy = ["other values at another batch", "tensor operations"];
    let error = refused(&remedy, |y| constant(|| doubled(y)) + 1.0);
    assert!(
        matches!(error, TraceError::BatchInConstant { .. }),
        "{error:?}"
    );
    let graph = traced(|y| match is_tracing() {
        true => y * 2.0,
        false => doubled(y),
    });
    assert_eq!(graph.unwrap().nodes.len(), 2);
}

#[test]
fn a_number_read_from_a_tensor() {
    let remedy = [
        "behind `head.fc`",
        "outside of libtorch",
        "tensor operations",
    ];
    let copied = |y: &Tensor| y / f64::try_from(y.max()).unwrap();
    let one = |y: &Tensor| y * (y.argmax(None, false).int64_value(&[]) + 1);
    let branch = |y: &Tensor| match bool::try_from(y.isnan().any()).unwrap() {
        true => y.relu(),
        false => y.tanh(),
    };
    for error in [
        refused(&remedy, copied),
        refused(&remedy, one),
        refused(&remedy, branch),
        refused(&["outside of libtorch"], |y| {
            y.relu() * y.double_value(&[0, 0])
        }),
    ] {
        assert!(matches!(error, TraceError::Read { .. }), "{error:?}");
    }
    assert!(traced(|y| y / y.max()).is_ok());
}

/// Of a parameter it is the same for every input.
#[test]
fn a_number_read_from_a_parameter() {
    let store = nn::VarStore::new(Device::Cpu);
    let slope = store.root().ones("slope", &[]) * 3.0;
    let input = Input {
        name: "x".to_owned(),
        shape: vec![4],
        kind: Kind::Float,
    };
    let forward = |x: &[Tensor]| vec![&x[0] * slope.double_value(&[])];
    assert!(trace(&store, &[input], forward).is_ok());
}

#[test]
fn parts_of_a_parameter_are_constants() {
    let store = nn::VarStore::new(Device::Cpu);
    let table = store.root().ones("table", &[3, 6]);
    let input = Input {
        name: "x".to_owned(),
        shape: vec![2],
        kind: Kind::Float,
    };
    let forward = |x: &[Tensor]| {
        let parts = table.split_with_sizes([4i64, 2], -1);
        let sum = parts[0].sum(None::<Kind>);
        vec![&x[0] * &parts[1].select(0, 1) + sum]
    };
    let graph = trace(&store, &[input], forward).unwrap().graph;
    let kinds: Vec<_> = graph.nodes.iter().map(|n| n.kind.as_str()).collect();
    assert_eq!(kinds, ["aten::mul", "aten::add"]);
}

#[test]
fn a_way_that_depends_on_the_batch() {
    let remedy = ["another batch", "size of the batch"];
    let error = refused(&remedy, |y| match y.size()[0] {
        2 => y.relu(),
        _ => y.tanh(),
    });
    assert!(matches!(error, TraceError::Structure { .. }), "{error:?}");
    let error = refused(&remedy, |y| match y.size()[0] {
        2 => y.relu(),
        _ => y.relu().relu(),
    });
    assert!(matches!(error, TraceError::Structure { .. }), "{error:?}");
    // Linear at two batches only by chance.
    for chance in [
        |y: &Tensor| y * (y.size()[0] * y.size()[0]),
        |y: &Tensor| y.narrow(0, 0, y.size()[0] / 2),
    ] {
        let error = refused(&remedy, chance);
        assert!(matches!(error, TraceError::Structure { .. }), "{error:?}");
    }
    refused(
        &["`other` of `aten::add` is 0.5 and 0.25", remedy[0]],
        |y| {
            y + match y.size()[0] {
                2 => 0.5,
                _ => 0.25,
            }
        },
    );
}

/// As many elements as the numbers say: those of every second sample.
#[test]
fn a_shape_that_depends_on_the_input() {
    let error = refused(&["another batch", "shapes [4], [4] and [8]"], |y| {
        let half = y.ones_like().cumsum(0, None::<Kind>) / 2.0;
        y.masked_select(&half.eq_tensor(&half.floor()))
    });
    assert!(matches!(error, TraceError::Structure { .. }), "{error:?}");
}

#[test]
fn a_forward_pass_that_fails() {
    let error = refused(&["the forward pass failed", "head of 5"], |_| {
        panic!("head of 5")
    });
    assert!(matches!(error, TraceError::Forward { .. }), "{error:?}");
    refused(&["the forward pass failed", "shape"], |y| y.reshape([3, 5]));
}

#[test]
fn the_batch_stays_open() {
    let graph = traced(|y| {
        let heads = y.reshape([-1, 2, 2]).transpose(1, 2);
        heads.reshape([y.size()[0] * 2, 2]).softmax(-1, Kind::Float)
    });
    let graph = graph.unwrap();
    let text = graph.to_string();
    assert!(text.contains("f32[2*batch, 2]"), "{text}");
    let output = &graph.values[graph.outputs[0]];
    assert_eq!(output.elements(7), 28);
}

#[test]
fn modules_are_told_by_parameters_or_by_scope() {
    let graph = traced(|y| scope("act", || y.relu()).tanh()).unwrap();
    let modules: Vec<_> = graph.nodes.iter().map(|n| n.module.as_str()).collect();
    assert_eq!(modules[..2], ["head.fc", "act"]);
}
