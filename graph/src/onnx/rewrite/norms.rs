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

/// A group norm over all channels in front of a pointwise convolution: its weights become part of the convolution's, and what is
/// left is a norm over each image. ONNX Runtime has no kernel for GroupNormalization and runs it as ten small operators.
pub(super) fn split_group_norms(draft: &mut Draft) -> bool {
    let uses = uses(draft);
    for i in 0..draft.ops.len() {
        let norm = &draft.ops[i];
        let whole = norm.kind == "GroupNormalization"
            && norm.attribute("num_groups") == Some(&Attribute::Int(1))
            && uses[&norm.outputs[0]] == 1;
        if !whole {
            continue;
        }
        let output = &norm.outputs[0];
        let reader = draft
            .ops
            .iter()
            .position(|op| op.inputs.first() == Some(output));
        let Some(j) = reader.filter(|&j| is_pointwise(&draft.ops[j])) else {
            continue;
        };
        let sizes = draft.shapes.get(&norm.inputs[0]).and_then(|shape| {
            let of_image = shape.get(1..)?.iter().map(|size| size.as_fixed());
            of_image.collect::<Option<Vec<i64>>>()
        });
        if let Some(sizes) = sizes
            && fold_affine(draft, i, j)
        {
            normalise_images(draft, i, &sizes);
            return true;
        }
    }
    false
}

fn is_pointwise(op: &Op) -> bool {
    let all = |name, value| match op.attribute(name) {
        Some(Attribute::Ints(ints)) => ints.iter().all(|&n| n == value),
        _ => false,
    };
    op.kind == "Conv"
        && all("kernel_shape", 1)
        && all("pads", 0)
        && op.attribute("group") == Some(&Attribute::Int(1))
}

/// W (s x + b) = (W s) x + W b, in double precision.
fn fold_affine(draft: &mut Draft, norm: usize, conv: usize) -> bool {
    let exact = |name: &String| Some(draft.weights.get(name)?.to_kind(Kind::Double));
    let (norm, op) = (&draft.ops[norm], &draft.ops[conv]);
    let (Some(scale), Some(shift), Some(weight)) = (
        exact(&norm.inputs[1]),
        exact(&norm.inputs[2]),
        exact(&op.inputs[1]),
    ) else {
        return false;
    };
    let matrix = weight.flatten(1, -1);
    let mut bias = matrix.mv(&shift);
    if let Some(name) = op.inputs.get(2) {
        let Some(own) = exact(name) else {
            return false;
        };
        bias += own;
    }
    let kind = draft.weights[&op.inputs[1]].kind();
    let weight = (matrix * scale).reshape(weight.size()).to_kind(kind);
    let base = op.inputs[1]
        .trim_end_matches(".folded")
        .trim_end_matches(".weight")
        .to_owned();
    let weight = draft.weight(&format!("{base}.weight.normed"), weight);
    let bias = draft.weight(&format!("{base}.bias.normed"), bias.to_kind(kind));
    let op = &mut draft.ops[conv];
    op.inputs.truncate(1);
    op.inputs.extend([weight, bias]);
    true
}

/// Writes the norm at `i` as one over everything in an image.
fn normalise_images(draft: &mut Draft, i: usize, sizes: &[i64]) {
    let norm = draft.ops[i].clone();
    let epsilon = norm.attribute("epsilon").cloned();
    let kind = draft.weights[&norm.inputs[1]].kind();
    let [one, zero] = [1.0, 0.0].map(|value| {
        let t = Tensor::full([1], value, (kind, tch::Device::Cpu));
        draft.weight("scalar", t)
    });
    let flat = draft.ints(&[-1, 1, sizes.iter().product()]);
    let full = draft.ints(&[&[-1], sizes].concat());
    let [image, normed] =
        ["image", "normed"].map(|part| draft.name(&format!("{}.{part}", norm.outputs[0])));
    let mut middle = Op::new("InstanceNormalization", &[&image, &one, &zero]);
    middle.attributes = epsilon.map(|e| ("epsilon", e)).into_iter().collect();
    let named = |op: Op, output: &str| Op {
        outputs: vec![output.to_owned()],
        ..op
    };
    draft.ops.splice(
        i..=i,
        [
            named(Op::new("Reshape", &[&norm.inputs[0], &flat]), &image),
            named(middle, &normed),
            named(Op::new("Reshape", &[&normed, &full]), &norm.outputs[0]),
        ],
    );
}
