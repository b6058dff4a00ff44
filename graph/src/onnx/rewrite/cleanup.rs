//! Ops that are not needed.

use super::super::model::{Attribute, Draft, Op};
use super::{is_output, replace_ops};
use std::collections::{BTreeSet, HashMap};

/// Identities, joins of one part, and transposes that move nothing. Those that give an output stay: the output has its name from them.
pub(super) fn skip_identities(draft: &mut Draft) -> bool {
    let nothing = |op: &Op| match op.kind {
        "Identity" => true,
        "Concat" => op.inputs.len() == 1,
        "Transpose" => match op.attribute("perm") {
            Some(Attribute::Ints(perm)) => perm.iter().enumerate().all(|(i, &p)| i as i64 == p),
            _ => false,
        },
        _ => false,
    };
    let (mut removed, mut names) = (BTreeSet::new(), HashMap::new());
    for (i, op) in draft.ops.iter().enumerate() {
        if nothing(op) && !is_output(draft, &op.outputs[0]) {
            removed.insert(i);
            names.insert(op.outputs[0].clone(), op.inputs[0].clone());
        }
    }
    replace_ops(draft, &removed, &names)
}

/// Ops with the same inputs and attributes are one.
pub(super) fn share_equal_ops(draft: &mut Draft) -> bool {
    let mut seen: HashMap<(&str, &[String], String), usize> = HashMap::new();
    let (mut removed, mut names) = (BTreeSet::new(), HashMap::new());
    for (i, op) in draft.ops.iter().enumerate() {
        let key = (
            op.kind,
            op.inputs.as_slice(),
            format!("{:?}", op.attributes),
        );
        let first = *seen.entry(key).or_insert(i);
        if first != i && !op.outputs.iter().any(|o| is_output(draft, o)) {
            removed.insert(i);
            let kept = draft.ops[first].outputs.iter().cloned();
            names.extend(op.outputs.iter().cloned().zip(kept));
        }
    }
    replace_ops(draft, &removed, &names)
}

/// Ops and weights that no output needs.
pub(super) fn drop_unused(draft: &mut Draft) -> bool {
    let mut needed: BTreeSet<String> = draft.outputs.iter().map(|p| p.name.clone()).collect();
    let mut kept = vec![false; draft.ops.len()];
    for (i, op) in draft.ops.iter().enumerate().rev() {
        kept[i] = op.outputs.iter().any(|o| needed.contains(o));
        if kept[i] {
            needed.extend(op.inputs.iter().cloned());
        }
    }
    let before = draft.ops.len() + draft.weights.len();
    let mut flags = kept.into_iter();
    draft.ops.retain(|_| flags.next().unwrap_or(false));
    draft.weights.retain(|name, _| needed.contains(name));
    before != draft.ops.len() + draft.weights.len()
}
