//! Gathers in front of transposes.

use super::super::model::{Attribute, Draft, Op};
use super::moves::transposed;
use super::{is_output, producers, readers};

/// A gather at known places reads what a transpose read, where its result is transposed again: one copy fewer.
pub(super) fn before_transposes(draft: &mut Draft) -> bool {
    let (made, readers) = (producers(draft), readers(draft));
    for i in 0..draft.ops.len() {
        let op = &draft.ops[i];
        let Some(&j) = made.get(op.inputs.first().map_or("", String::as_str)) else {
            continue;
        };
        let alone = |name: &String| {
            readers.get(name).is_some_and(|ops| ops.len() == 1) && !is_output(draft, name)
        };
        let moved_on = |name: &String| {
            let all = |ops: &Vec<usize>| ops.iter().all(|&r| transposed(&draft.ops[r]).is_some());
            readers.get(name).is_some_and(all) && !is_output(draft, name)
        };
        let Some(Attribute::Ints(order)) = transposed(&draft.ops[j]) else {
            continue;
        };
        if op.kind != "Gather" || !alone(&op.inputs[0]) || !moved_on(&op.outputs[0]) {
            continue;
        }
        let (Some(Attribute::Int(axis)), Some(index)) =
            (op.attribute("axis"), draft.weights.get(&op.inputs[1]))
        else {
            continue;
        };
        let (axis, order) = swapped(order, *axis, index.dim() as i64);
        apply(draft, i, j, axis, order);
        return true;
    }
    false
}

/// The gather's axis in front of a transpose, and the order that the axes then have to be brought into; the gathered axis
/// becomes `rank` axes.
fn swapped(order: &[i64], axis: i64, rank: i64) -> (i64, Vec<i64>) {
    let before = order[axis as usize];
    let place = |source: i64| {
        if source < before {
            source
        } else {
            source + rank - 1
        }
    };
    let after = order.iter().flat_map(|&source| match source == before {
        true => (before..before + rank).collect::<Vec<_>>(),
        false => vec![place(source)],
    });
    (before, after.collect())
}

fn apply(draft: &mut Draft, i: usize, j: usize, axis: i64, order: Vec<i64>) {
    let source = draft.ops[j].inputs[0].clone();
    let output = draft.ops[i].outputs[0].clone();
    let before = draft.name(&format!("{output}.before"));
    let op = &mut draft.ops[i];
    op.inputs[0] = source;
    op.attributes = vec![("axis", Attribute::Int(axis))];
    op.outputs = vec![before.clone()];
    let mut transpose = Op::new("Transpose", &[&before]).ints("perm", order);
    transpose.outputs = vec![output];
    draft.ops.insert(i + 1, transpose);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// Gathering an axis of a transposed tensor is the gather of its own axis, transposed.
    #[test]
    fn the_order_is_that_of_libtorch() {
        let x = Tensor::arange(2 * 3 * 5, (Kind::Int64, Device::Cpu)).reshape([2, 3, 5]);
        let index = Tensor::from_slice(&[0i64, 1, 2, 1]).reshape([2, 2]);
        let gather = |x: &Tensor, axis: i64, index: &Tensor| {
            let rank = index.dim() as i64;
            let flat = x.index_select(axis, &index.flatten(0, -1));
            let sizes: Vec<i64> = index.size();
            match rank {
                0 => flat.squeeze_dim(axis),
                _ => flat.unflatten(axis, sizes),
            }
        };
        for order in [[2i64, 0, 1], [1, 2, 0], [0, 2, 1], [0, 1, 2]] {
            let axis = order.iter().position(|&a| a == 1).unwrap() as i64;
            for index in [&index, &Tensor::from(2i64)] {
                let (before, after) = swapped(&order, axis, index.dim() as i64);
                let expected = gather(&x.permute(order), axis, index);
                assert_eq!(gather(&x, before, index).permute(after), expected);
            }
        }
    }
}
