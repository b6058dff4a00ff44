//! Neurons that fire and are reset: a comparison and a choice for each step, where arithmetic stood.

use super::super::model::{Attribute, Draft, Op};
use super::{is_output, number, producers, replace_ops};
use crate::graph::Dtype;
use std::collections::{BTreeSet, HashMap};

/// Writes steps of spiking neurons shorter; finite numbers give the same.
pub(super) fn shorten(draft: &mut Draft) -> bool {
    drop_zeros(draft) | compare_directly(draft) | choose(draft)
}

/// Nothing added, nothing taken away: the first step's potential.
fn drop_zeros(draft: &mut Draft) -> bool {
    let (mut removed, mut names) = (BTreeSet::new(), HashMap::new());
    for (i, op) in draft.ops.iter().enumerate() {
        let [x, y] = op.inputs.as_slice() else {
            continue;
        };
        let zero = |name: &str| number(draft, name) == Some(0.0);
        let kept = match op.kind {
            "Add" if zero(x) => y,
            "Add" | "Sub" if zero(y) => x,
            _ => continue,
        };
        let output = &op.outputs[0];
        // A zero with axes may give the result some.
        let shape = |name: &str| draft.shapes.get(name);
        if shape(kept).is_some() && shape(kept) == shape(output) && !is_output(draft, output) {
            removed.insert(i);
            names.insert(output.clone(), kept.clone());
        }
    }
    replace_ops(draft, &removed, &names)
}

/// `a - b > 0` is `a > b`.
fn compare_directly(draft: &mut Draft) -> bool {
    let made = producers(draft);
    let mut changed = false;
    for i in 0..draft.ops.len() {
        let op = &draft.ops[i];
        let strict = matches!(op.kind, "Greater" | "Less");
        if !strict || number(draft, &op.inputs[1]) != Some(0.0) {
            continue;
        }
        let difference = made.get(&op.inputs[0]).map(|&j| &draft.ops[j]);
        let Some(difference) = difference.filter(|op| op.kind == "Sub") else {
            continue;
        };
        draft.ops[i].inputs = difference.inputs.clone();
        changed = true;
    }
    changed
}

/// `x (1 - s)` with a condition s as a number is a choice between 0 and x.
fn choose(draft: &mut Draft) -> bool {
    let made = producers(draft);
    let mut changed = false;
    for i in 0..draft.ops.len() {
        if draft.ops[i].kind != "Mul" {
            continue;
        }
        let inputs = draft.ops[i].inputs.clone();
        let found = [(0, 1), (1, 0)].into_iter().find_map(|(x, factor)| {
            let condition = unless(draft, &made, &inputs[factor])?;
            Some((inputs[x].clone(), condition))
        });
        let Some((x, condition)) = found else {
            continue;
        };
        let zero = draft.scalar(0.0, Dtype::F32);
        let output = draft.ops[i].outputs.clone();
        draft.ops[i] = Op {
            outputs: output,
            ..Op::new("Where", &[&condition, &zero, &x])
        };
        changed = true;
    }
    changed
}

/// The condition c of `1 - c`, written so or as `-c + 1` or `-(c - 1)`, in single precision.
fn unless(draft: &Draft, made: &HashMap<String, usize>, name: &str) -> Option<String> {
    let op = |name: &str| made.get(name).map(|&j| &draft.ops[j]);
    let is_one = |name: &str| number(draft, name) == Some(1.0);
    let factor = op(name)?;
    let cast = match (factor.kind, factor.inputs.as_slice()) {
        ("Sub", [one, c]) if is_one(one) => op(c)?,
        ("Add", [negative, one]) if is_one(one) => {
            let negative = op(negative).filter(|op| op.kind == "Neg")?;
            op(&negative.inputs[0])?
        }
        ("Neg", [less]) => {
            let less = op(less).filter(|op| op.kind == "Sub" && is_one(&op.inputs[1]))?;
            op(&less.inputs[0])?
        }
        _ => return None,
    };
    let condition = cast.inputs.first().filter(|_| cast.kind == "Cast")?;
    let compares = matches!(
        op(condition)?.kind,
        "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual"
    );
    let to_float = cast.attribute("to") == Some(&Attribute::Int(1));
    (compares && to_float).then(|| condition.clone())
}
