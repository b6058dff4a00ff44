//! Costs by module and by kind of operator.

use super::{Costs, Work};
use crate::graph::{Graph, ValueId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a module costs, all that it holds together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ModuleCost {
    /// Its path; empty for the whole.
    pub path: String,
    /// Segments of the path.
    pub depth: usize,
    /// Operators that belong to it.
    pub nodes: usize,
    /// Elements of its trainable parameters, read or not.
    pub params: u64,
    /// What it does.
    #[serde(flatten)]
    pub work: Work,
}

/// What the operators of a kind cost together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KindCost {
    /// libtorch's name.
    pub kind: String,
    /// How many there are.
    pub nodes: usize,
    /// Elements of the trainable parameters that they read.
    pub params: u64,
    /// Whether the kind has a rule; without one it counts as nothing.
    pub known: bool,
    /// What they do.
    #[serde(flatten)]
    pub work: Work,
}

impl Graph {
    /// Elements of the trainable variables, by name.
    pub(super) fn trainable(&self) -> BTreeMap<&str, u64> {
        let variables = self.variables.iter().filter(|v| v.trainable);
        variables.map(|v| (v.name.as_str(), v.elements)).collect()
    }
}

/// Elements of the trainable parameters among these values, each once.
pub(super) fn distinct(
    graph: &Graph,
    values: impl Iterator<Item = ValueId>,
    trainable: &BTreeMap<&str, u64>,
) -> u64 {
    let ids: BTreeSet<ValueId> = values.collect();
    let params = ids.iter().map(|&id| graph.values[id].name.as_str());
    super::sum(params.filter_map(|name| trainable.get(name).copied()))
}

impl Costs {
    /// The tree of modules down to this depth (0 is the whole alone), each before what it holds, in the order of the nodes.
    ///
    /// A node belongs to the module of its parameters, or to what the modules around it share. `graph` is the one counted.
    pub fn modules(&self, graph: &Graph, depth: usize) -> Vec<ModuleCost> {
        let mut tree = Tree::default();
        for (node, cost) in graph.nodes.iter().zip(&self.nodes) {
            for module in tree.along(&node.module, depth) {
                module.nodes += 1;
                module.work += cost.work;
            }
        }
        for variable in graph.variables.iter().filter(|v| v.trainable) {
            let module = variable.name.rsplit_once('.').map_or("", |(path, _)| path);
            for module in tree.along(module, depth) {
                module.params = module.params.saturating_add(variable.elements);
            }
        }
        tree.in_order()
    }

    /// Kinds of operators, the most MACs first, then the most elementwise operations. `graph` is the one counted.
    pub fn kinds(&self, graph: &Graph) -> Vec<KindCost> {
        let trainable = graph.trainable();
        let mut read: BTreeMap<&str, BTreeSet<ValueId>> = BTreeMap::new();
        let mut kinds: BTreeMap<&str, KindCost> = BTreeMap::new();
        for (node, cost) in graph.nodes.iter().zip(&self.nodes) {
            let kind = kinds.entry(&node.kind).or_default();
            kind.nodes += 1;
            kind.work += cost.work;
            read.entry(&node.kind).or_default().extend(node.inputs());
        }
        let mut kinds: Vec<KindCost> = kinds
            .into_iter()
            .map(|(name, kind)| KindCost {
                kind: name.to_owned(),
                known: !self.unknown.contains_key(name),
                params: distinct(graph, read[name].iter().copied(), &trainable),
                ..kind
            })
            .collect();
        kinds.sort_by_key(|kind| {
            let work = &kind.work;
            std::cmp::Reverse((work.macs, work.elementwise, work.written))
        });
        kinds
    }
}

/// Modules by path, and when each was first met.
#[derive(Default)]
struct Tree {
    modules: Vec<ModuleCost>,
    places: BTreeMap<String, usize>,
}

impl Tree {
    /// The module and those that hold it, to this depth.
    fn along(&mut self, path: &str, depth: usize) -> impl Iterator<Item = &mut ModuleCost> {
        let segments: Vec<&str> = path.split('.').filter(|s| !s.is_empty()).collect();
        let mut places: Vec<usize> = (0..=depth.min(segments.len()))
            .map(|n| self.place(&segments[..n]))
            .collect();
        places.sort_unstable();
        let modules = self.modules.iter_mut().enumerate();
        modules
            .filter(move |(i, _)| places.binary_search(i).is_ok())
            .map(|(_, module)| module)
    }

    fn place(&mut self, segments: &[&str]) -> usize {
        let path = segments.join(".");
        let next = self.modules.len();
        let place = *self.places.entry(path.clone()).or_insert(next);
        if place == next {
            self.modules.push(ModuleCost {
                path,
                depth: segments.len(),
                ..ModuleCost::default()
            });
        }
        place
    }

    /// Each module before those it holds, siblings as they were met.
    fn in_order(self) -> Vec<ModuleCost> {
        let places = &self.places;
        let mut order: Vec<(Vec<usize>, &ModuleCost)> = self
            .modules
            .iter()
            .map(|module| {
                let segments: Vec<&str> = module.path.split('.').collect();
                let above = (0..=module.depth).map(|n| places[&segments[..n].join(".")]);
                (above.collect(), module)
            })
            .collect();
        order.sort_by(|(a, _), (b, _)| a.cmp(b));
        order
            .into_iter()
            .map(|(_, module)| module.clone())
            .collect()
    }
}
