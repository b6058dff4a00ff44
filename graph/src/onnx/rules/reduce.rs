//! Sums, means, norms and extremes over axes.

use super::super::call::{Call, Converted};
use super::super::model::Op;
use super::{Rule, rule};
use crate::graph::Arg;

pub(super) static RULES: &[Rule] = &[
    rule("aten::amax", "ReduceMax", |c| reduce(c, "ReduceMax")),
    rule("aten::amin", "ReduceMin", |c| reduce(c, "ReduceMin")),
    rule("aten::argmax", "ArgMax", |c| {
        let (x, axis) = (c.x("self")?, c.axis("dim", "self")?);
        let keep = i64::from(c.flag("keepdim"));
        c.one(
            Op::new("ArgMax", &[&x])
                .int("axis", axis)
                .int("keepdims", keep),
        )
    }),
    rule("aten::cumsum", "CumSum", |c| {
        let (x, axis) = (c.x("self")?, c.axis("dim", "self")?);
        let axis = c.converter.draft.ints(&[axis]);
        c.one(Op::new("CumSum", &[&x, &axis]))
    }),
    rule("aten::linalg_vector_norm", "ReduceL1, ReduceL2", |c| {
        norm(c, "ord")
    }),
    rule("aten::log_softmax", "LogSoftmax", |c| {
        let (x, axis) = (c.x("self")?, c.axis("dim", "self")?);
        c.one(Op::new("LogSoftmax", &[&x]).int("axis", axis))
    }),
    rule("aten::logsumexp", "ReduceLogSumExp", |c| {
        reduce(c, "ReduceLogSumExp")
    }),
    rule("aten::max", "ReduceMax, ArgMax", |c| {
        extreme(c, "ReduceMax", "ArgMax")
    }),
    rule("aten::mean", "ReduceMean", |c| reduce(c, "ReduceMean")),
    rule("aten::min", "ReduceMin, ArgMin", |c| {
        extreme(c, "ReduceMin", "ArgMin")
    }),
    rule("aten::norm", "ReduceL1, ReduceL2", |c| norm(c, "p")),
    rule("aten::prod", "ReduceProd", |c| reduce(c, "ReduceProd")),
    rule("aten::softmax", "Softmax", |c| {
        let (x, axis) = (c.x("self")?, c.axis("dim", "self")?);
        c.one(Op::new("Softmax", &[&x]).int("axis", axis))
    }),
    rule("aten::sum", "ReduceSum", |c| reduce(c, "ReduceSum")),
];

fn reduce(c: &mut Call<'_, '_>, kind: &'static str) -> Converted {
    let (x, keep) = (c.x("self")?, i64::from(c.flag("keepdim")));
    let axes = c.axes("dim", "self")?;
    if c.value("self")?.dtype != c.output(0).dtype {
        return Err("sums in another kind: cast first".to_owned());
    }
    let axes = c.converter.draft.ints(&axes);
    c.one(Op::new(kind, &[&x, &axes]).int("keepdims", keep))
}

/// The largest or smallest along one axis, with its place where that is asked for; without an axis, of all.
fn extreme(c: &mut Call<'_, '_>, value: &'static str, place: &'static str) -> Converted {
    if *c.node.arg("other") != Arg::None {
        let (x, y) = (c.x("self")?, c.x("other")?);
        let kind = if value == "ReduceMax" { "Max" } else { "Min" };
        return c.one(Op::new(kind, &[&x, &y]));
    }
    let found = reduce(c, value)?;
    if c.node.outputs.len() < 2 {
        return Ok(found);
    }
    let (x, axis) = (c.x("self")?, c.axis("dim", "self")?);
    let keep = i64::from(c.flag("keepdim"));
    let index = c.op(Op::new(place, &[&x])
        .int("axis", axis)
        .int("keepdims", keep));
    Ok(vec![found[0].clone(), index])
}

fn norm(c: &mut Call<'_, '_>, order: &str) -> Converted {
    let order = match c.node.arg(order) {
        Arg::None => 2.0,
        _ => c.float(order)?,
    };
    if order == 1.0 {
        reduce(c, "ReduceL1")
    } else if order == 2.0 {
        reduce(c, "ReduceL2")
    } else {
        Err(format!("norm of order {order}"))
    }
}
