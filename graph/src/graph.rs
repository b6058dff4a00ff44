//! The data: values, nodes, arguments.

use crate::Size;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Position of a value in [`Graph::values`].
pub type ValueId = usize;

/// Kind of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Dtype {
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
    Bool,
    Bf16,
}

impl Dtype {
    /// libtorch's number of the kind.
    pub(crate) fn of_libtorch(number: i64) -> Option<Dtype> {
        Some(match number {
            0 => Dtype::U8,
            1 => Dtype::I8,
            2 => Dtype::I16,
            3 => Dtype::I32,
            4 => Dtype::I64,
            5 => Dtype::F16,
            6 => Dtype::F32,
            7 => Dtype::F64,
            11 => Dtype::Bool,
            15 => Dtype::Bf16,
            _ => return None,
        })
    }

    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::U8 | Dtype::I8 | Dtype::Bool => 1,
            Dtype::I16 | Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::I32 | Dtype::F32 => 4,
            Dtype::I64 | Dtype::F64 => 8,
        }
    }

    /// Whether it is a floating-point kind.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::F32 | Dtype::F64 | Dtype::Bf16)
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The caller gives it.
    Input,
    /// A variable of the store, under its name there.
    Parameter,
    /// A tensor that the model holds outside the store, or one computed from such and from parameters.
    Constant,
    /// A node computes it.
    Node,
}

/// A tensor of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Unique: the input's or parameter's name, `MODULE.argument` of a constant, a number for what nodes compute.
    pub name: String,
    /// Kind of its elements.
    pub dtype: Dtype,
    /// Its axes.
    pub shape: Vec<Size>,
    /// Elements from one index of an axis to the next, as they lay in memory when traced; empty where that is not known.
    #[serde(default)]
    pub strides: Vec<Size>,
    /// Where it comes from.
    pub origin: Origin,
}

impl Value {
    /// Elements at this batch.
    pub fn elements(&self, batch: i64) -> u64 {
        let axes = self.shape.iter();
        axes.map(|axis| axis.at(batch).unsigned_abs())
            .fold(1, u64::saturating_mul)
    }

    /// Bytes at this batch.
    pub fn bytes(&self, batch: i64) -> u64 {
        self.elements(batch).saturating_mul(self.dtype.bytes())
    }

    /// The shape, where it does not depend on the batch.
    pub fn fixed_shape(&self) -> Option<Vec<i64>> {
        self.shape.iter().map(|axis| axis.as_fixed()).collect()
    }
}

/// An argument of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arg {
    /// Left out.
    None,
    /// A flag.
    Bool(bool),
    /// An integer.
    Int(Size),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Text(String),
    /// A tensor.
    Value(ValueId),
    /// Integers.
    Ints(Vec<Size>),
    /// Floating-point numbers.
    Floats(Vec<f64>),
    /// Flags.
    Bools(Vec<bool>),
    /// Tensors, some of which may be left out.
    Values(Vec<Option<ValueId>>),
}

impl Arg {
    /// The tensors in it.
    pub fn values(&self) -> impl Iterator<Item = ValueId> + '_ {
        let (one, many) = match self {
            Arg::Value(id) => (Some(*id), [].as_slice()),
            Arg::Values(ids) => (None, ids.as_slice()),
            _ => (None, [].as_slice()),
        };
        one.into_iter().chain(many.iter().flatten().copied())
    }

    /// The tensors in it, to be replaced.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut ValueId> + '_ {
        let (one, many) = match self {
            Arg::Value(id) => (Some(id), [].as_mut_slice()),
            Arg::Values(ids) => (None, ids.as_mut_slice()),
            _ => (None, [].as_mut_slice()),
        };
        one.into_iter().chain(many.iter_mut().flatten())
    }
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// libtorch's name of it: `aten::linear`.
    pub kind: String,
    /// Path of the module it belongs to, as far as it can be told from the parameters around it.
    pub module: String,
    /// Arguments by libtorch's names, in its order.
    pub args: Vec<(String, Arg)>,
    /// What it computes.
    pub outputs: Vec<ValueId>,
}

impl Node {
    /// The argument of this name; [`Arg::None`] where there is none.
    pub fn arg(&self, name: &str) -> &Arg {
        let found = self.args.iter().find(|(n, _)| n == name);
        found.map_or(&Arg::None, |(_, arg)| arg)
    }

    /// The tensors it reads.
    pub fn inputs(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.args.iter().flat_map(|(_, arg)| arg.values())
    }
}

/// A tensor of the store that was traced over.
///
/// A graph may read less: what depends on parameters alone is computed when it is traced, and is a constant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name in the store.
    pub name: String,
    /// Its elements.
    pub elements: u64,
    /// Whether training changes it; statistics of norms are variables that it does not.
    pub trainable: bool,
}

/// What a model computes. Nodes stand in an order in which they can be run.
///
/// One that is read (serde) is refused unless every value is there, and computed once before it is read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "crate::foreign::Foreign")]
pub struct Graph {
    /// What the caller gives.
    pub inputs: Vec<ValueId>,
    /// What the caller gets.
    pub outputs: Vec<ValueId>,
    /// All tensors.
    pub values: Vec<Value>,
    /// All operations.
    pub nodes: Vec<Node>,
    /// What the store held, read by a node or not.
    pub variables: Vec<Variable>,
}

impl Graph {
    /// The node that computes a value, by value.
    pub fn producers(&self) -> BTreeMap<ValueId, usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .flat_map(|(i, node)| node.outputs.iter().map(move |&v| (v, i)))
            .collect()
    }

    /// How often each value is read, by nodes and as an output.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.values.len()];
        let read = self.nodes.iter().flat_map(Node::inputs);
        for value in read.chain(self.outputs.iter().copied()) {
            uses[value] += 1;
        }
        uses
    }
}
