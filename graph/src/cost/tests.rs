//! Costs held to figures computed by hand.

use super::*;
use crate::{Input, Trace, trace};
use tch::nn::{self, Module, ModuleT};
use tch::{Device, Kind, Tensor};

fn input(name: &str, shape: &[i64]) -> Input {
    Input {
        name: name.to_owned(),
        shape: shape.to_vec(),
        kind: Kind::Float,
    }
}

fn traced(store: &nn::VarStore, shapes: &[&[i64]], forward: impl Fn(&[Tensor]) -> Tensor) -> Trace {
    let inputs: Vec<_> = shapes.iter().map(|shape| input("x", shape)).collect();
    trace(store, &inputs, |x| vec![forward(x)]).unwrap()
}

/// Totals at batch 1 of a function without parameters, after checking that every operator has a rule.
fn total(shapes: &[&[i64]], forward: impl Fn(&[Tensor]) -> Tensor) -> Work {
    let store = nn::VarStore::new(Device::Cpu);
    let costs = traced(&store, shapes, forward).graph.costs(1);
    assert!(costs.complete(), "{costs}");
    costs.total
}

fn operations(shapes: &[&[i64]], forward: impl Fn(&[Tensor]) -> Tensor) -> (u64, u64) {
    let work = total(shapes, forward);
    (work.macs, work.elementwise)
}

fn moved(shapes: &[&[i64]], forward: impl Fn(&[Tensor]) -> Tensor) -> (u64, u64) {
    let work = total(shapes, forward);
    (work.read, work.written)
}

#[test]
fn a_small_net_by_hand() {
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let config = nn::ConvConfig {
        stride: 2,
        padding: 1,
        bias: false,
        ..Default::default()
    };
    let conv = nn::conv2d(&root / "stem" / "conv", 3, 8, 3, config);
    let norm = nn::batch_norm2d(&root / "stem" / "norm", 8, Default::default());
    let head = nn::linear(&root / "head", 8, 5, Default::default());
    let graph = traced(&store, &[&[3, 16, 16]], |x| {
        let y = norm.forward_t(&conv.forward(&x[0]), false).relu();
        head.forward(&y.mean_dim([2i64, 3].as_slice(), false, None::<Kind>))
    })
    .graph;
    let costs = graph.costs(1);
    // 8 maps of 8 x 8, of 3 x 3 x 3 each.
    let (map, conv) = (8 * 64, 8 * 64 * 27);
    assert_eq!(costs.total.macs, conv + 8 * 5);
    // Norm 2, rectifier 1, mean 1 for each of the map; 5 biases.
    assert_eq!(costs.total.elementwise, 4 * map + 5);
    assert_eq!(costs.params, 8 * 27 + 2 * 8 + 8 * 5 + 5);
    assert_eq!(costs.buffers, 2 * 8);
    // The input, and the maps before and behind the norm.
    assert_eq!(costs.total.live, 4 * (3 * 256 + 2 * map));
    assert_eq!(graph.costs(7).total.macs, 7 * costs.total.macs);

    let modules = costs.modules(&graph, 2);
    let found: Vec<_> = modules
        .iter()
        .map(|m| (m.path.as_str(), m.params, m.work.macs))
        .collect();
    assert_eq!(
        found,
        [
            ("", 277, conv + 40),
            ("stem", 232, conv),
            ("stem.conv", 216, conv),
            ("stem.norm", 16, 0),
            ("head", 45, 40),
        ]
    );
    assert_eq!(costs.modules(&graph, 0).len(), 1);
    assert_eq!(modules[0].work, costs.total);
    assert_eq!(modules[0].nodes, graph.nodes.len());

    let kinds = costs.kinds(&graph);
    assert_eq!(kinds[0].kind, "aten::_convolution");
    assert_eq!(kinds[0].params, 216);
    let products: Vec<_> = costs.nodes.iter().filter_map(|n| n.product).collect();
    assert_eq!(products, [Product::Convolution, Product::Linear]);
}

