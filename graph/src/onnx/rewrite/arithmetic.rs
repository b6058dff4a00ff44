//! Numbers that everything is multiplied by.

use super::super::model::Draft;
use super::{is_output, number, producers, replace_ops, uses};
use crate::graph::Dtype;
use std::collections::{BTreeSet, HashMap};
use tch::{Kind, Tensor};

/// Factors of 1 go, and a factor of a factor is one.
pub(super) fn join_factors(draft: &mut Draft) -> bool {
    drop_ones(draft) | multiply_by_reciprocals(draft) | multiply_factors(draft)
}

/// A division by a power of two is a multiplication, which is faster and gives the same.
fn multiply_by_reciprocals(draft: &mut Draft) -> bool {
    let mut changed = false;
    for i in 0..draft.ops.len() {
        let op = &draft.ops[i];
        let divisor = op.inputs.get(1).filter(|_| op.kind == "Div");
        let divisor = divisor.and_then(|name| draft.weights.get(name));
        let Some(divisor) = divisor.filter(|t| t.dim() == 0 && t.kind() == Kind::Float) else {
            continue;
        };
        let value = divisor.double_value(&[]);
        if value.abs().log2().fract() != 0.0 || !(1e-30..1e30).contains(&value.abs()) {
            continue;
        }
        let reciprocal = draft.scalar(value.recip(), Dtype::F32);
        let op = &mut draft.ops[i];
        op.kind = "Mul";
        op.inputs[1] = reciprocal;
        changed = true;
    }
    changed
}

fn drop_ones(draft: &mut Draft) -> bool {
    let (mut removed, mut names) = (BTreeSet::new(), HashMap::new());
    for (i, op) in draft.ops.iter().enumerate() {
        let one = match op.kind {
            "Mul" | "Div" => op.inputs.get(1).and_then(|name| number(draft, name)) == Some(1.0),
            _ => false,
        };
        if one && is_scalar(draft, &op.inputs[1]) && !is_output(draft, &op.outputs[0]) {
            removed.insert(i);
            names.insert(op.outputs[0].clone(), op.inputs[0].clone());
        }
    }
    replace_ops(draft, &removed, &names)
}

/// Without axes: it gives the other operand none.
fn is_scalar(draft: &Draft, name: &str) -> bool {
    draft.weights.get(name).is_some_and(|t| t.dim() == 0)
}

fn multiply_factors(draft: &mut Draft) -> bool {
    let (made, uses) = (producers(draft), uses(draft));
    let mut changed = false;
    for i in 0..draft.ops.len() {
        let Some(outer) = factor(draft, i) else {
            continue;
        };
        let input = draft.ops[i].inputs[0].clone();
        let Some(&j) = made.get(&input).filter(|_| uses[&input] == 1) else {
            continue;
        };
        let Some(inner) = factor(draft, j) else {
            continue;
        };
        let joined = draft.weight("scalar", outer * inner);
        let x = draft.ops[j].inputs[0].clone();
        draft.ops[i].inputs = vec![x, joined];
        changed = true;
    }
    changed
}

/// What a multiplication multiplies everything by: floating-point numbers only, which do not wrap around.
fn factor(draft: &Draft, i: usize) -> Option<Tensor> {
    let op = draft.ops.get(i).filter(|op| op.kind == "Mul")?;
    let factor = draft.weights.get(op.inputs.get(1)?)?;
    (factor.dim() == 0 && factor.is_floating_point()).then(|| factor.shallow_clone())
}
