//! What graphs cost, over all models of the registry: nothing without a rule, MACs as counted on the official modules.
//!
//! Models that are large or slow to run are held too with ZOO_TEST_ALL=1; `zoo profile '*' --table` is the same for people.

mod common;

use common::figures;
use std::collections::BTreeSet;
use zoo::backbones::{Variant, find, variants};
use zoo::counting::graph_counts;
use zoo::energy::estimates;
use zoo::graph::Graph;
use zoo::profile::Figures;
use zoo::runtime::{Options, Session, WeightsSource};
use zoo::weights::formula::Formula;

/// Variants with more parameters run only when all are asked for.
const LARGE: u64 = 15_000_000;

/// MACs of a model that is run at its published size by default.
const MANY: u64 = 700_000_000;

fn all() -> bool {
    std::env::var_os("ZOO_TEST_ALL").is_some()
}

/// The graph of the form that was trained, and the number of its parameters.
fn trace(variant: &'static Variant, size: [i64; 2]) -> Result<(Graph, u64), String> {
    let formula = Formula {
        salt: "zoo".to_owned(),
        gain: 0.7,
    };
    let options = Options {
        threads: Some(1),
        fuse: false,
        size: Some(size),
        ..Options::default()
    };
    let session = Session::open(variant, &WeightsSource::Formula(formula), &options);
    let session = session.map_err(|e| e.to_string())?;
    let trace = session.trace().map_err(|e| e.to_string())?;
    Ok((trace.graph, session.params()))
}

/// Of the smallest of some sizes that the model takes: the operators are the same.
fn trace_small(variant: &'static Variant) -> (Graph, u64) {
    let published = variant.build_options().size;
    let small = [[64, 64], [128, 128]].into_iter();
    let mut sizes = small.filter(|s| s[0] * s[1] < published[0] * published[1]);
    let traced = sizes.find_map(|size| trace(variant, size).ok());
    traced.unwrap_or_else(|| {
        trace(variant, published).unwrap_or_else(|e| panic!("{}: {e}", variant.name))
    })
}

#[test]
fn every_operator_of_every_model_has_a_rule() {
    let mut unknown = BTreeSet::new();
    for variant in variants().filter(|v| all() || v.params <= LARGE) {
        let (graph, params) = trace_small(variant);
        let costs = graph.costs(2);
        unknown.extend(
            costs
                .unknown
                .keys()
                .map(|kind| format!("{kind} in {}", variant.name)),
        );
        assert_eq!(costs.params, params, "{}", variant.name);
        assert_eq!(
            costs.total.macs,
            2 * graph.costs(1).total.macs,
            "{}",
            variant.name
        );
        let tree = costs.modules(&graph, usize::MAX);
        assert_eq!(tree[0].work, costs.total, "{}", variant.name);
    }
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn macs_are_those_of_the_official_modules() {
    let figures = Figures::read(&figures().join("macs.json")).unwrap();
    let mut wrong = Vec::new();
    let mut held = 0;
    for name in figures.models() {
        let variant = find(name).unwrap_or_else(|| panic!("no model {name}"));
        // The figure itself, held to: few where MANY is more.
        let few = figures
            .hold(name, MANY)
            .is_some_and(|a| a.difference >= 0.0);
        let quick = few && variant.params <= LARGE;
        if !all() && !quick {
            continue;
        }
        let (graph, _) = trace(variant, variant.build_options().size).unwrap();
        let macs = graph.costs(1).total.macs;
        let agreement = figures.hold(name, macs).unwrap();
        held += 1;
        if !agreement.holds() {
            wrong.push(format!("{name}: {macs} MACs, {agreement}"));
        }
    }
    assert!(held >= 10, "only {held} models were held");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// From the sizes that the papers give, not from the graph.
#[test]
fn macs_by_hand() {
    let counted = |name| {
        let (graph, _) = trace(find(name).unwrap(), [224, 224]).unwrap();
        graph.costs(1).total.macs
    };
    // 196 patches and the class token, 12 blocks: q, k, v, projection and two layers of the MLP are 12 d^2 a token, scores and their
    // product with the values 2 N d.
    let (tokens, d) = (197, 192);
    let block = tokens * (12 * d * d + 2 * tokens * d);
    assert_eq!(counted("deit-t"), 196 * 768 * d + 12 * block + 1000 * d);

    // Bottlenecks: 1x1 to w, 3x3 (it strides), 1x1 to 4 w; a 1x1 beside the first of a stage.
    let mut macs = 112 * 112 * 64 * 3 * 49;
    let (mut side, mut channels) = (56, 64);
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        let width = 64 << stage;
        for block in 0..blocks {
            let before = side;
            side = if block == 0 && stage > 0 {
                side / 2
            } else {
                side
            };
            macs += before * before * channels * width;
            macs += side * side * width * (9 * width + 4 * width);
            macs += if block == 0 {
                side * side * channels * 4 * width
            } else {
                0
            };
            channels = 4 * width;
        }
    }
    let found = counted("resnet-50");
    assert_eq!(found, macs + 2048 * 1000);
    // torchvision's table.
    assert!((found as f64 / 1e9 - 4.089).abs() < 5e-4, "{found}");
}

/// Estimates from the graph and from what the layers report while they run.
#[test]
fn energy_from_the_graph_is_energy_from_the_work_done() {
    for name in ["shvit-s1", "activator-cifar10"] {
        let variant = find(name).unwrap();
        let size = variant.build_options().size;
        let (graph, _) = trace(variant, size).unwrap();
        let from_graph = estimates(&graph_counts(&graph, &graph.costs(3)), 0.5);
        let options = Options {
            threads: Some(1),
            fuse: false,
            ..Options::default()
        };
        let weights: WeightsSource = "formula:zoo:0.7".parse().unwrap();
        let session = Session::open(variant, &weights, &options).unwrap();
        let x = tch::Tensor::rand(session.input_shape(1), (tch::Kind::Float, tch::Device::Cpu));
        let work = session.work(&x).unwrap();
        let done = estimates(&zoo::counting::counts(&work, 1), 0.5);
        assert_eq!(from_graph.len(), done.len());
        for (a, b) in from_graph.iter().zip(&done) {
            assert_eq!((a.model, &a.row), (b.model, &b.row));
            let (a, b) = (a.energy.total_pj(), b.energy.total_pj());
            assert!((a / b - 1.0).abs() < 1e-9, "{name}: {a} pJ and {b} pJ");
        }
    }
}
