//! What moves elements and computes none.

use super::super::call::{Call, Converted};
use super::super::model::{Op, kind_of};
use super::{Rule, rule};
use crate::Size;
use crate::graph::Arg;
use tch::Tensor;

pub(super) static RULES: &[Rule] = &[
    rule("aten::alias", "nothing", same),
    rule("aten::cat", "Concat", |c| {
        let axis = cat_axis(c)?;
        let parts = c.parts("tensors", axis)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        c.one(Op::new("Concat", &parts).int("axis", axis))
    }),
    rule("aten::chunk", "Split", split),
    rule("aten::clone", "nothing", same),
    rule("aten::constant_pad_nd", "Pad", pad),
    rule("aten::contiguous", "nothing", same),
    rule("aten::detach", "nothing", same),
    rule("aten::dropout", "nothing", |c| {
        if c.flag("train") {
            return Err("dropout in training".to_owned());
        }
        Ok(vec![c.x("input")?])
    }),
    rule("aten::expand", "Expand", expand),
    rule("aten::expand_as", "Expand", expand),
    rule("aten::flatten", "Reshape", reshape),
    rule("aten::flip", "Slice", flip),
    rule("aten::full_like", "ConstantOfShape", |c| {
        let value = c.float("fill_value")?;
        filled(c, value)
    }),
    rule("aten::movedim", "Transpose", |c| {
        let (from, to) = (c.axes("source", "self")?, c.axes("destination", "self")?);
        let rank = c.value("self")?.shape.len() as i64;
        let mut order: Vec<Option<i64>> = vec![None; rank as usize];
        for (f, t) in from.iter().zip(&to) {
            order[*t as usize] = Some(*f);
        }
        let mut rest = (0..rank).filter(|axis| !from.contains(axis));
        let order = order.into_iter().map(|axis| axis.or_else(|| rest.next()));
        let order: Option<Vec<i64>> = order.collect();
        transpose(c, order.ok_or("axes")?)
    }),
    rule("aten::narrow", "Slice", |c| {
        let axis = c.axis("dim", "self")?;
        let (start, length) = (c.size("start")?, c.size("length")?);
        slice(c, axis, start, start.plus(length), 1)
    }),
    rule("aten::new_ones", "ConstantOfShape", |c| filled(c, 1.0)),
    rule("aten::new_zeros", "ConstantOfShape", |c| filled(c, 0.0)),
    rule("aten::ones_like", "ConstantOfShape", |c| filled(c, 1.0)),
    rule("aten::pad", "Pad", pad),
    rule("aten::permute", "Transpose", |c| {
        let order = c.axes("dims", "self")?;
        transpose(c, order)
    }),
    rule("aten::repeat", "Tile", |c| {
        let (x, repeats) = (c.x("self")?, c.ints("repeats")?);
        let missing = repeats.len() - c.value("self")?.shape.len();
        let mut shape = vec![Size::fixed(1); missing];
        shape.extend(&c.value("self")?.shape);
        let x = c.reshape(&x, &shape);
        let repeats = c.converter.draft.ints(&repeats);
        c.one(Op::new("Tile", &[&x, &repeats]))
    }),
    rule("aten::reshape", "Reshape", reshape),
    rule("aten::reshape_as", "Reshape", reshape),
    rule("aten::roll", "Slice, Concat", roll),
    rule("aten::slice", "Slice", |c| {
        let axis = c.axis("dim", "self")?;
        let bound = |name, default| match c.node.arg(name) {
            Arg::None => Ok(Size::fixed(default)),
            _ => c.size(name),
        };
        let (start, end) = (bound("start", 0)?, bound("end", i64::MAX)?);
        let step = bound("step", 1)?.as_fixed();
        slice(c, axis, start, end, step.ok_or("steps by the batch")?)
    }),
    rule("aten::split", "Split", split),
    rule("aten::split_with_sizes", "Split", split),
    rule("aten::squeeze", "Reshape", reshape),
    rule("aten::stack", "Reshape, Concat", stack),
    rule("aten::t", "Transpose", |c| transpose(c, vec![1, 0])),
    rule("aten::transpose", "Transpose", |c| {
        let rank = c.value("self")?.shape.len() as i64;
        let mut order: Vec<i64> = (0..rank).collect();
        order.swap(
            c.axis("dim0", "self")? as usize,
            c.axis("dim1", "self")? as usize,
        );
        transpose(c, order)
    }),
    rule("aten::unbind", "Split, Reshape", unbind),
    rule("aten::unflatten", "Reshape", reshape),
    rule("aten::unfold", "Gather, Transpose", unfold),
    rule("aten::unsqueeze", "Reshape", reshape),
    rule("aten::view", "Reshape", reshape),
    rule("aten::view_as", "Reshape", reshape),
    rule("aten::zeros_like", "ConstantOfShape", |c| filled(c, 0.0)),
];

