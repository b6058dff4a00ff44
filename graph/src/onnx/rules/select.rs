//! Choosing elements by index.

use super::super::bytes::element_type_of;
use super::super::call::{Call, Converted};
use super::super::model::Op;
use super::{Rule, rule};
use crate::graph::{Arg, Dtype};
use tch::Tensor;

pub(super) static RULES: &[Rule] = &[
    rule("aten::arange", "Range", arange),
    rule("aten::embedding", "Gather", |c| {
        let (x, index) = (c.x("weight")?, c.x("indices")?);
        c.one(Op::new("Gather", &[&x, &index]).int("axis", 0))
    }),
    rule("aten::gather", "GatherElements", |c| {
        let (x, index, axis) = (c.x("self")?, c.x("index")?, c.axis("dim", "self")?);
        c.one(Op::new("GatherElements", &[&x, &index]).int("axis", axis))
    }),
    rule("aten::index", "Gather", index),
    rule("aten::index_select", "Gather", |c| {
        let (x, index, axis) = (c.x("self")?, c.x("index")?, c.axis("dim", "self")?);
        c.one(Op::new("Gather", &[&x, &index]).int("axis", axis))
    }),
    rule("aten::scatter", "ScatterElements", scatter),
    rule("aten::select", "Gather", |c| {
        let (x, axis) = (c.x("self")?, c.axis("dim", "self")?);
        let index = c.int("index")?;
        let index = c.converter.draft.scalar(index as f64, Dtype::I64);
        c.one(Op::new("Gather", &[&x, &index]).int("axis", axis))
    }),
    rule("aten::sort", "TopK", |c| {
        let axis = c.axis("dim", "self")?;
        let length = c.value("self")?.shape[axis as usize].as_fixed();
        let length = length.ok_or("sorts the batch")?;
        top(c, axis, length, c.flag("descending"))
    }),
    rule("aten::argsort", "TopK", |c| {
        let axis = c.axis("dim", "self")?;
        let length = c.value("self")?.shape[axis as usize].as_fixed();
        let length = length.ok_or("sorts the batch")?;
        let sorted = top(c, axis, length, c.flag("descending"))?;
        Ok(vec![sorted[1].clone()])
    }),
    rule("aten::topk", "TopK", |c| {
        let axis = c.axis("dim", "self")?;
        let k = c.int("k")?;
        top(c, axis, k, c.flag("largest"))
    }),
    rule("aten::tril", "Trilu", |c| triangle(c, 0)),
    rule("aten::triu", "Trilu", |c| triangle(c, 1)),
];

fn arange(c: &mut Call<'_, '_>) -> Converted {
    let size = |name| match c.node.arg(name) {
        Arg::Int(size) => Ok(Some(*size)),
        Arg::None => Ok(None),
        other => Err(format!("`{name}` is {other:?}")),
    };
    let (start, end, step) = (size("start")?, size("end")?, size("step")?);
    let end = end.ok_or("no end")?;
    let scalar = |c: &mut Call<'_, '_>, vector: String| {
        let none = c
            .converter
            .draft
            .weight("shape", Tensor::from_slice::<i64>(&[]));
        c.op(Op::new("Reshape", &[&vector, &none]))
    };
    let dtype = c.output(0).dtype;
    let end = c.converter.sizes(&[end]);
    let end = scalar(c, end);
    let fixed = |size: Option<crate::Size>, default: i64| match size {
        None => Ok(default),
        Some(size) => size.as_fixed().ok_or("begins at the batch"),
    };
    let (start, step) = (fixed(start, 0)?, fixed(step, 1)?);
    let start = c.converter.draft.scalar(start as f64, Dtype::I64);
    let step = c.converter.draft.scalar(step as f64, Dtype::I64);
    let range = c.op(Op::new("Range", &[&start, &end, &step]));
    if dtype == Dtype::I64 {
        return Ok(vec![range]);
    }
    c.one(Op::new("Cast", &[&range]).int("to", i64::from(element_type_of(dtype))))
}

/// One index tensor on one axis.
fn index(c: &mut Call<'_, '_>) -> Converted {
    let x = c.x("self")?;
    let Arg::Values(indices) = c.node.arg("indices") else {
        return Err("`indices` is no list".to_owned());
    };
    let given: Vec<(usize, usize)> = indices
        .iter()
        .enumerate()
        .filter_map(|(axis, id)| id.map(|id| (axis, id)))
        .collect();
    let [(axis, id)] = given[..] else {
        return Err("indices on several axes: use gather or index_select".to_owned());
    };
    if c.converter.trace.graph.values[id].dtype == Dtype::Bool {
        return Err("a mask as an index gives a shape that depends on data".to_owned());
    }
    let index = c.converter.tensor(id)?;
    c.one(Op::new("Gather", &[&x, &index]).int("axis", axis as i64))
}

fn scatter(c: &mut Call<'_, '_>) -> Converted {
    let (x, index, axis) = (c.x("self")?, c.x("index")?, c.axis("dim", "self")?);
    if !c.text("reduce").is_empty() {
        return Err("scatter that reduces".to_owned());
    }
    let source = if *c.node.arg("src") == Arg::None {
        let dtype = c.value("self")?.dtype;
        let value = c.operand("value", dtype)?;
        let shape = c.converter.sizes(&c.value("index")?.shape);
        c.op(Op::new("Expand", &[&value, &shape]))
    } else {
        c.x("src")?
    };
    c.one(Op::new("ScatterElements", &[&x, &index, &source]).int("axis", axis))
}

fn top(c: &mut Call<'_, '_>, axis: i64, k: i64, largest: bool) -> Converted {
    let x = c.x("self")?;
    let k = c.converter.draft.ints(&[k]);
    let names: Vec<String> = ["values", "indices"]
        .map(|part| {
            let wanted = format!("{}.{part}", c.output(0).name);
            c.converter.draft.name(&wanted)
        })
        .to_vec();
    let op = Op::new("TopK", &[&x, &k])
        .int("axis", axis)
        .int("largest", i64::from(largest))
        .int("sorted", 1);
    c.converter.draft.ops.push(Op {
        outputs: names.clone(),
        ..op
    });
    Ok(names)
}

fn triangle(c: &mut Call<'_, '_>, upper: i64) -> Converted {
    let x = c.x("self")?;
    let diagonal = c.int("diagonal")?;
    let diagonal = c.converter.draft.scalar(diagonal as f64, Dtype::I64);
    c.one(Op::new("Trilu", &[&x, &diagonal]).int("upper", upper))
}