#[test]
fn convolutions() {
    let store = nn::VarStore::new(Device::Cpu);
    let config = nn::ConvConfig {
        groups: 2,
        ..Default::default()
    };
    let grouped = nn::conv2d(store.root() / "a", 4, 6, 3, config);
    let graph = traced(&store, &[&[4, 6, 6]], |x| grouped.forward(&x[0])).graph;
    // 6 x 4 x 4 results of 2 x 3 x 3, and their biases.
    let work = graph.costs(1).total;
    assert_eq!((work.macs, work.elementwise), (96 * 18, 96));
    assert_eq!(work.read, 4 * (4 * 36 + 6 * 18 + 6));
    assert_eq!(work.written, 4 * 96);

    let store = nn::VarStore::new(Device::Cpu);
    let config = nn::ConvTransposeConfig {
        stride: 2,
        bias: false,
        ..Default::default()
    };
    let up = nn::conv_transpose2d(store.root() / "up", 4, 6, 2, config);
    let graph = traced(&store, &[&[4, 5, 5]], |x| up.forward(&x[0])).graph;
    // Each of 4 x 25 inputs goes to 6 x 2 x 2 places.
    assert_eq!(graph.costs(1).total.macs, 100 * 24);
}

#[test]
fn products_of_activations() {
    let (a, b): (&[i64], &[i64]) = (&[3, 4], &[4, 5]);
    assert_eq!(operations(&[a, b], |x| x[0].matmul(&x[1])), (60, 0));
    assert_eq!(operations(&[a, b], |x| x[0].bmm(&x[1])), (60, 0));
    let c: &[i64] = &[3, 5];
    assert_eq!(
        operations(&[c, a, b], |x| x[0].baddbmm(&x[1], &x[2], 1.0, 1.0)),
        (60, 15)
    );
    let einsum = |x: &[Tensor]| Tensor::einsum("bij,bjk->bik", x, None::<i64>);
    assert_eq!(operations(&[a, b], einsum), (60, 0));
}

#[test]
fn attention_fused_and_apart_has_the_same_macs() {
    let shape: &[i64] = &[2, 7, 4];
    let fused = |x: &[Tensor]| {
        let (mask, scale) = (None::<Tensor>, None::<f64>);
        Tensor::scaled_dot_product_attention(&x[0], &x[1], &x[2], mask, 0.0, false, scale, false)
    };
    let apart = |x: &[Tensor]| {
        let scores = x[0].matmul(&x[1].transpose(-2, -1)) * 0.5;
        scores.softmax(-1, None::<Kind>).matmul(&x[2])
    };
    // 2 heads of 7 x 7 scores, of 4 and to 4.
    let expected = (2 * 49 * 8, 2 * 49 * 6);
    assert_eq!(operations(&[shape; 3], fused), expected);
    assert_eq!(operations(&[shape; 3], apart), expected);
}

#[test]
fn norms_reductions_and_pools() {
    let map: &[i64] = &[4, 6, 6];
    let one = |f: fn(&Tensor) -> Tensor| operations(&[map], |x| f(&x[0])).1;
    assert_eq!(one(|x| x.gelu("none")), 144);
    assert_eq!(one(|x| x + x), 144);
    assert_eq!(one(|x| x.softmax(1, None::<Kind>)), 5 * 144);
    assert_eq!(one(|x| x.amax([1i64].as_slice(), false)), 144);
    assert_eq!(one(|x| x.topk(2, 1, true, true).0), 144);
    assert_eq!(
        one(|x| x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None::<i64>)),
        4 * 9 * 4
    );
    let pooled = |x: &Tensor| x.max_pool2d([3, 2], [3, 2], [0, 0], [1, 1], false);
    assert_eq!(one(pooled), 4 * 6 * 6);
    assert_eq!(one(|x| x.adaptive_avg_pool2d([1, 1])), 144);
    assert_eq!(
        one(|x| x.upsample_bilinear2d([12, 12], false, None::<f64>, None::<f64>)),
        8 * 4 * 144
    );
    let store = nn::VarStore::new(Device::Cpu);
    let norm = nn::layer_norm(store.root(), vec![6], Default::default());
    let graph = traced(&store, &[map], |x| norm.forward(&x[0])).graph;
    assert_eq!(graph.costs(1).total.elementwise, 7 * 144);
}

