//! Batch norms that become part of weights.

use super::super::model::{Attribute, Draft, Op};
use super::{producers, uses};
use tch::{Kind, Tensor};

/// A batch norm behind a convolution or product that nothing else reads becomes part of its weights.
pub(super) fn fold_norms(draft: &mut Draft) -> bool {
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
    let weight = op.inputs.get(1).filter(|_| applies);
    let Some(weight) = weight.and_then(|name| draft.weights.get(name)) else {
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
