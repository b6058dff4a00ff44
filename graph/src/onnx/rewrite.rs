//! Making a draft as short as a person would write it.

use super::model::{Attribute, Draft, Op};
use std::collections::{BTreeSet, HashMap};
use tch::{Kind, Tensor};

/// Rewrites until nothing changes.
pub(super) fn simplify(draft: &mut Draft) {
    let passes: [fn(&mut Draft) -> bool; 6] = [
        skip_identities,
        join_reshapes,
        join_transposes,
        fold_norms,
        share_equal_ops,
        drop_unused,
    ];
    while passes
        .iter()
        .fold(false, |changed, pass| pass(draft) | changed)
    {}
    name_outputs(draft);
}

/// The op that computes a name, by name.
fn producers(draft: &Draft) -> HashMap<String, usize> {
    let ops = draft.ops.iter().enumerate();
    ops.flat_map(|(i, op)| op.outputs.iter().map(move |o| (o.clone(), i)))
        .collect()
}

fn uses(draft: &Draft) -> HashMap<String, usize> {
    let mut uses = HashMap::new();
    let read = draft.ops.iter().flat_map(|op| &op.inputs);
    for name in read.chain(draft.outputs.iter().map(|port| &port.name)) {
        *uses.entry(name.clone()).or_insert(0) += 1;
    }
    uses
}

fn is_output(draft: &Draft, name: &str) -> bool {
    draft.outputs.iter().any(|port| port.name == name)
}

/// Lets everything that read a key read what it is mapped to.
fn redirect(draft: &mut Draft, names: &HashMap<String, String>) {
    for op in &mut draft.ops {
        for input in &mut op.inputs {
            while let Some(to) = names.get(input) {
                to.clone_into(input);
            }
        }
    }
}

fn redirect_one(draft: &mut Draft, from: &str, to: &str) {
    redirect(draft, &HashMap::from([(from.to_owned(), to.to_owned())]));
}

/// Removes ops whose outputs are other names for values that are there already.
fn replace_ops(
    draft: &mut Draft,
    removed: &BTreeSet<usize>,
    names: &HashMap<String, String>,
) -> bool {
    let mut at = 0;
    draft.ops.retain(|_| {
        at += 1;
        !removed.contains(&(at - 1))
    });
    redirect(draft, names);
    !removed.is_empty()
}

