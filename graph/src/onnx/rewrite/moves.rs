//! Reshapes and transposes, one after the other.

use super::super::model::{Attribute, Draft, Op};
use super::producers;

/// A reshape of a reshape is one reshape, where the second says all its axes but one.
pub(super) fn join_reshapes(draft: &mut Draft) -> bool {
    let made = producers(draft);
    let mut changed = false;
    for i in 0..draft.ops.len() {
        if draft.ops[i].kind != "Reshape" {
            continue;
        }
        let Some(&j) = made.get(&draft.ops[i].inputs[0]) else {
            continue;
        };
        if draft.ops[j].kind == "Reshape" {
            draft.ops[i].inputs[0] = draft.ops[j].inputs[0].clone();
            changed = true;
        }
    }
    changed
}

/// A transpose of a transpose is one transpose.
pub(super) fn join_transposes(draft: &mut Draft) -> bool {
    let made = producers(draft);
    let mut changed = false;
    for i in 0..draft.ops.len() {
        let Some(&j) = made.get(draft.ops[i].inputs.first().map_or("", String::as_str)) else {
            continue;
        };
        let (Some(Attribute::Ints(outer)), Some(Attribute::Ints(inner))) =
            (transposed(&draft.ops[i]), transposed(&draft.ops[j]))
        else {
            continue;
        };
        let joined = outer.iter().map(|&axis| inner[axis as usize]).collect();
        draft.ops[i].inputs[0] = draft.ops[j].inputs[0].clone();
        draft.ops[i].attributes = vec![("perm", Attribute::Ints(joined))];
        changed = true;
    }
    changed
}

/// A transpose's order of axes.
pub(super) fn transposed(op: &Op) -> Option<&Attribute> {
    (op.kind == "Transpose")
        .then(|| op.attribute("perm"))
        .flatten()
}
