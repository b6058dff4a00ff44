//! An ONNX model before it is bytes: nodes by name, weights as tensors.

use crate::Size;
use crate::graph::Dtype;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tch::{Kind, Tensor};

/// An attribute of a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Attribute {
    Int(i64),
    Float(f64),
    Text(String),
    Ints(Vec<i64>),
}

/// An operator of the standard set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Op {
    pub kind: &'static str,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: Vec<(&'static str, Attribute)>,
}

impl Op {
    pub fn new(kind: &'static str, inputs: &[&str]) -> Op {
        Op {
            kind,
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            outputs: Vec::new(),
            attributes: Vec::new(),
        }
    }

    pub fn int(mut self, name: &'static str, value: i64) -> Op {
        self.attributes.push((name, Attribute::Int(value)));
        self
    }

    pub fn float(mut self, name: &'static str, value: f64) -> Op {
        self.attributes.push((name, Attribute::Float(value)));
        self
    }

    pub fn text(mut self, name: &'static str, value: &str) -> Op {
        self.attributes
            .push((name, Attribute::Text(value.to_owned())));
        self
    }

    pub fn ints(mut self, name: &'static str, value: Vec<i64>) -> Op {
        self.attributes.push((name, Attribute::Ints(value)));
        self
    }

    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        let found = self.attributes.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| value)
    }
}

/// What the caller gives or gets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Port {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<Size>,
}

/// Nodes in an order in which they can be run.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub ops: Vec<Op>,
    pub weights: BTreeMap<String, Tensor>,
    /// Axes of what the graph's own nodes compute; nothing of what stands between them.
    pub shapes: HashMap<String, Vec<Size>>,
    taken: BTreeSet<String>,
}

impl Draft {
    /// Reserves a name: `wanted`, or the next free one like it.
    pub fn name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 1;
        while !self.taken.insert(name.clone()) {
            name = format!("{wanted}.{number}");
            number += 1;
        }
        name
    }

    /// Adds a weight, or finds the same one.
    pub fn weight(&mut self, wanted: &str, tensor: Tensor) -> String {
        let same =
            |t: &Tensor| t.kind() == tensor.kind() && t.size() == tensor.size() && t.equal(&tensor);
        // Indices are the same in every block, and large where the map is.
        let repeats = tensor.numel() <= 64 || tensor.kind() == Kind::Int64;
        if repeats && let Some((name, _)) = self.weights.iter().find(|(_, t)| same(t)) {
            return name.clone();
        }
        let name = self.name(wanted);
        self.weights.insert(name.clone(), tensor);
        name
    }

    /// A vector of integers.
    pub fn ints(&mut self, values: &[i64]) -> String {
        self.weight("shape", Tensor::from_slice(values))
    }

    /// A number of this kind, without axes.
    pub fn scalar(&mut self, value: f64, dtype: Dtype) -> String {
        let t = Tensor::from(value).to_kind(kind_of(dtype));
        self.weight("scalar", t)
    }

    /// Adds an operator with one output called like `wanted`; gives the output's name.
    pub fn add(&mut self, op: Op, wanted: &str) -> String {
        let output = self.name(wanted);
        self.ops.push(Op {
            outputs: vec![output.clone()],
            ..op
        });
        output
    }
}

/// tch's kind of a dtype.
pub(super) fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::Bool => Kind::Bool,
        Dtype::Bf16 => Kind::BFloat16,
    }
}
