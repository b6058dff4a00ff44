//! Which module an operation belongs to, and what constants are called.

use crate::graph::{Graph, Origin};
use std::collections::{BTreeMap, BTreeSet};

/// libtorch's scope `::a/::b` or `a/b` as a path `a.b`.
pub(crate) fn of_scope(scope: &str) -> String {
    let parts = scope.split('/').map(|part| part.trim_start_matches("::"));
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(".")
}

/// Gives every node without a scope a module: its parameters' own, else what the parameters before and after it share.
pub(crate) fn infer(graph: &mut Graph) {
    let own: Vec<Option<String>> = graph
        .nodes
        .iter()
        .map(|node| match node.module.as_str() {
            "" => {
                let values = node.inputs().map(|v| &graph.values[v]);
                let params = values.filter(|v| v.origin == Origin::Parameter);
                params
                    .map(|v| module_of(&v.name).to_owned())
                    .reduce(|a, b| shared(&a, &b))
            }
            scope => Some(scope.to_owned()),
        })
        .collect();
    let mut after = own.clone();
    for i in (0..after.len().saturating_sub(1)).rev() {
        if after[i].is_none() {
            after[i] = after[i + 1].clone();
        }
    }
    let mut before: Option<String> = None;
    for (i, node) in graph.nodes.iter_mut().enumerate() {
        if let Some(module) = &own[i] {
            before = Some(module.clone());
            node.module.clone_from(module);
            continue;
        }
        node.module = match (&before, &after[i]) {
            (Some(a), Some(b)) => shared(a, b),
            _ => String::new(),
        };
    }
}

/// The path without its last segment.
fn module_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(module, _)| module)
}

/// The longest path that both begin with.
fn shared(a: &str, b: &str) -> String {
    let common = a.split('.').zip(b.split('.'));
    let common: Vec<_> = common.take_while(|(x, y)| x == y).map(|(x, _)| x).collect();
    common.join(".")
}

/// Names constants after the module and argument that read them first, and nodes' values after their module and kind.
pub(crate) fn name_values(graph: &mut Graph) {
    let mut taken: BTreeSet<String> = graph
        .values
        .iter()
        .filter(|v| matches!(v.origin, Origin::Input | Origin::Parameter))
        .map(|v| v.name.clone())
        .collect();
    let mut names: BTreeMap<usize, String> = BTreeMap::new();
    let mut give = |id: usize, wanted: String| {
        names
            .entry(id)
            .or_insert_with(|| unique(wanted, &mut taken));
    };
    for node in &graph.nodes {
        for (argument, arg) in &node.args {
            for id in arg.values() {
                if graph.values[id].origin == Origin::Constant {
                    give(id, joined(&node.module, argument));
                }
            }
        }
        let kind = node.kind.trim_start_matches("aten::");
        for &output in &node.outputs {
            give(output, joined(&node.module, kind.trim_start_matches('_')));
        }
    }
    for (id, name) in names {
        graph.values[id].name = name;
    }
}

fn joined(module: &str, name: &str) -> String {
    match module {
        "" => name.to_owned(),
        module => format!("{module}.{name}"),
    }
}

fn unique(wanted: String, taken: &mut BTreeSet<String>) -> String {
    if taken.insert(wanted.clone()) {
        return wanted;
    }
    let mut number = 1;
    loop {
        let name = format!("{wanted}_{number}");
        if taken.insert(name.clone()) {
            return name;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(of_scope("::blocks/::0"), "blocks.0");
        assert_eq!(of_scope(""), "");
        assert_eq!(
            shared("blocks.0.attn.qkv", "blocks.0.attn.proj"),
            "blocks.0.attn"
        );
        assert_eq!(shared("stem", "head"), "");
        assert_eq!(module_of("blocks.0.weight"), "blocks.0");
    }

    #[test]
    fn names_are_never_given_twice() {
        let mut taken = BTreeSet::new();
        let names: Vec<_> = (0..3).map(|_| unique("a".to_owned(), &mut taken)).collect();
        assert_eq!(names, ["a", "a_1", "a_2"]);
    }
}