/// Identities, and transposes that move nothing. Those that give an output stay: the output has its name from them.
fn skip_identities(draft: &mut Draft) -> bool {
    let nothing = |op: &Op| match op.kind {
        "Identity" => true,
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

/// A reshape of a reshape is one reshape, where the second says all its axes but one.
fn join_reshapes(draft: &mut Draft) -> bool {
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
fn join_transposes(draft: &mut Draft) -> bool {
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

fn transposed(op: &Op) -> Option<&Attribute> {
    (op.kind == "Transpose")
        .then(|| op.attribute("perm"))
        .flatten()
}

/// A batch norm behind a convolution or product that nothing else reads becomes part of its weights.
fn fold_norms(draft: &mut Draft) -> bool {
    let (made, uses) = (producers(draft), uses(draft));
    for i in 0..draft.ops.len() {
        if draft.ops[i].kind != "BatchNormalization" {
            continue;
        }
        let Some(&j) = made.get(&draft.ops[i].inputs[0]) else {
            continue;
        };
        if uses[&draft.ops[i].inputs[0]] == 1 && fold_norm(draft, i, j) {
            return true;
        }
    }
    false
}

/// Folds the norm at `i` into the op at `j`, in double precision.
fn fold_norm(draft: &mut Draft, i: usize, j: usize) -> bool {
    let norm = &draft.ops[i];
    let Some([scale, shift]) = scale_shift(draft, norm) else {
        return false;
    };
    let op = &draft.ops[j];
    let applies = match op.kind {
        "Conv" => true,
        "Gemm" => op.attribute("transB") == Some(&Attribute::Int(1)),
        _ => false,
    };
    let Some(weight) = draft.weights.get(&op.inputs[1]).filter(|_| applies) else {
        return false;
    };
    let kind = weight.kind();
    let mut axes = vec![1i64; weight.size().len()];
    axes[0] = -1;
    let weight = weight.to_kind(Kind::Double) * scale.reshape(&axes);
    let bias = match op.inputs.get(2) {
        Some(name) => match draft.weights.get(name) {
            Some(bias) => bias.to_kind(Kind::Double) * &scale + shift,
            None => return false,
        },
        None => shift,
    };
    let base = op.inputs[1].trim_end_matches(".weight").to_owned();
    let weight = draft.weight(&format!("{base}.weight.folded"), weight.to_kind(kind));
    let bias = draft.weight(&format!("{base}.bias.folded"), bias.to_kind(kind));
    let output = draft.ops[i].outputs.clone();
    let op = &mut draft.ops[j];
    op.inputs.truncate(1);
    op.inputs.extend([weight, bias]);
    op.outputs = output;
    draft.ops.remove(i);
    true
}

/// y = scale x + shift, in double precision.
fn scale_shift(draft: &Draft, norm: &Op) -> Option<[Tensor; 2]> {
    let part = |i: usize| {
        let tensor = draft.weights.get(&norm.inputs[i])?;
        Some(tensor.to_kind(Kind::Double))
    };
    let Some(Attribute::Float(eps)) = norm.attribute("epsilon") else {
        return None;
    };
    let (gamma, beta, mean, var) = (part(1)?, part(2)?, part(3)?, part(4)?);
    let scale = gamma / (var + *eps).sqrt();
    let shift = beta - mean * &scale;
    Some([scale, shift])
}

/// Ops with the same inputs and attributes are one.
fn share_equal_ops(draft: &mut Draft) -> bool {
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
fn drop_unused(draft: &mut Draft) -> bool {
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

/// Gives what an output copies the output's own name, where nothing stands against it.
fn name_outputs(draft: &mut Draft) {
    while let Some(at) = draft.ops.iter().position(|op| {
        op.kind == "Identity"
            && is_output(draft, &op.outputs[0])
            && draft.ops.iter().any(|o| o.outputs.contains(&op.inputs[0]))
            && !is_output(draft, &op.inputs[0])
    }) {
        let copy = draft.ops.remove(at);
        let (from, to) = (&copy.inputs[0], &copy.outputs[0]);
        redirect_one(draft, from, to);
        for op in &mut draft.ops {
            for output in op.outputs.iter_mut().filter(|o| *o == from) {
                to.clone_into(output);
            }
        }
    }
}

/// Weights and arithmetic in half precision, with casts at the inputs and outputs.
pub(super) fn to_half(draft: &mut Draft) {
    const FLOAT16: i64 = 10;
    const FLOAT: i64 = 1;
    for weight in draft.weights.values_mut() {
        if weight.kind() == Kind::Float {
            *weight = weight.to_kind(Kind::Half);
        }
    }
    for op in draft.ops.iter_mut().filter(|op| op.kind == "Cast") {
        for (_, value) in &mut op.attributes {
            if *value == Attribute::Int(FLOAT) {
                *value = Attribute::Int(FLOAT16);
            }
        }
    }
    let inputs: Vec<String> = draft.inputs.iter().map(|p| p.name.clone()).collect();
    for (i, name) in inputs.iter().enumerate() {
        let half = draft.name(&format!("{name}.half"));
        redirect_one(draft, name, &half);
        let mut cast = Op::new("Cast", &[name]).int("to", FLOAT16);
        cast.outputs = vec![half];
        draft.ops.insert(i, cast);
    }
    let outputs: Vec<String> = draft.outputs.iter().map(|p| p.name.clone()).collect();
    for name in outputs {
        let half = draft.name(&format!("{name}.half"));
        redirect_one(draft, &name, &half);
        for op in &mut draft.ops {
            for output in op.outputs.iter_mut().filter(|o| **o == name) {
                half.clone_into(output);
            }
        }
        let mut cast = Op::new("Cast", &[&half]).int("to", FLOAT);
        cast.outputs = vec![name];
        draft.ops.push(cast);
    }
}
