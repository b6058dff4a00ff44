//! Convolutions, products, norms, attention, pooling and resizing.

use super::super::call::{Call, Converted};
use super::super::model::{Op, kind_of};
use super::{Rule, rule};
use crate::graph::{Arg, Dtype};
use tch::Tensor;

pub(super) static RULES: &[Rule] = &[
    rule("aten::_convolution", "Conv, ConvTranspose", convolution),
    rule(
        "aten::adaptive_avg_pool1d",
        "GlobalAveragePool, AveragePool, MatMul",
        |c| adaptive_average(c, 1),
    ),
    rule(
        "aten::adaptive_avg_pool2d",
        "GlobalAveragePool, AveragePool, MatMul",
        |c| adaptive_average(c, 2),
    ),
    rule("aten::addmm", "Gemm", |c| {
        if c.float("beta")? != 1.0 || c.float("alpha")? != 1.0 {
            return Err("alpha or beta is not 1".to_owned());
        }
        let (bias, a, b) = (c.x("self")?, c.x("mat1")?, c.x("mat2")?);
        c.one(Op::new("Gemm", &[&a, &b, &bias]))
    }),
    rule("aten::avg_pool2d", "AveragePool", average),
    rule("aten::baddbmm", "MatMul, Add", |c| {
        if c.float("beta")? != 1.0 || c.float("alpha")? != 1.0 {
            return Err("alpha or beta is not 1".to_owned());
        }
        let (bias, a, b) = (c.x("self")?, c.x("batch1")?, c.x("batch2")?);
        let product = c.op(Op::new("MatMul", &[&a, &b]));
        c.one(Op::new("Add", &[&product, &bias]))
    }),
    rule("aten::batch_norm", "BatchNormalization", batch_norm),
    rule("aten::bmm", "MatMul", |c| product(c, "mat2")),
    rule("aten::einsum", "Einsum", |c| {
        let (parts, equation) = (c.list("tensors")?, c.text("equation"));
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        c.one(Op::new("Einsum", &parts).text("equation", equation))
    }),
    rule("aten::group_norm", "GroupNormalization", group_norm),
    rule("aten::im2col", "Pad, Gather, Transpose, Reshape", im2col),
    rule("aten::instance_norm", "InstanceNormalization", |c| {
        let (x, scale, bias) = (
            c.x("input")?,
            affine(c, "weight", 1.0)?,
            affine(c, "bias", 0.0)?,
        );
        let eps = c.float("eps")?;
        c.one(Op::new("InstanceNormalization", &[&x, &scale, &bias]).float("epsilon", eps))
    }),
    rule("aten::layer_norm", "LayerNormalization", layer_norm),
    rule("aten::linear", "Gemm, MatMul, Add", linear),
    rule("aten::matmul", "MatMul", |c| product(c, "other")),
    rule("aten::max_pool2d", "MaxPool", max_pool),
    rule("aten::mm", "MatMul", |c| product(c, "mat2")),
    rule("aten::mv", "MatMul", |c| product(c, "vec")),
    rule(
        "aten::scaled_dot_product_attention",
        "Mul, Transpose, MatMul, Add, Softmax",
        attention,
    ),
    rule("aten::upsample_bicubic2d", "Resize", |c| resize(c, "cubic")),
    rule("aten::upsample_bilinear2d", "Resize", |c| {
        resize(c, "linear")
    }),
    rule("aten::upsample_nearest2d", "Resize", |c| {
        resize(c, "nearest")
    }),
];

fn convolution(c: &mut Call<'_, '_>) -> Converted {
    let (x, weight, bias) = (c.x("input")?, c.x("weight")?, c.optional("bias")?);
    let kernel = c.value("weight")?.fixed_shape().ok_or("kernel")?[2..].to_vec();
    // A list of one stands for every axis.
    let of_axes = |list: Vec<i64>| match list.as_slice() {
        [one] => vec![*one; kernel.len()],
        _ => list,
    };
    let [pads, strides, dilations] =
        ["padding", "stride", "dilation"].map(|name| c.ints(name).map(of_axes));
    let (pads, strides, dilations) = (pads?, strides?, dilations?);
    let transposed = c.flag("transposed");
    let more = match transposed {
        true => Some(of_axes(c.ints("output_padding")?)),
        false => None,
    };
    let kind = if transposed { "ConvTranspose" } else { "Conv" };
    let mut op = Op::new(kind, &[&x, &weight]);
    op.inputs.extend(bias);
    op = op
        .ints("kernel_shape", kernel)
        .ints("strides", strides)
        .ints("pads", [pads.clone(), pads].concat())
        .ints("dilations", dilations)
        .int("group", c.int("groups")?);
    if let Some(more) = more {
        op = op.ints("output_padding", more);
    }
    c.one(op)
}

