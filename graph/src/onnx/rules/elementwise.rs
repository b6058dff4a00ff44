//! Arithmetic and activations, element by element.

use super::super::bytes::element_type_of;
use super::super::call::{Call, Converted};
use super::super::model::Op;
use super::{Rule, rule};
use crate::graph::{Arg, Dtype};

pub(super) static RULES: &[Rule] = &[
    rule("aten::abs", "Abs", |c| unary(c, "Abs")),
    rule("aten::add", "Add", |c| scaled(c, "Add")),
    rule("aten::addcmul", "Mul, Add", addcmul),
    rule("aten::bitwise_and", "And", |c| binary(c, "And")),
    rule("aten::bitwise_not", "Not", |c| unary(c, "Not")),
    rule("aten::bitwise_or", "Or", |c| binary(c, "Or")),
    rule("aten::ceil", "Ceil", |c| unary(c, "Ceil")),
    rule("aten::clamp", "Clip", |c| clip(c, "min", "max")),
    rule("aten::clamp_max", "Clip", |c| clip(c, "", "max")),
    rule("aten::clamp_min", "Clip", |c| clip(c, "min", "")),
    rule("aten::cos", "Cos", |c| unary(c, "Cos")),
    rule("aten::div", "Div (Floor)", divide),
    rule("aten::elu", "Elu", |c| {
        let (x, alpha) = (c.x("self")?, c.float("alpha")?);
        c.one(Op::new("Elu", &[&x]).float("alpha", alpha))
    }),
    rule("aten::eq", "Equal", |c| binary(c, "Equal")),
    rule("aten::erf", "Erf", |c| unary(c, "Erf")),
    rule("aten::exp", "Exp", |c| unary(c, "Exp")),
    rule("aten::floor", "Floor", |c| unary(c, "Floor")),
    rule("aten::ge", "GreaterOrEqual", |c| {
        binary(c, "GreaterOrEqual")
    }),
    rule("aten::gelu", "Gelu", gelu),
    rule("aten::gt", "Greater", |c| binary(c, "Greater")),
    rule("aten::hardsigmoid", "HardSigmoid", |c| {
        let x = c.x("self")?;
        c.one(
            Op::new("HardSigmoid", &[&x])
                .float("alpha", 1.0 / 6.0)
                .float("beta", 0.5),
        )
    }),
    rule("aten::hardswish", "HardSwish", |c| unary(c, "HardSwish")),
    rule("aten::hardtanh", "Clip", |c| clip(c, "min_val", "max_val")),
    rule("aten::le", "LessOrEqual", |c| binary(c, "LessOrEqual")),
    rule("aten::leaky_relu", "LeakyRelu", |c| {
        let (x, slope) = (c.x("self")?, c.float("negative_slope")?);
        c.one(Op::new("LeakyRelu", &[&x]).float("alpha", slope))
    }),
    rule("aten::log", "Log", |c| unary(c, "Log")),
    rule("aten::log1p", "Add, Log", log1p),
    rule("aten::logical_and", "And", |c| binary(c, "And")),
    rule("aten::logical_not", "Not", |c| unary(c, "Not")),
    rule("aten::logical_or", "Or", |c| binary(c, "Or")),
    rule("aten::lt", "Less", |c| binary(c, "Less")),
    rule("aten::masked_fill", "Where", masked_fill),
    rule("aten::maximum", "Max", |c| binary(c, "Max")),
    rule("aten::minimum", "Min", |c| binary(c, "Min")),
    rule("aten::mish", "Mish", |c| unary(c, "Mish")),
    rule("aten::mul", "Mul", |c| binary(c, "Mul")),
    rule("aten::ne", "Equal, Not", |c| {
        let equal = binary(c, "Equal")?;
        c.one(Op::new("Not", &[&equal[0]]))
    }),
    rule("aten::neg", "Neg", |c| unary(c, "Neg")),
    rule("aten::pow", "Pow", |c| {
        let (x, dtype) = (c.x("self")?, c.value("self")?.dtype);
        let exponent = c.operand("exponent", dtype)?;
        c.one(Op::new("Pow", &[&x, &exponent]))
    }),
    rule("aten::reciprocal", "Reciprocal", |c| unary(c, "Reciprocal")),
    rule("aten::relu", "Relu", |c| unary(c, "Relu")),
    rule("aten::relu6", "Clip", |c| {
        let (x, dtype) = (c.x("self")?, c.value("self")?.dtype);
        let low = c.converter.draft.scalar(0.0, dtype);
        let high = c.converter.draft.scalar(6.0, dtype);
        c.one(Op::new("Clip", &[&x, &low, &high]))
    }),
    rule("aten::round", "Round", |c| unary(c, "Round")),
    rule("aten::rsqrt", "Sqrt, Reciprocal", |c| {
        let root = unary(c, "Sqrt")?;
        c.one(Op::new("Reciprocal", &[&root[0]]))
    }),
    rule("aten::rsub", "Sub", |c| {
        let (x, dtype) = (c.x("self")?, c.value("self")?.dtype);
        let other = c.operand("other", dtype)?;
        no_alpha(c)?;
        c.one(Op::new("Sub", &[&other, &x]))
    }),
    rule("aten::sigmoid", "Sigmoid", |c| unary(c, "Sigmoid")),
    rule("aten::sign", "Sign", |c| unary(c, "Sign")),
    rule("aten::silu", "Sigmoid, Mul", |c| {
        let x = c.x("self")?;
        let gate = c.op(Op::new("Sigmoid", &[&x]));
        c.one(Op::new("Mul", &[&x, &gate]))
    }),
    rule("aten::sin", "Sin", |c| unary(c, "Sin")),
    rule("aten::sinc", "Mul, Sin, Div, Equal, Where", sinc),
    rule("aten::softplus", "Softplus", |c| {
        if c.float("beta")? != 1.0 {
            return Err("beta is not 1".to_owned());
        }
        unary(c, "Softplus")
    }),
    rule("aten::sqrt", "Sqrt", |c| unary(c, "Sqrt")),
    rule("aten::square", "Mul", |c| {
        let x = c.x("self")?;
        c.one(Op::new("Mul", &[&x, &x]))
    }),
    rule("aten::sub", "Sub", |c| scaled(c, "Sub")),
    rule("aten::tanh", "Tanh", |c| unary(c, "Tanh")),
    rule("aten::threshold", "Greater, Where", threshold),
    rule("aten::to", "Cast", cast),
    rule("aten::type_as", "Cast", cast),
    rule("aten::where", "Where", |c| {
        let (condition, dtype) = (c.x("condition")?, c.output(0).dtype);
        let (x, y) = (c.operand("self", dtype)?, c.operand("other", dtype)?);
        c.one(Op::new("Where", &[&condition, &x, &y]))
    }),
];

