//! Formulas of the operators that are no single loop.

use super::rules::Operations;
use super::{Call, Product, einsum, product};
use crate::Size;
use crate::graph::{Arg, Origin, Value};

impl Call<'_> {
    /// The kind of a product: with weights where the other operand is no activation.
    pub(super) fn product(&self) -> Product {
        if self.node.kind == "aten::_convolution" {
            return Product::Convolution;
        }
        let activations = self.node.inputs().map(|id| &self.graph.values[id]);
        let activations = activations.filter(|v| activation(v)).count();
        match self.node.arg("weight") {
            Arg::Value(id) if !activation(&self.graph.values[*id]) => Product::Linear,
            Arg::Value(_) => Product::MatMul,
            _ if activations < 2 => Product::Linear,
            _ => Product::MatMul,
        }
    }

    /// One addition for each result, where there is a bias.
    fn bias(&self) -> u64 {
        match self.node.arg("bias") {
            Arg::Value(_) => self.elements(self.result()),
            _ => 0,
        }
    }
}

fn activation(value: &Value) -> bool {
    matches!(value.origin, Origin::Input | Origin::Node)
}

/// The product of the axes from `from` on.
fn behind(shape: &[u64], from: usize) -> u64 {
    product(shape.get(from..).unwrap_or_default().iter().copied())
}

pub(super) fn convolution(call: &Call<'_>) -> Operations {
    let weight = call.tensor("weight").map(|w| call.shape(w));
    let each = behind(&weight.unwrap_or_default(), 1);
    // A transposed convolution multiplies every input by its part of the weight.
    let multiplied = match call.node.arg("transposed") {
        Arg::Bool(true) => call.elements(call.tensor("input")),
        _ => call.elements(call.result()),
    };
    Operations {
        macs: product([multiplied, each]),
        elementwise: call.bias(),
    }
}

pub(super) fn linear(call: &Call<'_>) -> Operations {
    let weight = call.tensor("weight").map(|w| call.shape(w));
    let inner = weight.and_then(|w| w.last().copied()).unwrap_or(0);
    Operations {
        macs: product([call.elements(call.result()), inner]),
        elementwise: call.bias(),
    }
}

pub(super) fn matmul(call: &Call<'_>) -> Operations {
    Operations {
        macs: product([call.elements(call.result()), inner(call, call.first())]),
        elementwise: 0,
    }
}

/// The product, and the addition to each result.
pub(super) fn addmm(call: &Call<'_>) -> Operations {
    let left = call.tensor("mat1").or_else(|| call.tensor("batch1"));
    let results = call.elements(call.result());
    Operations {
        macs: product([results, inner(call, left)]),
        elementwise: results,
    }
}

fn inner(call: &Call<'_>, left: Option<&Value>) -> u64 {
    let shape = left.map(|v| call.shape(v)).unwrap_or_default();
    shape.last().copied().unwrap_or(1)
}

pub(super) fn einsum(call: &Call<'_>) -> Operations {
    let Arg::Text(equation) = call.node.arg("equation") else {
        return Operations::default();
    };
    let operands: Vec<Vec<u64>> = call
        .node
        .inputs()
        .map(|id| call.shape(&call.graph.values[id]))
        .collect();
    einsum::operations(equation, &operands)
}

/// Scores and their product with the values; of each score the scaling, the mask and the softmax.
pub(super) fn attention(call: &Call<'_>) -> Operations {
    let shape = |name| call.tensor(name).map(|v| call.shape(v)).unwrap_or_default();
    let (query, key, value) = (shape("query"), shape("key"), shape("value"));
    let ([.., queries, width], [.., keys, _], [.., columns]) =
        (query.as_slice(), key.as_slice(), value.as_slice())
    else {
        return Operations::default();
    };
    let heads = behind(&query, 0) / product([*queries, *width]).max(1);
    let scores = product([heads, *queries, *keys]);
    let mask = u64::from(matches!(call.node.arg("attn_mask"), Arg::Value(_)));
    Operations {
        macs: product([scores, width.saturating_add(*columns)]),
        elementwise: product([scores, 6 + mask]),
    }
}

pub(super) fn norm(call: &Call<'_>) -> Operations {
    let weights = matches!(call.node.arg("weight"), Arg::Value(_));
    Operations {
        macs: 0,
        elementwise: product([call.elements(call.result()), if weights { 7 } else { 5 }]),
    }
}

pub(super) fn rms_norm(call: &Call<'_>) -> Operations {
    let weights = matches!(call.node.arg("weight"), Arg::Value(_));
    Operations {
        macs: 0,
        elementwise: product([call.elements(call.result()), if weights { 4 } else { 3 }]),
    }
}

pub(super) fn pool(call: &Call<'_>) -> Operations {
    let at = |side: &Size| side.at(call.batch).unsigned_abs();
    let window = match call.node.arg("kernel_size") {
        Arg::Ints(sides) => match sides.as_slice() {
            [side] => product([at(side); 2]),
            sides => product(sides.iter().map(at)),
        },
        _ => 1,
    };
    Operations {
        macs: 0,
        elementwise: product([call.elements(call.result()), window]),
    }
}

/// Differences, squares and sums of every pair's coordinates.
pub(super) fn cdist(call: &Call<'_>) -> Operations {
    Operations {
        macs: 0,
        elementwise: product([3, call.elements(call.result()), inner(call, call.first())]),
    }
}
