//! A transpose, a reshape and a transpose: one transpose between two reshapes.

use super::super::model::{Attribute, Draft, Op};
use super::moves::transposed;
use super::{is_output, producers, readers};
use crate::Size;

/// Two transposes with a reshape between them become one, on axes that both of them move whole.
///
/// Only where the last axis stays last: engines copy rows then, and single elements otherwise, which is slower than two
/// transposes that each move rows.
pub(super) fn join_through_reshapes(draft: &mut Draft) -> bool {
    let (made, readers) = (producers(draft), readers(draft));
    for last in 0..draft.ops.len() {
        let alone = |name: &String| {
            readers.get(name).is_some_and(|ops| ops.len() == 1) && !is_output(draft, name)
        };
        let before = |op: &Op| {
            let input = op.inputs.first().filter(|name| alone(name))?;
            made.get(input).copied()
        };
        let Some(second) = order(&draft.ops[last]) else {
            continue;
        };
        let Some(middle) = before(&draft.ops[last]).filter(|&j| draft.ops[j].kind == "Reshape")
        else {
            continue;
        };
        let Some(first) = before(&draft.ops[middle]) else {
            continue;
        };
        let Some(plan) = order(&draft.ops[first]).and_then(|p| {
            let shape = |op: usize| draft.shapes.get(&draft.ops[op].outputs[0]);
            plan(shape(first)?, p, shape(middle)?, second)
        }) else {
            continue;
        };
        apply(draft, [first, middle, last], plan);
        return true;
    }
    false
}

fn order(op: &Op) -> Option<&Vec<i64>> {
    match transposed(op) {
        Some(Attribute::Ints(order)) => Some(order),
        _ => None,
    }
}

/// The axes that both transposes move whole, before and after: `parts` of the source in its order, where each goes, and the
/// shape of the result.
#[derive(Debug, PartialEq)]
struct Plan {
    parts: Vec<Axis>,
    order: Vec<i64>,
    result: Vec<Axis>,
}

/// An axis of so many elements, times the batch or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    batch: bool,
    n: i64,
}

impl Axis {
    /// `None` for what is no multiple of the batch and depends on it.
    fn of(size: &Size) -> Option<Axis> {
        match (size.fixed, size.per_image) {
            (n, 0) if n > 0 => Some(Axis { batch: false, n }),
            (0, n) if n > 0 => Some(Axis { batch: true, n }),
            _ => None,
        }
    }

    /// What is left of it behind an outer part; `None` where that is no part of it.
    fn behind(self, outer: Axis) -> Option<Axis> {
        let divides = self.n % outer.n == 0 && (self.batch || !outer.batch);
        divides.then(|| Axis {
            batch: self.batch && !outer.batch,
            n: self.n / outer.n,
        })
    }

    fn is_one(self) -> bool {
        self == Axis { batch: false, n: 1 }
    }
}

/// `from` and `to` are the reshape's shapes, `first` the order of the transpose before it, `second` of the one after it.
fn plan(from: &[Size], first: &[i64], to: &[Size], second: &[i64]) -> Option<Plan> {
    let axes = |sizes: &[Size]| sizes.iter().map(Axis::of).collect::<Option<Vec<Axis>>>();
    let (from, to) = (axes(from)?, axes(to)?);
    let (parts, of_from, of_to) = refine(&from, &to)?;
    // The source's axis `first[i]` is the reshape's axis i.
    let mut source = vec![0; first.len()];
    for (i, &axis) in first.iter().enumerate() {
        source[axis as usize] = i;
    }
    let stored: Vec<usize> = source.iter().flat_map(|&i| of_from[i].clone()).collect();
    let wanted = second.iter().flat_map(|&axis| of_to[axis as usize].clone());
    let wanted: Vec<usize> = wanted.collect();
    if stored.last() != wanted.last() {
        return None;
    }
    let place = |part: &usize| stored.iter().position(|p| p == part).map(|p| p as i64);
    Some(Plan {
        parts: stored.iter().map(|&part| parts[part]).collect(),
        order: wanted.iter().map(place).collect::<Option<_>>()?,
        result: second.iter().map(|&axis| to[axis as usize]).collect(),
    })
}

type Groups = Vec<Vec<usize>>;

/// The coarsest axes of which those of both shapes are made, and which of them make each.
fn refine(from: &[Axis], to: &[Axis]) -> Option<(Vec<Axis>, Groups, Groups)> {
    let mut parts = Vec::new();
    let (mut of_from, mut of_to) = (vec![Vec::new(); from.len()], vec![Vec::new(); to.len()]);
    let (mut i, mut j) = (0, 0);
    let (mut a, mut b) = (from.first().copied(), to.first().copied());
    while let (Some(x), Some(y)) = (a, b) {
        let part = if x.behind(y).is_some() { y } else { x };
        of_from[i].push(parts.len());
        of_to[j].push(parts.len());
        parts.push(part);
        let (x, y) = (x.behind(part)?, y.behind(part)?);
        // What is used up makes room for the next axis; ones at the end belong to the last.
        let (next_a, next_b) = (from.get(i + 1), to.get(j + 1));
        (a, b) = (Some(x), Some(y));
        let (used_a, used_b) = (x.is_one(), y.is_one());
        if used_a && next_a.is_some() {
            (i, a) = (i + 1, next_a.copied());
        }
        if used_b && next_b.is_some() {
            (j, b) = (j + 1, next_b.copied());
        }
        match (used_a && next_a.is_none(), used_b && next_b.is_none()) {
            (true, true) => return Some((parts, of_from, of_to)),
            // Shapes of other sizes, which no reshape has.
            (true, false) if !used_b => return None,
            (false, true) if !used_a => return None,
            _ => {}
        }
    }
    None
}

