//! A graph's products as the input of every estimate of energy.

use zoo_energy::{Contraction, Counts, Op, Operand};
use zoo_graph::cost::{Costs, Product};
use zoo_graph::{Graph, Node, Origin, Value};

/// The counts of one image of an ordinary network: every operand is taken for real numbers, none of them zero, and all of a
/// graph's work for one time step.
///
/// `costs` are those of `graph`. What a spiking network skips is no part of a graph: count that on images.
pub fn graph_counts(graph: &Graph, costs: &Costs) -> Counts {
    let nodes = graph.nodes.iter().zip(&costs.nodes);
    let products = nodes.filter_map(|(node, cost)| {
        let product = cost.product?;
        Some(contraction(
            graph,
            node,
            product,
            cost.work.macs,
            costs.batch,
        ))
    });
    Counts {
        contractions: products.collect(),
        neurons: Vec::new(),
    }
}

fn contraction(graph: &Graph, node: &Node, product: Product, macs: u64, batch: i64) -> Contraction {
    let images = batch as f64;
    let values = || node.inputs().map(|id| &graph.values[id]);
    let held = |value: &&Value| matches!(value.origin, Origin::Parameter | Origin::Constant);
    let bias = node.arg("bias").values().next();
    let biases = bias.map_or(0, |id| graph.values[id].elements(batch));
    let weights: u64 = values().filter(held).map(|v| v.elements(batch)).sum();
    let outputs: u64 = node
        .outputs
        .iter()
        .map(|&id| graph.values[id].elements(batch))
        .sum();
    // A weight counts once however often it is used: its own name tells it, where a module has several.
    let weight = values().find(|v| held(v) && v.shape.len() > 1);
    let module = weight.map_or(node.module.as_str(), |v| v.name.trim_end_matches(".weight"));
    Contraction {
        module: module.to_owned(),
        op: match product {
            Product::Convolution => Op::Convolution,
            Product::Linear => Op::Linear,
            Product::MatMul => Op::MatMul,
        },
        macs: macs as f64 / images,
        steps: 1,
        weights: if product == Product::MatMul {
            0
        } else {
            weights.saturating_sub(biases)
        },
        biases,
        outputs: outputs as f64 / images,
        input: Operand::REAL,
        other: (product == Product::MatMul).then_some(Operand::REAL),
        matrices: None,
    }
}
