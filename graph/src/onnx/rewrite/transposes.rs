//! Transposes that meet their inverse behind what works element by element.

use super::super::model::{Attribute, Draft, Op};
use super::{is_output, producers, readers};

/// Operators of one operand.
const UNARY: [&str; 20] = [
    "Abs",
    "Cast",
    "Ceil",
    "Clip",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "Neg",
    "Reciprocal",
    "Relu",
    "Sigmoid",
    "Sin",
    "Sqrt",
    "Tanh",
];

/// Operators of two operands.
const BINARY: [&str; 4] = ["Add", "Div", "Mul", "Sub"];

/// Moves a transpose behind an elementwise op where it then meets its inverse, or where one does for two.
pub(super) fn push_down(draft: &mut Draft) -> bool {
    let (made, readers) = (producers(draft), readers(draft));
    for i in 0..draft.ops.len() {
        let alone = |name: &String| {
            readers.get(name).is_some_and(|ops| ops.len() == 1) && !is_output(draft, name)
        };
        let order = |name: &String| -> Option<&Vec<i64>> {
            perm(&draft.ops[*made.get(name)?]).filter(|_| alone(name))
        };
        let op = &draft.ops[i];
        if is_output(draft, &op.outputs[0]) {
            continue;
        }
        let (first, second) = (op.inputs.first(), op.inputs.get(1));
        let moved = if UNARY.contains(&op.kind)
            || is_binary(op) && second.is_some_and(|y| scalar(draft, y))
        {
            first
                .and_then(order)
                .filter(|p| undone(draft, readers.get(&op.outputs[0]), p))
                .map(|p| Moved::One(p.clone()))
        } else if is_binary(op) {
            both(draft, op, order, |p| {
                undone(draft, readers.get(&op.outputs[0]), p)
            })
        } else {
            None
        };
        if let Some(moved) = moved {
            apply(draft, i, &made, moved);
            return true;
        }
    }
    false
}

/// How a transpose passes an op.
enum Moved {
    /// Its only operand that has axes is transposed so.
    One(Vec<i64>),
    /// Both operands are.
    Both(Vec<i64>),
    /// The operand of this place is, and the other one is transposed back before.
    Other(usize, Vec<i64>),
}

fn both<'a>(
    draft: &Draft,
    op: &'a Op,
    order: impl Fn(&'a String) -> Option<&'a Vec<i64>>,
    undone: impl Fn(&[i64]) -> bool,
) -> Option<Moved> {
    let [x, y] = op.inputs.as_slice() else {
        return None;
    };
    match (order(x), order(y)) {
        (Some(p), Some(q)) if p == q && x != y && same_shape(draft, x, y) => {
            Some(Moved::Both(p.clone()))
        }
        (Some(p), _) if same_shape(draft, x, y) && undone(p) => Some(Moved::Other(0, p.clone())),
        (_, Some(q)) if same_shape(draft, x, y) && undone(q) => Some(Moved::Other(1, q.clone())),
        _ => None,
    }
}

fn apply(
    draft: &mut Draft,
    i: usize,
    made: &std::collections::HashMap<String, usize>,
    moved: Moved,
) {
    let source = |draft: &Draft, name: &str| draft.ops[made[name]].inputs[0].clone();
    let inputs = draft.ops[i].inputs.clone();
    let mut back = None;
    let order = match moved {
        Moved::One(order) => {
            draft.ops[i].inputs[0] = source(draft, &inputs[0]);
            order
        }
        Moved::Both(order) => {
            draft.ops[i].inputs = vec![source(draft, &inputs[0]), source(draft, &inputs[1])];
            order
        }
        Moved::Other(place, order) => {
            let other = &inputs[1 - place];
            let name = draft.name(&format!("{other}.back"));
            let mut op = Op::new("Transpose", &[other]).ints("perm", inverse(&order));
            op.outputs = vec![name.clone()];
            back = Some(op);
            draft.ops[i].inputs[place] = source(draft, &inputs[place]);
            draft.ops[i].inputs[1 - place] = name;
            order
        }
    };
    let output = draft.ops[i].outputs[0].clone();
    let before = draft.name(&format!("{output}.before"));
    draft.ops[i].outputs[0] = before.clone();
    if let Some(shape) = draft.shapes.get(&output) {
        let back = inverse(&order);
        let stored = back.iter().map(|&axis| shape[axis as usize]).collect();
        draft.shapes.insert(before.clone(), stored);
    }
    let mut transpose = Op::new("Transpose", &[&before]).ints("perm", order);
    transpose.outputs = vec![output];
    draft.ops.insert(i + 1, transpose);
    if let Some(back) = back {
        draft.ops.insert(i, back);
    }
}

fn perm(op: &Op) -> Option<&Vec<i64>> {
    match op.attribute("perm") {
        Some(Attribute::Ints(order)) if op.kind == "Transpose" => Some(order),
        _ => None,
    }
}

fn is_binary(op: &Op) -> bool {
    BINARY.contains(&op.kind) && op.inputs.len() == 2
}

fn scalar(draft: &Draft, name: &str) -> bool {
    draft.weights.get(name).is_some_and(|t| t.dim() == 0)
}

fn same_shape(draft: &Draft, x: &str, y: &str) -> bool {
    let shape = |name: &str| draft.shapes.get(name);
    shape(x).is_some() && shape(x) == shape(y)
}

/// Whether everything that reads a value transposes it back.
fn undone(draft: &Draft, readers: Option<&Vec<usize>>, order: &[i64]) -> bool {
    let back = inverse(order);
    readers.is_some_and(|ops| {
        !ops.is_empty() && ops.iter().all(|&r| perm(&draft.ops[r]) == Some(&back))
    })
}

fn inverse(order: &[i64]) -> Vec<i64> {
    let mut back = vec![0; order.len()];
    for (to, &from) in order.iter().enumerate() {
        back[from as usize] = to as i64;
    }
    back
}
