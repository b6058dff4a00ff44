//! Copies that broadcasting saves.

use super::super::model::Draft;
use super::{is_output, readers, replace_ops};
use std::collections::{BTreeSet, HashMap};

/// Operators that broadcast their operands.
const BROADCASTING: [&str; 14] = [
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mul",
    "Or",
    "Pow",
    "Sub",
];

/// An expansion goes where everything that reads it broadcasts, and has its shape from another operand.
pub(super) fn drop_expands(draft: &mut Draft) -> bool {
    let readers = readers(draft);
    let (mut removed, mut names) = (BTreeSet::new(), HashMap::new());
    for (i, op) in draft.ops.iter().enumerate() {
        let name = &op.outputs[0];
        if op.kind != "Expand" || is_output(draft, name) {
            continue;
        }
        let Some(shape) = draft.shapes.get(name) else {
            continue;
        };
        let spared = readers.get(name).is_some_and(|ops| {
            ops.iter().all(|&r| {
                let reader = &draft.ops[r];
                let others = reader.inputs.iter().filter(|input| *input != name);
                BROADCASTING.contains(&reader.kind)
                    && others
                        .filter(|input| !names.contains_key(*input))
                        .any(|input| draft.shapes.get(input) == Some(shape))
            })
        });
        if spared {
            removed.insert(i);
            names.insert(name.clone(), op.inputs[0].clone());
        }
    }
    replace_ops(draft, &removed, &names)
}
