//! Nodes and values that no output needs.

use crate::Trace;
use crate::graph::Graph;
use std::collections::BTreeMap;

/// Removes nodes that no output needs, and values that nothing reads, inputs excepted.
pub fn remove_dead(trace: &mut Trace) {
    let graph = &mut trace.graph;
    let mut needed = vec![false; graph.values.len()];
    for &id in graph.outputs.iter().chain(&graph.inputs) {
        needed[id] = true;
    }
    let mut kept = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        kept[i] = node.outputs.iter().any(|&v| needed[v]);
        if kept[i] {
            node.inputs().for_each(|v| needed[v] = true);
        }
    }
    // A node keeps its other outputs, so that they still have their places.
    for (node, _) in graph.nodes.iter().zip(&kept).filter(|(_, kept)| **kept) {
        node.outputs.iter().for_each(|&v| needed[v] = true);
    }
    let mut kept = kept.into_iter();
    graph.nodes.retain(|_| kept.next().unwrap_or(false));
    renumber(graph, &needed, &mut trace.tensors);
}

fn renumber<T>(graph: &mut Graph, needed: &[bool], tensors: &mut BTreeMap<usize, T>) {
    let mut new = Vec::with_capacity(needed.len());
    let mut next = 0;
    for &needed in needed {
        new.push(next);
        next += usize::from(needed);
    }
    let mut flags = needed.iter();
    graph.values.retain(|_| *flags.next().unwrap_or(&false));
    for id in graph.inputs.iter_mut().chain(&mut graph.outputs) {
        *id = new[*id];
    }
    for node in &mut graph.nodes {
        for (_, arg) in &mut node.args {
            arg.values_mut().for_each(|id| *id = new[*id]);
        }
        node.outputs.iter_mut().for_each(|id| *id = new[*id]);
    }
    *tensors = std::mem::take(tensors)
        .into_iter()
        .filter(|(id, _)| needed[*id])
        .map(|(id, t)| (new[id], t))
        .collect();
}