/// A weight of a norm; a vector of `default` where it has none.
fn affine(c: &mut Call<'_, '_>, name: &str, default: f64) -> Result<String, String> {
    if let Some(given) = c.optional(name)? {
        return Ok(given);
    }
    let x = c.value("input")?;
    let channels = x.shape[1].as_fixed().ok_or("channels")?;
    let values = Tensor::full([channels], default, (kind_of(x.dtype), tch::Device::Cpu));
    Ok(c.converter.draft.weight("scalar", values))
}

fn batch_norm(c: &mut Call<'_, '_>) -> Converted {
    if c.flag("training") {
        return Err("a batch norm in training: switch the model to evaluation".to_owned());
    }
    let x = c.x("input")?;
    let parts = [
        affine(c, "weight", 1.0)?,
        affine(c, "bias", 0.0)?,
        c.x("running_mean")?,
        c.x("running_var")?,
    ];
    let eps = c.float("eps")?;
    let inputs = [&x, &parts[0], &parts[1], &parts[2], &parts[3]].map(String::as_str);
    c.one(Op::new("BatchNormalization", &inputs).float("epsilon", eps))
}

fn group_norm(c: &mut Call<'_, '_>) -> Converted {
    let (x, groups, eps) = (c.x("input")?, c.int("num_groups")?, c.float("eps")?);
    let (scale, bias) = (affine(c, "weight", 1.0)?, affine(c, "bias", 0.0)?);
    c.one(
        Op::new("GroupNormalization", &[&x, &scale, &bias])
            .int("num_groups", groups)
            .float("epsilon", eps),
    )
}

fn layer_norm(c: &mut Call<'_, '_>) -> Converted {
    let (x, eps) = (c.x("input")?, c.float("eps")?);
    let shape = c.ints("normalized_shape")?;
    let dtype = c.value("input")?.dtype;
    let scale = match c.optional("weight")? {
        Some(scale) => scale,
        None => {
            let t = Tensor::ones(&shape, (kind_of(dtype), tch::Device::Cpu));
            c.converter.draft.weight("scalar", t)
        }
    };
    let mut op = Op::new("LayerNormalization", &[&x, &scale]);
    op.inputs.extend(c.optional("bias")?);
    c.one(op.int("axis", -(shape.len() as i64)).float("epsilon", eps))
}

/// One product for rows of vectors; a matrix product with the transposed weight, and the bias apart, for more axes.
fn linear(c: &mut Call<'_, '_>) -> Converted {
    let (x, bias) = (c.x("input")?, c.optional("bias")?);
    if c.value("input")?.shape.len() == 2 {
        let weight = c.x("weight")?;
        let mut op = Op::new("Gemm", &[&x, &weight]);
        op.inputs.extend(bias);
        return c.one(op.int("transB", 1));
    }
    let weight = match c.known("weight") {
        Some(weight) => {
            let name = c.value("weight")?.name.clone();
            let transposed = weight
                .detach()
                .to_device(tch::Device::Cpu)
                .tr()
                .contiguous();
            c.converter.draft.weight(&format!("{name}.T"), transposed)
        }
        None => {
            let weight = c.x("weight")?;
            c.op(Op::new("Transpose", &[&weight]).ints("perm", vec![1, 0]))
        }
    };
    let product = c.op(Op::new("MatMul", &[&x, &weight]));
    match bias {
        Some(bias) => c.one(Op::new("Add", &[&product, &bias])),
        None => Ok(vec![product]),
    }
}

fn product(c: &mut Call<'_, '_>, other: &str) -> Converted {
    let (x, y) = (c.x("self")?, c.x(other)?);
    c.one(Op::new("MatMul", &[&x, &y]))
}

