//! Transposes around matrix products: engines read either operand transposed, and copy what is transposed anywhere else.

use super::super::model::{Attribute, Draft, Op};
use super::moves::transposed;
use super::{is_output, producers, readers};

/// A product that is transposed behind is the product of its transposed operands in the other order, where one of them was
/// transposed before.
pub(super) fn turn_products(draft: &mut Draft) -> bool {
    let (made, readers) = (producers(draft), readers(draft));
    for i in 0..draft.ops.len() {
        let Some(&j) = made.get(draft.ops[i].inputs.first().map_or("", String::as_str)) else {
            continue;
        };
        let product = &draft.ops[j];
        let alone = readers[&draft.ops[i].inputs[0]].len() == 1;
        if product.kind != "MatMul"
            || !swaps_last(&draft.ops[i])
            || !alone
            || is_output(draft, &product.outputs[0])
        {
            continue;
        }
        let [a, b] = product.inputs.as_slice() else {
            continue;
        };
        let before = made.get(b).map(|&k| &draft.ops[k]);
        let Some(before) = before.filter(|op| swaps_last(op)) else {
            continue;
        };
        let rank = rank(before);
        // The other operand has as many axes, or the batch would be spread over it in another place.
        if draft.shapes.get(a).map(Vec::len) != Some(rank) {
            continue;
        }
        let (a, b) = (a.clone(), before.inputs[0].clone());
        apply(draft, i, j, [a, b], rank);
        return true;
    }
    false
}

fn apply(draft: &mut Draft, i: usize, j: usize, [a, b]: [String; 2], rank: usize) {
    let turned = draft.name(&format!("{a}.turned"));
    let mut order: Vec<i64> = (0..rank as i64).collect();
    order.swap(rank - 1, rank - 2);
    if let Some(mut shape) = draft.shapes.get(&a).cloned() {
        shape.swap(rank - 1, rank - 2);
        draft.shapes.insert(turned.clone(), shape);
    }
    let output = draft.ops[i].outputs.clone();
    draft.ops[i] = Op {
        outputs: output,
        ..Op::new("MatMul", &[&b, &turned])
    };
    draft.ops[j] = Op {
        outputs: vec![turned],
        ..Op::new("Transpose", &[&a]).ints("perm", order)
    };
}

/// Whether an op exchanges the last two axes and no others.
fn swaps_last(op: &Op) -> bool {
    let Some(Attribute::Ints(order)) = transposed(op) else {
        return false;
    };
    let rank = order.len();
    rank >= 2
        && order.iter().enumerate().all(|(i, &axis)| {
            let expected = match rank - 1 - i {
                0 => rank - 2,
                1 => rank - 1,
                _ => i,
            };
            axis == expected as i64
        })
}

fn rank(op: &Op) -> usize {
    match transposed(op) {
        Some(Attribute::Ints(order)) => order.len(),
        _ => 0,
    }
}

/// The parts of a transposed value are transposed apart, where one of them is transposed back.
pub(super) fn split_before_transposes(draft: &mut Draft) -> bool {
    let (made, readers) = (producers(draft), readers(draft));
    for i in 0..draft.ops.len() {
        let op = &draft.ops[i];
        let Some(&j) = made.get(op.inputs.first().map_or("", String::as_str)) else {
            continue;
        };
        let (Some(Attribute::Ints(order)), Some(Attribute::Int(axis))) =
            (transposed(&draft.ops[j]), op.attribute("axis"))
        else {
            continue;
        };
        let alone = readers[&op.inputs[0]].len() == 1 && !is_output(draft, &op.inputs[0]);
        let back = |name: &String| {
            let undoes = |r: &usize| match transposed(&draft.ops[*r]) {
                Some(Attribute::Ints(second)) => second
                    .iter()
                    .enumerate()
                    .all(|(i, &a)| order[a as usize] == i as i64),
                _ => false,
            };
            readers.get(name).is_some_and(|ops| ops.iter().all(undoes))
        };
        let named = op.outputs.iter().any(|o| is_output(draft, o));
        if op.kind != "Split" || !alone || named || !op.outputs.iter().any(back) {
            continue;
        }
        let (order, axis) = (order.clone(), *axis);
        split(draft, i, j, &order, order[axis as usize]);
        return true;
    }
    false
}

fn split(draft: &mut Draft, i: usize, j: usize, order: &[i64], axis: i64) {
    let source = draft.ops[j].inputs[0].clone();
    let outputs = draft.ops[i].outputs.clone();
    let parts: Vec<String> = outputs
        .iter()
        .map(|output| draft.name(&format!("{output}.part")))
        .collect();
    for (part, output) in parts.iter().zip(&outputs) {
        let Some(shape) = draft.shapes.get(output).cloned() else {
            continue;
        };
        let mut stored = shape.clone();
        for (to, &from) in order.iter().enumerate() {
            stored[from as usize] = shape[to];
        }
        draft.shapes.insert(part.clone(), stored);
    }
    let op = &mut draft.ops[i];
    op.inputs[0] = source;
    op.outputs.clone_from(&parts);
    for (name, value) in &mut op.attributes {
        if *name == "axis" {
            *value = Attribute::Int(axis);
        }
    }
    for (part, output) in parts.iter().zip(outputs).rev() {
        let transpose = Op::new("Transpose", &[part]).ints("perm", order.to_vec());
        draft.ops.insert(
            i + 1,
            Op {
                outputs: vec![output],
                ..transpose
            },
        );
    }
}
