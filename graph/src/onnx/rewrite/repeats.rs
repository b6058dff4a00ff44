//! Large weights that repeat themselves.

use super::super::bytes::{bytes_of, raw};
use super::super::model::{Draft, Op};
use std::collections::{BTreeMap, HashMap};
use tch::Tensor;

/// Bytes of a weight that are worth an operator.
const LARGE: usize = 1 << 20;

/// Stores the slices of a large weight once where most are the same (away from the border of a map all positions read the same
/// entries of a table), and gathers the weight from them; engines do that when they open the file, not when they run it.
pub(super) fn store_once(draft: &mut Draft) {
    let large = draft.weights.iter();
    let large = large.filter(|(_, t)| bytes_of(t) >= LARGE);
    let tables: BTreeMap<String, Table> = large
        .filter_map(|(name, t)| Some((name.clone(), Table::of(t)?)))
        .collect();
    let mut gathers = Vec::new();
    for (name, table) in tables {
        draft.weights.remove(&name);
        let mut from = draft.weight(&format!("{name}.slices"), table.slices);
        let last = table.places.len() - 1;
        for (i, (axis, index)) in table.places.into_iter().enumerate() {
            let index = draft.weight(&format!("{name}.index"), index);
            let mut gather = Op::new("Gather", &[&from, &index]).int("axis", axis);
            from = match i == last {
                true => name.clone(),
                false => draft.name(&format!("{name}.gathered")),
            };
            gather.outputs = vec![from.clone()];
            gathers.push(gather);
        }
    }
    draft.ops.splice(..0, gathers);
}

/// A tensor whose slices repeat.
#[derive(Debug, PartialEq)]
struct Table {
    /// Those that differ.
    slices: Tensor,
    /// Axes along which to gather, one after the other, and which slice stands at each place.
    places: Vec<(i64, Tensor)>,
}

impl Table {
    fn of(t: &Tensor) -> Option<Table> {
        let mut table = Table {
            slices: t.shallow_clone(),
            places: Vec::new(),
        };
        for axis in (0..t.dim() as i64).rev() {
            let Some((firsts, index)) = repeats(&table.slices, axis) else {
                continue;
            };
            table.slices = table.slices.index_select(axis, &firsts);
            table.places.push((axis, index));
        }
        table.places.reverse();
        (!table.places.is_empty()).then_some(table)
    }
}

/// The first of all equal slices along an axis, and for each slice which of these it is; none where over half of them differ.
fn repeats(t: &Tensor, axis: i64) -> Option<(Tensor, Tensor)> {
    let length = t.size()[axis as usize];
    let few = |found: usize| 2 * found as i64 <= length;
    // Most weights are told by the first number of each slice, without reading the others.
    let corner = (0..t.dim() as i64).rev().filter(|other| *other != axis);
    let corner = corner.fold(t.shallow_clone(), |t, other| t.select(other, 0));
    if !few(distinct(&corner).0.len()) {
        return None;
    }
    let (firsts, index) = distinct(&t.movedim_int(axis, 0));
    few(firsts.len()).then(|| (Tensor::from_slice(&firsts), Tensor::from_slice(&index)))
}

/// The same along the first axis, whatever their number.
fn distinct(t: &Tensor) -> (Vec<i64>, Vec<i64>) {
    let bytes = raw(t);
    let slice = (bytes.len() / t.size()[0] as usize).max(1);
    let mut seen: HashMap<&[u8], i64> = HashMap::new();
    let (mut firsts, mut index) = (Vec::new(), Vec::new());
    for (at, bytes) in (0i64..).zip(bytes.chunks_exact(slice)) {
        let next = seen.len() as i64;
        let which = *seen.entry(bytes).or_insert(next);
        if which == next {
            firsts.push(at);
        }
        index.push(which);
    }
    (firsts, index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn gathered(table: &Table) -> Tensor {
        let places = table.places.iter();
        places.fold(table.slices.shallow_clone(), |t, (axis, index)| {
            t.index_select(*axis, index)
        })
    }

    /// A position table looked up for a map of 50 x 84 and windows of 13: rows and columns away from the border are alike.
    #[test]
    fn what_repeats_along_two_axes_is_stored_once() {
        let options = (Kind::Float, Device::Cpu);
        let table = Tensor::arange(3 * 13 * 13, options).reshape([3, 13, 13]);
        let look_up = |length: i64| {
            let at = Tensor::arange(length, (Kind::Int64, Device::Cpu));
            &at - (&at - 6).clamp(0, length - 13)
        };
        let t = table
            .index_select(1, &look_up(50))
            .index_select(2, &look_up(84));
        let stored = Table::of(&t).unwrap();
        assert_eq!(stored.slices.size(), [3, 13, 13]);
        let axes: Vec<i64> = stored.places.iter().map(|(axis, _)| *axis).collect();
        assert_eq!(axes, [1, 2]);
        assert_eq!(gathered(&stored), t);
    }

    #[test]
    fn what_does_not_repeat_stays() {
        let t = Tensor::arange(64 * 32, (Kind::Float, Device::Cpu)).reshape([64, 32]);
        assert_eq!(Table::of(&t), None);
        // The first numbers are alike, the slices are not.
        let first = t.zeros_like().narrow(1, 0, 1);
        assert_eq!(Table::of(&Tensor::cat(&[first, t], 1)), None);
    }

    /// The draft computes the same weight under the same name, in front of what reads it.
    #[test]
    fn a_gather_gives_the_weight() {
        let rows = Tensor::arange(512, (Kind::Float, Device::Cpu)).reshape([2, 256]);
        let index = Tensor::arange(1024, (Kind::Int64, Device::Cpu)).remainder(2);
        let mut draft = Draft::default();
        let name = draft.weight("bias", rows.index_select(0, &index));
        draft.add(Op::new("Relu", &[&name]), "y");
        store_once(&mut draft);
        let [gather, relu] = draft.ops.as_slice() else {
            panic!("{:?}", draft.ops)
        };
        assert_eq!(
            (gather.kind, &gather.outputs[..]),
            ("Gather", &relu.inputs[..])
        );
        assert_eq!(draft.weights[&gather.inputs[0]], rows);
        assert_eq!(draft.weights[&gather.inputs[1]], index);
        assert!(!draft.weights.contains_key("bias"));
    }
}
