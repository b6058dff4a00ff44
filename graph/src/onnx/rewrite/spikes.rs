//! Neurons that fire and are reset: a comparison, a difference and a product for each step.
//!
//! A choice (`Where`) would be one operator less, and takes ONNX Runtime three times as long as `x (1 - s)`.

use super::super::model::{Draft, Op};
use super::{is_output, number, producers, replace_ops};
use std::collections::{BTreeSet, HashMap};

const COMPARISONS: [&str; 4] = ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"];

/// Writes steps of spiking neurons shorter; finite numbers give the same.
pub(super) fn shorten(draft: &mut Draft) -> bool {
    drop_zeros(draft) | compare_directly(draft) | subtract_from_one(draft)
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

/// `a - b > 0` is `a > b`, and so for the other comparisons of order: a difference of numbers is 0 only where they are equal.
fn compare_directly(draft: &mut Draft) -> bool {
    let made = producers(draft);
    let mut changed = false;
    for i in 0..draft.ops.len() {
        let op = &draft.ops[i];
        if !COMPARISONS.contains(&op.kind) || number(draft, &op.inputs[1]) != Some(0.0) {
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

/// `1 - s` where `-s + 1` or `-(s - 1)` stood.
fn subtract_from_one(draft: &mut Draft) -> bool {
    let made = producers(draft);
    let mut changed = false;
    for i in 0..draft.ops.len() {
        let Some(inputs) = less_than_one(draft, &made, &draft.ops[i]) else {
            continue;
        };
        draft.ops[i].kind = "Sub";
        draft.ops[i].inputs = inputs;
        changed = true;
    }
    changed
}

/// The 1 and the s that are subtracted in a roundabout way.
fn less_than_one(draft: &Draft, made: &HashMap<String, usize>, op: &Op) -> Option<Vec<String>> {
    let is_one = |name: &str| number(draft, name) == Some(1.0);
    let inner = |kind| {
        let op = &draft.ops[*made.get(&op.inputs[0])?];
        (op.kind == kind).then_some(op)
    };
    match (op.kind, op.inputs.as_slice()) {
        ("Add", [_negative, one]) if is_one(one) => {
            Some(vec![one.clone(), inner("Neg")?.inputs[0].clone()])
        }
        ("Neg", [_less]) => {
            let less = inner("Sub").filter(|op| is_one(&op.inputs[1]))?;
            Some(vec![less.inputs[1].clone(), less.inputs[0].clone()])
        }
        _ => None,
    }
}
