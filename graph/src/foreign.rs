//! Graphs from elsewhere.

use crate::graph::{Graph, Node, Origin, Value, ValueId, Variable};
use serde::Deserialize;

/// A graph as it is written, of which nothing is known yet.
#[derive(Deserialize)]
pub(crate) struct Foreign {
    inputs: Vec<ValueId>,
    outputs: Vec<ValueId>,
    values: Vec<Value>,
    nodes: Vec<Node>,
    #[serde(default)]
    variables: Vec<Variable>,
}

impl TryFrom<Foreign> for Graph {
    type Error = String;

    fn try_from(foreign: Foreign) -> Result<Graph, String> {
        let Foreign {
            inputs,
            outputs,
            values,
            nodes,
            variables,
        } = foreign;
        let graph = Graph {
            inputs,
            outputs,
            values,
            nodes,
            variables,
        };
        check(&graph)?;
        Ok(graph)
    }
}

/// Every value that is read is there by then; every value is computed once.
fn check(graph: &Graph) -> Result<(), String> {
    let count = graph.values.len();
    let missing = |id: ValueId| format!("there is no value {id}, there are {count}");
    let mut known: Vec<bool> = graph
        .values
        .iter()
        .map(|value| matches!(value.origin, Origin::Parameter | Origin::Constant))
        .collect();
    for &id in &graph.inputs {
        *known.get_mut(id).ok_or_else(|| missing(id))? = true;
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        let named = |what: String| format!("node {at} (`{}`): {what}", node.kind);
        for id in node.inputs() {
            match known.get(id) {
                Some(true) => {}
                Some(false) => return Err(named(format!("value {id} is not computed before"))),
                None => return Err(named(missing(id))),
            }
        }
        for &id in &node.outputs {
            let known = known.get_mut(id).ok_or_else(|| named(missing(id)))?;
            if std::mem::replace(known, true) {
                return Err(named(format!("value {id} is there already")));
            }
        }
    }
    for &id in &graph.outputs {
        if !*known.get(id).ok_or_else(|| missing(id))? {
            return Err(format!("the output, value {id}, is not computed"));
        }
    }
    Ok(())
}