fn unary(c: &mut Call<'_, '_>, kind: &'static str) -> Converted {
    let x = c.x("self")?;
    c.one(Op::new(kind, &[&x]))
}

/// The kind that both operands of a comparison or an operation are brought to.
fn common(c: &Call<'_, '_>) -> Result<Dtype, String> {
    let x = c.value("self")?;
    let Ok(other) = c.value("other") else {
        let float = matches!(c.node.arg("other"), Arg::Float(_));
        return Ok(match float && !x.dtype.is_float() {
            true => Dtype::F32,
            false => x.dtype,
        });
    };
    Ok(match (x.dtype.is_float(), other.dtype.is_float()) {
        (true, false) => x.dtype,
        (false, true) => other.dtype,
        _ if x.dtype.bytes() >= other.dtype.bytes() && x.dtype != Dtype::Bool => x.dtype,
        _ => other.dtype,
    })
}

/// `self` and `other` in one kind.
fn operands(c: &mut Call<'_, '_>) -> Result<[String; 2], String> {
    let dtype = common(c)?;
    let mut names = [String::new(), String::new()];
    for (name, argument) in names.iter_mut().zip(["self", "other"]) {
        *name = c.operand(argument, dtype)?;
        if c.value(argument).is_ok_and(|value| value.dtype != dtype) {
            *name = c.op(Op::new("Cast", &[name]).int("to", i64::from(element_type_of(dtype))));
        }
    }
    Ok(names)
}

fn binary(c: &mut Call<'_, '_>, kind: &'static str) -> Converted {
    let [x, y] = operands(c)?;
    c.one(Op::new(kind, &[&x, &y]))
}

/// `self` plus or minus `alpha * other`.
fn scaled(c: &mut Call<'_, '_>, kind: &'static str) -> Converted {
    let [x, mut y] = operands(c)?;
    let alpha = match c.node.arg("alpha") {
        Arg::None => 1.0,
        _ => c.float("alpha")?,
    };
    if alpha != 1.0 {
        let dtype = common(c)?;
        let factor = c.converter.draft.scalar(alpha, dtype);
        y = c.op(Op::new("Mul", &[&y, &factor]));
    }
    c.one(Op::new(kind, &[&x, &y]))
}