/// softmax(q k^T scale + mask) v.
fn attention(c: &mut Call<'_, '_>) -> Converted {
    if c.flag("is_causal") || c.flag("enable_gqa") {
        return Err("causal or grouped queries".to_owned());
    }
    if c.float("dropout_p")? != 0.0 {
        return Err("dropout".to_owned());
    }
    let (q, k, v) = (c.x("query")?, c.x("key")?, c.x("value")?);
    let query = c.value("query")?;
    let rank = query.shape.len() as i64;
    let width = query.shape[rank as usize - 1].as_fixed().ok_or("width")?;
    let scale = match c.node.arg("scale") {
        Arg::None => (width as f64).powf(-0.5),
        _ => c.float("scale")?,
    };
    let mut q = q;
    if scale != 1.0 {
        let scale = c.converter.draft.scalar(scale, query.dtype);
        q = c.op(Op::new("Mul", &[&q, &scale]));
    }
    let mut order: Vec<i64> = (0..rank).collect();
    order.swap(rank as usize - 1, rank as usize - 2);
    let k = c.op(Op::new("Transpose", &[&k]).ints("perm", order));
    let mut scores = c.op(Op::new("MatMul", &[&q, &k]));
    if let Some(mask) = c.optional("attn_mask")? {
        if c.value("attn_mask")?.dtype == Dtype::Bool {
            let out = c.converter.draft.scalar(f64::NEG_INFINITY, query.dtype);
            scores = c.op(Op::new("Where", &[&mask, &scores, &out]));
        } else {
            scores = c.op(Op::new("Add", &[&scores, &mask]));
        }
    }
    let weights = c.op(Op::new("Softmax", &[&scores]).int("axis", -1));
    c.one(Op::new("MatMul", &[&weights, &v]))
}

/// Values for both axes: libtorch lets one stand for both, and none for a default.
fn pair(c: &Call<'_, '_>, name: &str, default: &[i64]) -> Result<Vec<i64>, String> {
    let values = c.ints(name)?;
    Ok(match values.as_slice() {
        [] => default.to_vec(),
        [one] => vec![*one; 2],
        _ => values,
    })
}

fn pool(c: &mut Call<'_, '_>, kind: &'static str) -> Result<Op, String> {
    let (x, kernel) = (c.x("self")?, pair(c, "kernel_size", &[])?);
    let strides = pair(c, "stride", &kernel)?;
    let pads = pair(c, "padding", &[0, 0])?;
    Ok(Op::new(kind, &[&x])
        .int("ceil_mode", i64::from(c.flag("ceil_mode")))
        .ints("kernel_shape", kernel)
        .ints("strides", strides)
        .ints("pads", [pads.clone(), pads].concat()))
}

fn max_pool(c: &mut Call<'_, '_>) -> Converted {
    let op = pool(c, "MaxPool")?;
    let dilations = pair(c, "dilation", &[1, 1])?;
    c.one(op.ints("dilations", dilations))
}

fn average(c: &mut Call<'_, '_>) -> Converted {
    if *c.node.arg("divisor_override") != Arg::None {
        return Err("a divisor of its own".to_owned());
    }
    let op = pool(c, "AveragePool")?;
    let counted = i64::from(c.flag("count_include_pad"));
    c.one(op.int("count_include_pad", counted))
}

/// Over the last `rank` axes: windows where the output's sides divide the input's, else products with the shares that each
/// pixel has in each mean.
fn adaptive_average(c: &mut Call<'_, '_>, rank: usize) -> Converted {
    let x = c.x("self")?;
    let sides = |shape: &[crate::Size]| -> Option<Vec<i64>> {
        let sides = shape.get(shape.len().checked_sub(rank)?..)?;
        sides.iter().map(|side| side.as_fixed()).collect()
    };
    let from = sides(&c.value("self")?.shape).ok_or("sides")?;
    let to = sides(&c.output(0).shape).ok_or("sides")?;
    if to.iter().all(|&side| side == 1) {
        return c.one(Op::new("GlobalAveragePool", &[&x]));
    }
    let pairs = from.iter().zip(&to);
    if pairs.clone().any(|(from, to)| from % to != 0) {
        return shares(c, &x, &from, &to);
    }
    let kernel: Vec<i64> = pairs.map(|(from, to)| from / to).collect();
    c.one(
        Op::new("AveragePool", &[&x])
            .ints("kernel_shape", kernel.clone())
            .ints("strides", kernel),
    )
}