fn same(c: &mut Call<'_, '_>) -> Converted {
    Ok(vec![c.x("self")?])
}

/// Every operator that only renames axes: the output's shape is known.
fn reshape(c: &mut Call<'_, '_>) -> Converted {
    let x = c.x("self")?;
    let shape = &c.output(0).shape;
    if *shape == c.value("self")?.shape {
        return Ok(vec![x]);
    }
    Ok(vec![c.reshape(&x, shape)])
}

pub(super) fn transpose(c: &mut Call<'_, '_>, order: Vec<i64>) -> Converted {
    let x = c.x("self")?;
    c.one(Op::new("Transpose", &[&x]).ints("perm", order))
}

fn slice(c: &mut Call<'_, '_>, axis: i64, start: Size, end: Size, step: i64) -> Converted {
    let x = c.x("self")?;
    if c.output(0).shape == c.value("self")?.shape {
        return Ok(vec![x]);
    }
    let [start, end] = [start, end].map(|n| c.converter.sizes(&[n]));
    let [axis, step] = [axis, step].map(|n| c.converter.draft.ints(&[n]));
    c.one(Op::new("Slice", &[&x, &start, &end, &axis, &step]))
}

fn cat_axis(c: &Call<'_, '_>) -> Result<i64, String> {
    let rank = c.output(0).shape.len() as i64;
    let axis = c.int("dim")?;
    Ok(if axis < 0 { axis + rank } else { axis })
}

/// Reads the parts' sizes off the outputs.
fn split(c: &mut Call<'_, '_>) -> Converted {
    let (x, axis) = (c.x("self")?, c.axis("dim", "self")?);
    let count = c.node.outputs.len();
    let sizes = (0..count).map(|i| c.output(i).shape[axis as usize]);
    let sizes: Vec<Size> = sizes.collect();
    let alike = sizes.iter().all(|size| *size == sizes[0]);
    let op = if alike && sizes[0].as_fixed().is_none() {
        // Equal parts of what depends on the batch need no arithmetic.
        Op::new("Split", &[&x]).int("num_outputs", count as i64)
    } else {
        let sizes = c.converter.sizes(&sizes);
        Op::new("Split", &[&x, &sizes])
    };
    let names: Vec<String> = (0..count)
        .map(|i| {
            let wanted = &c.output(i).name;
            c.converter.draft.name(wanted)
        })
        .collect();
    c.converter.draft.ops.push(Op {
        outputs: names.clone(),
        ..op.int("axis", axis)
    });
    Ok(names)
}

fn unbind(c: &mut Call<'_, '_>) -> Converted {
    let (x, axis) = (c.x("self")?, c.axis("dim", "self")?);
    let count = c.node.outputs.len();
    let sizes = c.converter.draft.ints(&vec![1; count]);
    let parts: Vec<String> = (0..count).map(|_| c.converter.draft.name("part")).collect();
    c.converter.draft.ops.push(Op {
        outputs: parts.clone(),
        ..Op::new("Split", &[&x, &sizes]).int("axis", axis)
    });
    let reshaped = parts.iter().enumerate();
    Ok(reshaped
        .map(|(i, part)| c.reshape(part, &c.output(i).shape))
        .collect())
}

