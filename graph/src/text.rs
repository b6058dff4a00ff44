//! A graph for reading: lines of text.

use crate::graph::{Arg, Graph, Node, Origin, Value};
use std::fmt;

impl fmt::Display for Graph {
    /// One line a node: values with kind and shape, the operation, its arguments, its module.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &id in &self.inputs {
            writeln!(f, "input {}", self.values[id])?;
        }
        for value in &self.values {
            match value.origin {
                Origin::Parameter => writeln!(f, "parameter {value}")?,
                Origin::Constant => writeln!(f, "constant {value}")?,
                Origin::Input | Origin::Node => {}
            }
        }
        for node in &self.nodes {
            let outputs: Vec<_> = node.outputs.iter().map(|&v| &self.values[v]).collect();
            let outputs: Vec<_> = outputs.iter().map(ToString::to_string).collect();
            writeln!(f, "{} = {}", outputs.join(", "), self.call(node))?;
        }
        let outputs: Vec<_> = self.outputs.iter().map(|&v| &self.values[v].name).collect();
        let outputs: Vec<_> = outputs.iter().map(|name| name.as_str()).collect();
        writeln!(f, "return {}", outputs.join(", "))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = format!("{:?}", self.dtype).to_lowercase();
        write!(f, "{}: {dtype}{}", self.name, shape(self))
    }
}

pub(crate) fn shape(value: &Value) -> String {
    let axes: Vec<_> = value.shape.iter().map(ToString::to_string).collect();
    format!("[{}]", axes.join(", "))
}

impl Graph {
    fn call(&self, node: &Node) -> String {
        let args = node.args.iter().filter(|(_, arg)| *arg != Arg::None);
        let args: Vec<_> = args
            .map(|(name, arg)| format!("{name}={}", self.argument(arg)))
            .collect();
        format!("{}({})", node.kind, args.join(", "))
    }

    fn argument(&self, arg: &Arg) -> String {
        let name = |id: &usize| self.values[*id].name.clone();
        match arg {
            Arg::None => "none".to_owned(),
            Arg::Bool(b) => b.to_string(),
            Arg::Int(i) => i.to_string(),
            Arg::Float(x) => x.to_string(),
            Arg::Text(text) => format!("{text:?}"),
            Arg::Value(id) => format!("%{}", name(id)),
            Arg::Ints(ints) => list(ints.iter().map(ToString::to_string)),
            Arg::Floats(x) => list(x.iter().map(ToString::to_string)),
            Arg::Bools(bits) => list(bits.iter().map(ToString::to_string)),
            Arg::Values(ids) => list(ids.iter().map(|id| {
                id.as_ref()
                    .map_or("none".to_owned(), |id| format!("%{}", name(id)))
            })),
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    format!("[{}]", items.join(", "))
}
