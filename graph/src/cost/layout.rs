//! Whether a tensor can be shown in another shape without being copied.

use super::{Call, product};
use crate::Size;
use crate::graph::{Arg, Value};

/// Whether an operator that copies only where it must gives its input's own memory.
pub(super) fn stays(call: &Call<'_>) -> bool {
    let (Some(from), Some(to)) = (call.first(), call.result()) else {
        return false;
    };
    match call.node.kind.as_str() {
        "aten::dropout" => *call.node.arg("train") != Arg::Bool(true),
        "aten::contiguous" | "aten::to" | "aten::type_as" => {
            from.dtype == to.dtype && from.strides == to.strides && !copies(call)
        }
        _ => viewable(
            &call.shape(from),
            &strides(from, call.batch),
            &call.shape(to),
        ),
    }
}

fn copies(call: &Call<'_>) -> bool {
    *call.node.arg("copy") == Arg::Bool(true)
}

/// As traced; those of a contiguous tensor where they are not known.
fn strides(value: &Value, batch: i64) -> Vec<u64> {
    let at = |size: &Size| size.at(batch).unsigned_abs();
    if value.strides.len() == value.shape.len() {
        return value.strides.iter().map(at).collect();
    }
    let mut step = 1;
    let mut strides: Vec<u64> = Vec::with_capacity(value.shape.len());
    for axis in value.shape.iter().rev() {
        strides.push(step);
        step = at(axis).saturating_mul(step);
    }
    strides.reverse();
    strides
}

/// Whether memory with this shape and these strides can be stepped through as another shape: each run of axes that lies evenly
/// in memory must be cut into whole new axes.
fn viewable(shape: &[u64], strides: &[u64], wanted: &[u64]) -> bool {
    if product(shape.iter().copied()) <= 1 {
        return true;
    }
    let mut rest = wanted;
    let mut step = strides[shape.len() - 1];
    let mut run = 1;
    for d in (0..shape.len()).rev() {
        run = shape[d].saturating_mul(run);
        let goes_on = d > 0 && (shape[d - 1] == 1 || strides[d - 1] == run.saturating_mul(step));
        if goes_on {
            continue;
        }
        let mut cut = 1;
        while let [before @ .., last] = rest
            && (cut < run || *last == 1)
        {
            cut = last.saturating_mul(cut);
            rest = before;
        }
        if cut != run {
            return false;
        }
        run = 1;
        step = if d > 0 { strides[d - 1] } else { 1 };
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// Held to libtorch: a reshape that is a view has its tensor's address.
    #[test]
    fn as_libtorch_decides() {
        let base = Tensor::zeros([4, 6, 8, 10], (Kind::Float, Device::Cpu));
        let sources = [
            base.shallow_clone(),
            base.transpose(1, 2),
            base.permute([0, 2, 3, 1]),
            base.narrow(3, 2, 4),
            base.narrow(1, 1, 1),
            base.narrow(1, 1, 3),
            base.select(2, 3),
            base.narrow(0, 0, 1).expand([5, 6, 8, 10], false),
            base.unsqueeze(0).transpose(0, 2),
        ];
        let mut kinds = [0, 0];
        for source in sources {
            let size = source.size();
            let count: i64 = size.iter().product();
            let mut targets = vec![vec![count], vec![2, -1], vec![-1, 2], vec![size[0], -1]];
            targets.push([&size[..size.len() - 2], &[-1]].concat());
            targets.push([&[-1], &size[2..]].concat());
            targets.push([size.as_slice(), &[1]].concat());
            for target in targets {
                let reshaped = source.reshape(&target);
                let same = reshaped.data_ptr() == source.data_ptr();
                let unsigned = |v: Vec<i64>| v.iter().map(|n| n.unsigned_abs()).collect::<Vec<_>>();
                let found = viewable(
                    &unsigned(size.clone()),
                    &unsigned(source.stride()),
                    &unsigned(reshaped.size()),
                );
                assert_eq!(found, same, "{size:?} {:?} as {target:?}", source.stride());
                kinds[usize::from(same)] += 1;
            }
        }
        assert!(kinds.iter().all(|&n| n > 10), "{kinds:?}");
    }
}