fn no_alpha(c: &Call<'_, '_>) -> Result<(), String> {
    match c.node.arg("alpha") {
        Arg::None => Ok(()),
        _ if c.float("alpha")? == 1.0 => Ok(()),
        _ => Err("alpha is not 1".to_owned()),
    }
}

fn addcmul(c: &mut Call<'_, '_>) -> Converted {
    let (x, a, b) = (c.x("self")?, c.x("tensor1")?, c.x("tensor2")?);
    let mut product = c.op(Op::new("Mul", &[&a, &b]));
    let factor = c.float("value")?;
    if factor != 1.0 {
        let factor = c.converter.draft.scalar(factor, c.value("self")?.dtype);
        product = c.op(Op::new("Mul", &[&product, &factor]));
    }
    c.one(Op::new("Add", &[&x, &product]))
}

fn clip(c: &mut Call<'_, '_>, low: &str, high: &str) -> Converted {
    let (x, dtype) = (c.x("self")?, c.value("self")?.dtype);
    let mut bound = |name: &str| match c.node.arg(name) {
        Arg::None => Ok(String::new()),
        _ => c.operand(name, dtype),
    };
    let (low, high) = (bound(low)?, bound(high)?);
    c.one(Op::new("Clip", &[&x, &low, &high]))
}

fn divide(c: &mut Call<'_, '_>) -> Converted {
    let mode = c.text("rounding_mode");
    let mut quotient = binary(c, "Div")?;
    match mode {
        "" => {}
        "floor" => quotient = vec![c.op(Op::new("Floor", &[&quotient[0]]))],
        mode => return Err(format!("rounding mode {mode}")),
    }
    Ok(quotient)
}

fn gelu(c: &mut Call<'_, '_>) -> Converted {
    let (x, form) = (c.x("self")?, c.text("approximate"));
    c.one(Op::new("Gelu", &[&x]).text("approximate", form))
}

fn log1p(c: &mut Call<'_, '_>) -> Converted {
    let (x, dtype) = (c.x("self")?, c.value("self")?.dtype);
    let one = c.converter.draft.scalar(1.0, dtype);
    let sum = c.op(Op::new("Add", &[&x, &one]));
    c.one(Op::new("Log", &[&sum]))
}

fn masked_fill(c: &mut Call<'_, '_>) -> Converted {
    let (x, mask, dtype) = (c.x("self")?, c.x("mask")?, c.value("self")?.dtype);
    let value = c.operand("value", dtype)?;
    c.one(Op::new("Where", &[&mask, &value, &x]))
}

/// sin(pi x) / (pi x), and 1 at 0.
fn sinc(c: &mut Call<'_, '_>) -> Converted {
    let (x, dtype) = (c.x("self")?, c.value("self")?.dtype);
    let [pi, zero, one] =
        [std::f64::consts::PI, 0.0, 1.0].map(|v| c.converter.draft.scalar(v, dtype));
    let angle = c.op(Op::new("Mul", &[&x, &pi]));
    let sine = c.op(Op::new("Sin", &[&angle]));
    let at_zero = c.op(Op::new("Equal", &[&x, &zero]));
    let safe = c.op(Op::new("Where", &[&at_zero, &one, &angle]));
    let quotient = c.op(Op::new("Div", &[&sine, &safe]));
    c.one(Op::new("Where", &[&at_zero, &one, &quotient]))
}

fn threshold(c: &mut Call<'_, '_>) -> Converted {
    let (x, dtype) = (c.x("self")?, c.value("self")?.dtype);
    let limit = c.operand("threshold", dtype)?;
    let value = c.operand("value", dtype)?;
    let above = c.op(Op::new("Greater", &[&x, &limit]));
    c.one(Op::new("Where", &[&above, &x, &value]))
}

/// To the kind of the output; nothing where it is the input's.
fn cast(c: &mut Call<'_, '_>) -> Converted {
    let (x, from, to) = (c.x("self")?, c.value("self")?.dtype, c.output(0).dtype);
    if from == to {
        return Ok(vec![x]);
    }
    let element = i64::from(element_type_of(to));
    c.one(Op::new("Cast", &[&x]).int("to", element))
}
