//! What the tracer recorded, at one batch, without its lists and constants.

use crate::ffi::{Constant, Recorded, RecordedNode};
use crate::trace::TraceError;
use std::collections::BTreeMap;
use tch::Tensor;

/// An argument at one batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plain {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Value(usize),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    Values(Vec<Option<usize>>),
}

impl Plain {
    fn values(&self) -> impl Iterator<Item = usize> + '_ {
        let (one, many) = match self {
            Plain::Value(value) => (Some(*value), [].as_slice()),
            Plain::Values(values) => (None, values.as_slice()),
            _ => (None, [].as_slice()),
        };
        one.into_iter().chain(many.iter().flatten().copied())
    }
}

#[derive(Debug)]
pub(crate) struct PlainNode {
    pub kind: String,
    pub scope: String,
    pub args: Vec<(String, Plain)>,
    pub outputs: Vec<usize>,
}

impl PlainNode {
    /// The tensors it reads.
    pub fn inputs(&self) -> impl Iterator<Item = usize> + '_ {
        self.args.iter().flat_map(|(_, arg)| arg.values())
    }
}

/// A trace at one batch.
#[derive(Debug)]
pub(crate) struct PlainGraph {
    pub recorded: Recorded,
    pub nodes: Vec<PlainNode>,
    /// Tensors that the trace met and did not know, by value.
    pub constants: BTreeMap<usize, Tensor>,
}

/// Resolves constants and lists into arguments.
pub(crate) fn import(mut recorded: Recorded) -> Result<PlainGraph, TraceError> {
    let mut importer = Importer::default();
    for node in std::mem::take(&mut recorded.nodes) {
        importer.take(node, &recorded)?;
    }
    Ok(PlainGraph {
        nodes: importer.nodes,
        constants: importer.constants,
        recorded,
    })
}

#[derive(Default)]
struct Importer {
    known: BTreeMap<usize, Plain>,
    /// The node that gives a list, by the list.
    lists: BTreeMap<usize, usize>,
    nodes: Vec<PlainNode>,
    constants: BTreeMap<usize, Tensor>,
}

impl Importer {
    fn take(&mut self, node: RecordedNode, recorded: &Recorded) -> Result<(), TraceError> {
        match node.kind.as_str() {
            "prim::Constant" => self.constant(&node, recorded),
            "prim::ListConstruct" | "prim::TupleConstruct" => self.list(&node),
            "prim::ListUnpack" | "prim::TupleUnpack" => self.unpack(node),
            _ => {
                self.operation(node);
                Ok(())
            }
        }
    }

    fn operation(&mut self, node: RecordedNode) {
        let args = node.inputs.iter().zip(node.names);
        let args = args
            .map(|(value, name)| (name, self.plain(*value)))
            .collect();
        for output in &node.outputs {
            self.lists.insert(*output, self.nodes.len());
        }
        self.nodes.push(PlainNode {
            kind: node.kind,
            scope: node.scope,
            args,
            outputs: node.outputs,
        });
    }

    fn plain(&self, value: usize) -> Plain {
        let known = self.known.get(&value);
        known.cloned().unwrap_or(Plain::Value(value))
    }

    fn constant(&mut self, node: &RecordedNode, recorded: &Recorded) -> Result<(), TraceError> {
        let output = node.outputs[0];
        let float = |text: &String| {
            text.parse::<f64>()
                .map_err(|_| TraceError::Constant { what: text.clone() })
        };
        let plain = match &node.constant {
            Some(Constant::None) => Plain::None,
            Some(Constant::Bool(b)) => Plain::Bool(*b),
            Some(Constant::Int(i)) => Plain::Int(*i),
            Some(Constant::Float(text)) => Plain::Float(float(text)?),
            Some(Constant::Text(text)) => Plain::Text(text.clone()),
            Some(Constant::Ints(ints)) => Plain::Ints(ints.clone()),
            Some(Constant::Floats(texts)) => {
                Plain::Floats(texts.iter().map(float).collect::<Result<_, _>>()?)
            }
            Some(Constant::Bools(bits)) => Plain::Bools(bits.clone()),
            Some(Constant::Tensor(i)) => {
                let tensor = recorded.tensors[*i].shallow_clone();
                self.constants.insert(output, tensor);
                return Ok(());
            }
            Some(Constant::Other(what)) => return Err(TraceError::Constant { what: what.clone() }),
            None => {
                return Err(TraceError::Constant {
                    what: "without a value".to_owned(),
                });
            }
        };
        self.known.insert(output, plain);
        Ok(())
    }

    fn list(&mut self, node: &RecordedNode) -> Result<(), TraceError> {
        let items: Vec<Plain> = node.inputs.iter().map(|v| self.plain(*v)).collect();
        let list = ints(&items)
            .or_else(|| floats(&items))
            .or_else(|| bools(&items))
            .or_else(|| values(&items))
            .ok_or_else(|| TraceError::Constant {
                what: format!("a list of {items:?}"),
            })?;
        self.known.insert(node.outputs[0], list);
        Ok(())
    }

    fn unpack(&mut self, node: RecordedNode) -> Result<(), TraceError> {
        let list = node.inputs[0];
        if let Some(Plain::Values(items)) = self.known.get(&list) {
            for (output, item) in node.outputs.into_iter().zip(items.clone()) {
                let plain = item.map_or(Plain::None, Plain::Value);
                self.known.insert(output, plain);
            }
            return Ok(());
        }
        let producer = self.lists.get(&list).ok_or_else(|| TraceError::Constant {
            what: "a list that nothing makes".to_owned(),
        })?;
        self.nodes[*producer].outputs = node.outputs;
        Ok(())
    }
}

fn ints(items: &[Plain]) -> Option<Plain> {
    let ints = items.iter().map(|item| match item {
        Plain::Int(i) => Some(*i),
        _ => None,
    });
    ints.collect::<Option<_>>().map(Plain::Ints)
}

fn floats(items: &[Plain]) -> Option<Plain> {
    let floats = items.iter().map(|item| match item {
        Plain::Float(x) => Some(*x),
        _ => None,
    });
    floats.collect::<Option<_>>().map(Plain::Floats)
}

fn bools(items: &[Plain]) -> Option<Plain> {
    let bits = items.iter().map(|item| match item {
        Plain::Bool(b) => Some(*b),
        _ => None,
    });
    bits.collect::<Option<_>>().map(Plain::Bools)
}

fn values(items: &[Plain]) -> Option<Plain> {
    let values = items.iter().map(|item| match item {
        Plain::Value(v) => Some(Some(*v)),
        Plain::None => Some(None),
        _ => None,
    });
    values.collect::<Option<_>>().map(Plain::Values)
}
