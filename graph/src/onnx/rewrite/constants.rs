//! Ops whose result is known.

use super::super::model::{Attribute, Draft, Op};
use super::{is_output, replace_ops};
use std::collections::{BTreeSet, HashMap};
use tch::Tensor;

/// Computes the ops that read weights alone; the graph's own were computed when it was traced, these came with the rules.
pub(super) fn fold(draft: &mut Draft) -> bool {
    let mut known = Vec::new();
    for (i, op) in draft.ops.iter().enumerate() {
        if is_output(draft, &op.outputs[0]) {
            continue;
        }
        if let Some(result) = result(draft, op) {
            known.push((i, op.outputs[0].clone(), result));
        }
    }
    let removed: BTreeSet<usize> = known.iter().map(|(i, ..)| *i).collect();
    let mut names = HashMap::new();
    for (_, output, result) in known {
        let weight = draft.weight(&format!("{output}.known"), result);
        names.insert(output, weight);
    }
    replace_ops(draft, &removed, &names)
}

fn result(draft: &Draft, op: &Op) -> Option<Tensor> {
    let input = |i: usize| draft.weights.get(op.inputs.get(i)?);
    match op.kind {
        "Reshape" => {
            let shape = Vec::<i64>::try_from(input(1)?).ok()?;
            let x = input(0)?;
            // A zero keeps an axis; the rules write none.
            (!shape.contains(&0)).then(|| x.reshape(&shape).contiguous())
        }
        "Transpose" => match op.attribute("perm") {
            Some(Attribute::Ints(order)) => Some(input(0)?.permute(order).contiguous()),
            _ => None,
        },
        "Range" => {
            let number = |i| Some(input(i)?.int64_value(&[]));
            let (start, end, step) = (number(0)?, number(1)?, number(2)?);
            let options = (tch::Kind::Int64, tch::Device::Cpu);
            Some(Tensor::arange_start_step(start, end, step, options))
        }
        _ => None,
    }
}