#[test]
fn views_cost_nothing_and_copies_move_bytes() {
    let shape: &[i64] = &[4, 6];
    let bytes = 4 * 24;
    assert_eq!(
        moved(&[shape], |x| x[0].transpose(1, 2).narrow(1, 0, 2)),
        (0, 0)
    );
    assert_eq!(moved(&[shape], |x| x[0].reshape([-1, 24])), (0, 0));
    assert_eq!(moved(&[shape], |x| x[0].contiguous()), (0, 0));
    let copied = (bytes, bytes);
    assert_eq!(
        moved(&[shape], |x| x[0].transpose(1, 2).contiguous()),
        copied
    );
    assert_eq!(
        moved(&[shape], |x| x[0].transpose(1, 2).reshape([-1, 24])),
        copied
    );
    assert_eq!(
        moved(&[shape], |x| Tensor::cat(&[&x[0], &x[0]], 1)),
        (bytes, 2 * bytes)
    );
    // One row of six is read as often as it is stored; all 24 are written.
    let expanded = |x: &[Tensor]| x[0].narrow(1, 0, 1).expand([-1, 4, 6], false) * 2.0;
    assert_eq!(moved(&[shape], expanded), (bytes, bytes));
    // Two of four rows, and their numbers, which are a constant.
    let rows = Tensor::from_slice(&[0i64, 3]);
    assert_eq!(
        moved(&[shape], |x| x[0].index_select(1, &rows)),
        (bytes / 2 + 2 * 8, bytes / 2)
    );
}

#[test]
fn memory_is_what_lives_at_once() {
    let shape: &[i64] = &[10];
    let live = |f: fn(&Tensor) -> Tensor| total(&[shape], |x| f(&x[0])).live / 40;
    // The caller's input, one result.
    assert_eq!(live(Tensor::relu), 2);
    // A chain needs two results at once, however long it is.
    assert_eq!(live(|x| x.relu().tanh().sigmoid().exp()), 3);
    // What comes back later waits.
    assert_eq!(
        live(|x| {
            let y = x.relu();
            y.tanh().sigmoid().exp() + y
        }),
        4
    );
    // A view keeps its tensor.
    assert_eq!(
        live(|x| {
            let y = x.relu();
            let half = y.narrow(1, 0, 5);
            let z = y.tanh().sigmoid().exp();
            z.narrow(1, 0, 5) * half
        }),
        4
    );
}

#[test]
fn what_has_no_rule_is_listed_and_the_total_says_at_least() {
    let store = nn::VarStore::new(Device::Cpu);
    let mut graph = traced(&store, &[&[4, 6]], |x| x[0].relu().tanh()).graph;
    graph.nodes[0].kind = "aten::nobody_knows".to_owned();
    let costs = graph.costs(1);
    assert_eq!(costs.unknown, [("aten::nobody_knows".to_owned(), 1)].into());
    assert_eq!(costs.total.elementwise, 24);
    let text = costs.to_string();
    assert!(text.contains("at least 24"), "{text}");
    assert!(
        text.contains("not counted: aten::nobody_knows (1)"),
        "{text}"
    );
    assert!(!costs.kinds(&graph).iter().all(|kind| kind.known));
}

#[test]
fn a_parameter_folded_into_a_constant_is_still_a_parameter() {
    let store = nn::VarStore::new(Device::Cpu);
    let table = store.root().sub("bias").randn("table", &[5, 6], 0.0, 1.0);
    let graph = traced(&store, &[&[6]], |x| {
        &x[0]
            + table
                .exp()
                .sum_dim_intlist([0i64].as_slice(), false, None::<Kind>)
    })
    .graph;
    assert_eq!(graph.nodes.len(), 1);
    let costs = graph.costs(1);
    assert_eq!((costs.params, costs.total.elementwise), (30, 6));
    assert_eq!(costs.modules(&graph, 1)[1].params, 30);
}

#[test]
fn the_same_kind_has_one_rule() {
    let names = supported();
    assert!(names.len() > 100);
    // As many rules as names: none stands in two groups.
    assert_eq!(names.len(), rules::names().count());
}