/// The mean over each axis in turn, the last one first.
fn shares(c: &mut Call<'_, '_>, x: &str, from: &[i64], to: &[i64]) -> Converted {
    let dtype = kind_of(c.value("self")?.dtype);
    let mut x = x.to_owned();
    for (i, (&from_side, &to_side)) in from.iter().zip(to).enumerate().rev() {
        let shares = pooling(from_side, to_side).to_kind(dtype);
        let is_last = i + 1 == from.len();
        let shares = if is_last {
            shares
        } else {
            shares.tr().contiguous()
        };
        let shares = c.converter.draft.weight("shares", shares);
        x = c.op(match is_last {
            true => Op::new("MatMul", &[&x, &shares]),
            false => Op::new("MatMul", &[&shares, &x]),
        });
    }
    Ok(vec![x])
}

/// [from, to]: mean `j` is that of the pixels from floor(j from / to) to ceil((j + 1) from / to).
fn pooling(from: i64, to: i64) -> Tensor {
    let mut shares = vec![0.0; (from * to) as usize];
    for j in 0..to {
        let (start, end) = (j * from / to, ((j + 1) * from + to - 1) / to);
        for i in start..end {
            shares[(i * to + j) as usize] = 1.0 / (end - start) as f64;
        }
    }
    Tensor::from_slice(&shares).reshape([from, to])
}

fn resize(c: &mut Call<'_, '_>, mode: &str) -> Converted {
    let (x, output) = (c.x("self")?, c.output(0));
    let sizes = c.converter.sizes(&output.shape);
    let place = match (mode, c.flag("align_corners")) {
        ("nearest", _) => "asymmetric",
        (_, true) => "align_corners",
        (_, false) => "half_pixel",
    };
    let mut op = Op::new("Resize", &[&x, "", "", &sizes])
        .text("mode", mode)
        .text("coordinate_transformation_mode", place);
    op = match mode {
        "nearest" => op.text("nearest_mode", "floor"),
        "cubic" => op.float("cubic_coeff_a", -0.75),
        _ => op,
    };
    c.one(op)
}

/// The patches under a kernel as columns [B, C k k, L]: windows along both axes, gathered.
fn im2col(c: &mut Call<'_, '_>) -> Converted {
    let (mut x, dtype) = (c.x("self")?, c.value("self")?.dtype);
    let [kernel, dilation, padding, stride] =
        ["kernel_size", "dilation", "padding", "stride"].map(|name| c.ints(name));
    let (kernel, dilation, padding, stride) = (kernel?, dilation?, padding?, stride?);
    let input = c.value("self")?.shape.clone();
    if padding.iter().any(|&p| p != 0) {
        let pads = [0, 0, padding[0], padding[1], 0, 0, padding[0], padding[1]];
        let pads = c.converter.draft.ints(&pads);
        let zero = c.converter.draft.scalar(0.0, dtype);
        x = c.op(Op::new("Pad", &[&x, &pads, &zero]).text("mode", "constant"));
    }
    for (i, axis) in [(0, 2), (1, 4)] {
        let length = input[2 + i].as_fixed().ok_or("sides")? + 2 * padding[i];
        let windows = (length - dilation[i] * (kernel[i] - 1) - 1) / stride[i] + 1;
        // [k, windows]: the kernel's offset comes first in the columns.
        let index: Vec<i64> = (0..kernel[i])
            .flat_map(|k| (0..windows).map(move |w| (k, w)))
            .map(|(k, w)| k * dilation[i] + w * stride[i])
            .collect();
        let index = Tensor::from_slice(&index).reshape([kernel[i], windows]);
        let index = c.converter.draft.weight("windows", index);
        x = c.op(Op::new("Gather", &[&x, &index]).int("axis", axis));
    }
    // [B, C, kh, rows, kw, columns]
    x = c.op(Op::new("Transpose", &[&x]).ints("perm", vec![0, 1, 2, 4, 3, 5]));
    let shape = &c.output(0).shape;
    Ok(vec![c.reshape(&x, shape)])
}
