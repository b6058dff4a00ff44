//! What a graph costs: parameters, multiply-accumulates, elementwise operations, bytes, memory.
//!
//! Counted from the nodes alone, at any batch. [`supported`] lists how each operator counts; one without a rule is listed in
//! [`Costs::unknown`], and every total then is a lower bound and says so.
//!
//! - **MACs**: multiply-accumulates of convolutions, linear layers, matrix products and attention. Biases are none.
//! - **elementwise**: one for each result of an arithmetic operation or of a function of one number. A reduction counts one for
//!   each number it reads; softmax five (largest, difference, exponential, sum, quotient); a norm over the input five (mean,
//!   difference, square, sum, quotient) and two more with weights; a batch norm with known statistics two; a bias one.
//! - **bytes**: each operator reads every input once and writes its results once, as if nothing stayed in a cache. A view moves
//!   nothing; a tensor that repeats (`expand`) is read as often as it is stored; a lookup reads what it gives.
//! - **live**: activations that exist while the node runs: the graph's inputs, which the caller holds, and every result that is
//!   still to be read. Views share their tensor's memory. Parameters, constants and an operator's own scratch are not counted.

mod einsum;
mod layout;
mod memory;
mod parts;
mod products;
mod rules;
#[cfg(test)]
mod tests;
mod text;

use crate::graph::{Graph, Node, Value};
use memory::Memory;
use rules::Rule;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::AddAssign;

pub use parts::{KindCost, ModuleCost};
pub use rules::supported;

/// What is done, summed over nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Multiply-accumulates.
    pub macs: u64,
    /// Elementwise operations.
    pub elementwise: u64,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Bytes of activations that exist at once, at most.
    pub live: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.macs = self.macs.saturating_add(other.macs);
        self.elementwise = self.elementwise.saturating_add(other.elementwise);
        self.read = self.read.saturating_add(other.read);
        self.written = self.written.saturating_add(other.written);
        self.live = self.live.max(other.live);
    }
}

/// Kinds of products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Product {
    /// With a convolution's weight.
    Convolution,
    /// With a matrix of parameters or constants.
    Linear,
    /// Of activations with activations.
    MatMul,
}

/// What a node costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NodeCost {
    /// Elements of the trainable parameters that it reads.
    pub params: u64,
    /// The kind of product, where it has MACs.
    pub product: Option<Product>,
    /// What it does.
    #[serde(flatten)]
    pub work: Work,
}

/// What a graph costs at a batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Costs {
    /// The batch.
    pub batch: i64,
    /// Elements of the trainable parameters, read or not.
    pub params: u64,
    /// Elements of the store's other tensors, such as statistics of norms.
    pub buffers: u64,
    /// All nodes together.
    pub total: Work,
    /// Node by node, in the graph's order.
    pub nodes: Vec<NodeCost>,
    /// Operators without a rule, and how often they were met: with any, every figure is "at least".
    pub unknown: BTreeMap<String, usize>,
}

impl Costs {
    /// Whether every operator has a rule, so that the totals are no lower bounds.
    pub fn complete(&self) -> bool {
        self.unknown.is_empty()
    }
}

impl Graph {
    /// What the graph costs at this batch.
    pub fn costs(&self, batch: i64) -> Costs {
        let mut memory = Memory::new(self, batch);
        let mut total = Work::default();
        let mut unknown = BTreeMap::new();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let trainable = self.trainable();
        for (at, node) in self.nodes.iter().enumerate() {
            let call = Call {
                graph: self,
                node,
                batch,
            };
            let work = match rules::find(&node.kind) {
                Some(rule) => call.work(rule, &mut memory, at),
                None => {
                    *unknown.entry(node.kind.clone()).or_insert(0) += 1;
                    memory.unknown(at, node);
                    Work::default()
                }
            };
            total += work;
            nodes.push(NodeCost {
                params: parts::distinct(self, node.inputs(), &trainable),
                product: (work.macs > 0).then(|| call.product()),
                work,
            });
        }
        let elements = |trainable| {
            let some = self.variables.iter().filter(|v| v.trainable == trainable);
            sum(some.map(|v| v.elements))
        };
        Costs {
            batch,
            params: elements(true),
            buffers: elements(false),
            total,
            nodes,
            unknown,
        }
    }
}

/// Counts that no number is large enough for are the largest there is.
fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// The same of a product.
fn product(counts: impl IntoIterator<Item = u64>) -> u64 {
    counts.into_iter().fold(1, u64::saturating_mul)
}

/// A node at a batch.
#[derive(Clone, Copy)]
struct Call<'a> {
    graph: &'a Graph,
    node: &'a Node,
    batch: i64,
}

impl<'a> Call<'a> {
    fn work(&self, rule: &Rule, memory: &mut Memory, at: usize) -> Work {
        let operations = rules::operations(rule, self);
        let moved = memory.run(at, self, rule);
        Work {
            macs: operations.macs,
            elementwise: operations.elementwise,
            read: moved.read,
            written: moved.written,
            live: moved.live,
        }
    }

    /// The tensor of an argument.
    fn tensor(&self, name: &str) -> Option<&'a Value> {
        let id = self.node.arg(name).values().next()?;
        Some(&self.graph.values[id])
    }

    /// The first tensor among the arguments.
    fn first(&self) -> Option<&'a Value> {
        let id = self.node.inputs().next()?;
        Some(&self.graph.values[id])
    }

    /// The first result.
    fn result(&self) -> Option<&'a Value> {
        self.node.outputs.first().map(|&id| &self.graph.values[id])
    }

    fn shape(&self, value: &Value) -> Vec<u64> {
        let axes = value.shape.iter();
        axes.map(|axis| axis.at(self.batch).unsigned_abs())
            .collect()
    }

    fn elements(&self, value: Option<&Value>) -> u64 {
        value.map_or(0, |value| value.elements(self.batch))
    }
}
