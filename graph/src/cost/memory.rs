//! Whose memory a value is, how long it is needed, and what a node moves.

use super::layout::stays;
use super::rules::Rule;
use super::{Call, sum};
use crate::graph::{Graph, Node, ValueId};

/// Memory while a graph runs, node by node.
pub(super) struct Memory {
    /// The tensor whose memory a value shares, by value.
    owner: Vec<ValueId>,
    /// Bytes of the memory that a value owns; of constants and parameters too, which are not among the live ones.
    bytes: Vec<u64>,
    /// The last node that reads a value itself.
    last_read: Vec<usize>,
    /// Values that own memory and may still be read, with the node that reads them last.
    alive: Vec<(ValueId, usize)>,
}

/// What a node moved, and what was alive meanwhile, in bytes.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub read: u64,
    pub written: u64,
    pub live: u64,
}

/// A read that never comes last: the caller's.
const FOR_EVER: usize = usize::MAX;

impl Memory {
    pub fn new(graph: &Graph, batch: i64) -> Self {
        let mut last_read = vec![0; graph.values.len()];
        for (at, node) in graph.nodes.iter().enumerate() {
            node.inputs().for_each(|id| last_read[id] = at);
        }
        for &id in graph.inputs.iter().chain(&graph.outputs) {
            last_read[id] = FOR_EVER;
        }
        let bytes = graph.values.iter();
        Memory {
            owner: (0..graph.values.len()).collect(),
            bytes: bytes.map(|v| v.bytes(batch)).collect(),
            last_read,
            alive: graph.inputs.iter().map(|&id| (id, FOR_EVER)).collect(),
        }
    }

    /// Runs a node.
    pub fn run(&mut self, at: usize, call: &Call<'_>, rule: &Rule) -> Moved {
        let shared = match rule {
            Rule::View => call.node.inputs().next(),
            Rule::Layout => call.node.inputs().next().filter(|_| stays(call)),
            _ => None,
        };
        if let Some(source) = shared {
            return self.share(at, call.node, source);
        }
        let written = self.allocate(call.node);
        let moved = Moved {
            read: self.read(call, rule, written),
            written,
            live: self.live(),
        };
        self.free(at);
        moved
    }

    /// A node that nothing is known of: it may share its input's memory, so that its results count as none.
    pub fn unknown(&mut self, at: usize, node: &Node) {
        for &id in &node.outputs {
            self.bytes[id] = 0;
        }
        self.free(at);
    }

    fn share(&mut self, at: usize, node: &Node, source: ValueId) -> Moved {
        let owner = self.owner[source];
        for &id in &node.outputs {
            self.owner[id] = owner;
        }
        let last = node.outputs.iter().map(|&id| self.last_read[id]).max();
        if let Some((_, until)) = self.alive.iter_mut().find(|(id, _)| *id == owner) {
            *until = last.map_or(*until, |last| last.max(*until));
        }
        let live = self.live();
        self.free(at);
        Moved {
            live,
            ..Moved::default()
        }
    }

    fn allocate(&mut self, node: &Node) -> u64 {
        let outputs = node.outputs.iter().map(|&id| (id, self.last_read[id]));
        self.alive.extend(outputs);
        sum(node.outputs.iter().map(|&id| self.bytes[id]))
    }

    /// Each input once; one that repeats as often as it is stored, one that is looked up in as far as that gives results.
    fn read(&self, call: &Call<'_>, rule: &Rule, written: u64) -> u64 {
        if matches!(rule, Rule::Fill) {
            return 0;
        }
        let mut seen = Vec::new();
        let mut total = 0;
        for (i, id) in call.node.inputs().enumerate() {
            if seen.contains(&id) {
                continue;
            }
            seen.push(id);
            let value = &call.graph.values[id];
            let stored = value.bytes(call.batch).min(self.bytes[self.owner[id]]);
            let read = match rule {
                Rule::Lookup if i == 0 => stored.min(written),
                _ => stored,
            };
            total = sum([total, read].into_iter());
        }
        total
    }

    fn live(&self) -> u64 {
        sum(self.alive.iter().map(|(id, _)| self.bytes[*id]))
    }

    fn free(&mut self, at: usize) {
        self.alive.retain(|(_, last)| *last > at);
    }
}