fn apply(draft: &mut Draft, [first, middle, last]: [usize; 3], plan: Plan) {
    let source = draft.ops[first].inputs[0].clone();
    let output = draft.ops[last].outputs[0].clone();
    let (parts, moved) = (format!("{output}.parts"), format!("{output}.moved"));
    let [parts, moved] = [parts, moved].map(|wanted| draft.name(&wanted));
    let [before, after] = [&plan.parts, &plan.result].map(|axes| {
        let target = axes.iter().map(|a| if a.batch { -1 } else { a.n });
        target.collect::<Vec<i64>>()
    });
    let [before, after] = [before, after].map(|target| draft.ints(&target));
    let sizes = |axes: &mut dyn Iterator<Item = Axis>| {
        let size = |a: Axis| match a.batch {
            true => Size {
                fixed: 0,
                per_image: a.n,
            },
            false => Size::fixed(a.n),
        };
        axes.map(size).collect::<Vec<Size>>()
    };
    let stored = sizes(&mut plan.parts.iter().copied());
    let order = plan.order.iter();
    let transposed = sizes(&mut order.map(|&at| plan.parts[at as usize]));
    draft.shapes.insert(parts.clone(), stored);
    draft.shapes.insert(moved.clone(), transposed);
    let named = |op: Op, output: &str| Op {
        outputs: vec![output.to_owned()],
        ..op
    };
    draft.ops[first] = named(Op::new("Reshape", &[&source, &before]), &parts);
    draft.ops[middle] = named(
        Op::new("Transpose", &[&parts]).ints("perm", plan.order),
        &moved,
    );
    draft.ops[last] = named(Op::new("Reshape", &[&moved, &after]), &output);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// The plan computes what the three operations do.
    #[test]
    fn one_transpose_does_for_two() {
        let batch = 3;
        let b = |n| Size {
            fixed: 0,
            per_image: n,
        };
        let n = Size::fixed;
        type Case<'a> = (Vec<Size>, Vec<i64>, Vec<Size>, Vec<i64>);
        let joined: [Case<'_>; 4] = [
            // Heads back into the channels of windows, windows back into a map.
            (
                vec![b(1), n(2), n(2), n(16), n(8), n(5)],
                vec![0, 1, 2, 4, 3, 5],
                vec![b(1), n(2), n(2), n(4), n(4), n(8), n(5)],
                vec![0, 1, 3, 2, 4, 5, 6],
            ),
            // Axes that merge, and a one that comes and goes.
            (
                vec![b(1), n(4), n(1), n(6), n(5)],
                vec![0, 3, 2, 1, 4],
                vec![b(4), n(6), n(5), n(1)],
                vec![1, 0, 2, 3],
            ),
            // The batch behind the time steps.
            (
                vec![n(4), b(1), n(6), n(5)],
                vec![1, 0, 2, 3],
                vec![b(4), n(2), n(3), n(5)],
                vec![0, 2, 1, 3],
            ),
            (
                vec![b(4), n(6), n(5)],
                vec![1, 0, 2],
                vec![b(2), n(2), n(6), n(5)],
                vec![2, 0, 1, 3],
            ),
        ];
        for (from, first, to, second) in joined {
            let plan = plan(&from, &first, &to, &second).unwrap();
            let at = |sizes: &[Size]| sizes.iter().map(|s| s.at(batch)).collect::<Vec<i64>>();
            let mut source = vec![0; from.len()];
            for (i, &axis) in first.iter().enumerate() {
                source[axis as usize] = at(&from)[i];
            }
            let count: i64 = source.iter().product();
            let x = Tensor::arange(count, (Kind::Int64, Device::Cpu)).reshape(&source);
            let expected = x.permute(&first).reshape(at(&to)).permute(&second);
            let sizes = |axes: &[Axis]| -> Vec<i64> {
                let axes = axes.iter();
                axes.map(|a| if a.batch { a.n * batch } else { a.n })
                    .collect()
            };
            let found = x.reshape(sizes(&plan.parts)).permute(&plan.order);
            assert_eq!(found.reshape(sizes(&plan.result)), expected, "{plan:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left() {
        let n = Size::fixed;
        // 4 x 6 as 6 x 4: no axis is moved whole.
        let crossed = plan(&[n(4), n(6)], &[1, 0], &[n(6), n(4)], &[1, 0]);
        assert_eq!(crossed, None);
        // The last axis would move.
        let moved = plan(&[n(4), n(6)], &[1, 0], &[n(2), n(2), n(6)], &[0, 1, 2]);
        assert_eq!(moved, None);
    }
}