/// Gives every part the new axis and joins them.
fn stack(c: &mut Call<'_, '_>) -> Converted {
    let (parts, axis) = (c.list("tensors")?, cat_axis(c)?);
    let mut shape = c.output(0).shape.clone();
    shape[axis as usize] = Size::fixed(1);
    let parts: Vec<String> = parts.iter().map(|part| c.reshape(part, &shape)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    c.one(Op::new("Concat", &parts).int("axis", axis))
}

fn expand(c: &mut Call<'_, '_>) -> Converted {
    let x = c.x("self")?;
    let shape = &c.output(0).shape;
    if *shape == c.value("self")?.shape {
        return Ok(vec![x]);
    }
    let shape = c.converter.sizes(shape);
    c.one(Op::new("Expand", &[&x, &shape]))
}

fn filled(c: &mut Call<'_, '_>, value: f64) -> Converted {
    let output = c.output(0);
    let shape = c.converter.sizes(&output.shape);
    let number = Tensor::full([1], value, (kind_of(output.dtype), tch::Device::Cpu));
    let number = c.converter.draft.weight("scalar", number);
    let axes = c.converter.draft.ints(&vec![1; output.shape.len()]);
    let number = c.op(Op::new("Reshape", &[&number, &axes]));
    c.one(Op::new("Expand", &[&number, &shape]))
}

/// libtorch names the last axis first, ONNX all starts before all ends.
fn pad(c: &mut Call<'_, '_>) -> Converted {
    let (x, rank, dtype) = (
        c.x("self")?,
        c.value("self")?.shape.len(),
        c.value("self")?.dtype,
    );
    let pads = c.ints("pad")?;
    let mut ordered = vec![0; 2 * rank];
    for (i, pair) in pads.chunks_exact(2).enumerate() {
        let axis = rank - 1 - i;
        (ordered[axis], ordered[rank + axis]) = (pair[0], pair[1]);
    }
    let ordered = c.converter.draft.ints(&ordered);
    let mode = match c.text("mode") {
        "" | "constant" => "constant",
        "replicate" => "edge",
        "circular" => "wrap",
        mode => mode,
    };
    let mut op = Op::new("Pad", &[&x, &ordered]);
    if mode == "constant" {
        let value = match c.node.arg("value") {
            Arg::None => c.converter.draft.scalar(0.0, dtype),
            _ => c.operand("value", dtype)?,
        };
        op.inputs.push(value);
    }
    c.one(op.text("mode", mode))
}

fn flip(c: &mut Call<'_, '_>) -> Converted {
    let (x, axes) = (c.x("self")?, c.axes("dims", "self")?);
    let n = axes.len();
    let [start, end, axes, step] = [vec![-1; n], vec![i64::MIN; n], axes, vec![-1; n]]
        .map(|values| c.converter.draft.ints(&values));
    c.one(Op::new("Slice", &[&x, &start, &end, &axes, &step]))
}

fn roll(c: &mut Call<'_, '_>) -> Converted {
    let mut x = c.x("self")?;
    let (shifts, axes) = (c.ints("shifts")?, c.ints("dims")?);
    let shape = c.value("self")?.shape.clone();
    for (shift, axis) in shifts.into_iter().zip(axes) {
        let axis = if axis < 0 {
            axis + shape.len() as i64
        } else {
            axis
        };
        let length = shape[axis as usize].as_fixed().ok_or("rolls the batch")?;
        let cut = (length - shift).rem_euclid(length.max(1));
        if cut == 0 {
            continue;
        }
        let part = |c: &mut Call<'_, '_>, start: i64, end: i64| {
            let bounds = [start, end, axis].map(|n| c.converter.draft.ints(&[n]));
            c.op(Op::new("Slice", &[&x, &bounds[0], &bounds[1], &bounds[2]]))
        };
        let (back, front) = (part(c, cut, i64::MAX), part(c, 0, cut));
        x = c.op(Op::new("Concat", &[&back, &front]).int("axis", axis));
    }
    Ok(vec![x])
}

/// Windows along an axis: gathered in place, then moved to the end.
fn unfold(c: &mut Call<'_, '_>) -> Converted {
    let (x, axis) = (c.x("self")?, c.axis("dimension", "self")?);
    let (size, step) = (c.int("size")?, c.int("step")?);
    let windows = c.output(0).shape[axis as usize]
        .as_fixed()
        .ok_or("unfolds the batch")?;
    let index: Vec<i64> = (0..windows)
        .flat_map(|w| (0..size).map(move |i| w * step + i))
        .collect();
    let index = Tensor::from_slice(&index).reshape([windows, size]);
    let index = c.converter.draft.weight("windows", index);
    let gathered = c.op(Op::new("Gather", &[&x, &index]).int("axis", axis));
    let rank = c.output(0).shape.len() as i64;
    let order = (0..rank).filter(|&a| a != axis + 1).chain([axis + 1]);
    let order: Vec<i64> = order.collect();
    c.one(Op::new("Transpose", &[&gathered]).ints("perm", order))
}
