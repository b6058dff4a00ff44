//! How each operator counts.

use super::{Call, products};
use std::collections::BTreeMap;

/// How an operator counts.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// Shows a tensor in another way: nothing is done, nothing is moved.
    View,
    /// A view where the memory's layout and the kind of numbers allow it, otherwise a copy.
    Layout,
    /// Copies its inputs.
    Copy,
    /// Copies parts of its first input, which other inputs or arguments name.
    Lookup,
    /// Writes numbers that depend on no tensor's values.
    Fill,
    /// So many operations for each element of the results.
    Each(u64),
    /// So many operations for each element of the first input.
    Over(u64),
    /// Operations by a formula, which is described.
    Formula(&'static str, fn(&Call<'_>) -> Operations),
}

/// Operations of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Operations {
    pub macs: u64,
    pub elementwise: u64,
}

const VIEWS: &[&str] = &[
    "alias",
    "chunk",
    "detach",
    "diagonal",
    "expand",
    "expand_as",
    "movedim",
    "narrow",
    "permute",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "swapaxes",
    "t",
    "transpose",
    "unbind",
    "unflatten",
    "unfold",
    "unsqueeze",
    "view",
    "view_as",
];

const LAYOUTS: &[&str] = &[
    "contiguous",
    "dropout",
    "flatten",
    "reshape",
    "reshape_as",
    "to",
    "type_as",
];

const COPIES: &[&str] = &[
    "cat",
    "clone",
    "constant_pad_nd",
    "flip",
    "im2col",
    "pad",
    "pixel_shuffle",
    "repeat",
    "repeat_interleave",
    "roll",
    "scatter",
    "stack",
    "tril",
    "triu",
    "upsample_nearest2d",
];

const LOOKUPS: &[&str] = &[
    "embedding",
    "gather",
    "index",
    "index_select",
    "take_along_dim",
];

const FILLS: &[&str] = &[
    "arange",
    "full_like",
    "new_full",
    "new_ones",
    "new_zeros",
    "ones_like",
    "zeros_like",
];

/// One operation for each element of the result.
const POINTWISE: &[&str] = &[
    "abs",
    "add",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "cos",
    "div",
    "elu",
    "eq",
    "erf",
    "exp",
    "floor",
    "floor_divide",
    "ge",
    "gelu",
    "gt",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "le",
    "leaky_relu",
    "log",
    "log1p",
    "logical_and",
    "logical_not",
    "logical_or",
    "lt",
    "masked_fill",
    "maximum",
    "minimum",
    "mish",
    "mul",
    "ne",
    "neg",
    "pow",
    "prelu",
    "reciprocal",
    "relu",
    "relu6",
    "remainder",
    "round",
    "rsqrt",
    "rsub",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinc",
    "softplus",
    "sqrt",
    "square",
    "sub",
    "tanh",
    "threshold",
    "where",
];

/// One operation for each element that is read: sums, extremes, and choices by comparison.
const REDUCTIONS: &[&str] = &[
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "cumsum",
    "max",
    "mean",
    "min",
    "prod",
    "sort",
    "sum",
    "topk",
];

const OTHERS: &[(&str, Rule)] = &[
    ("addcdiv", Rule::Each(3)),
    ("addcmul", Rule::Each(3)),
    ("lerp", Rule::Each(3)),
    ("batch_norm", Rule::Each(2)),
    ("upsample_bilinear2d", Rule::Each(8)),
    ("upsample_bicubic2d", Rule::Each(32)),
    // Squares and sums.
    ("linalg_vector_norm", Rule::Over(2)),
    ("norm", Rule::Over(2)),
    // Mean, differences, squares, sum.
    ("std", Rule::Over(4)),
    ("var", Rule::Over(4)),
    ("softmax", Rule::Over(5)),
    ("log_softmax", Rule::Over(5)),
    ("logsumexp", Rule::Over(4)),
    ("glu", Rule::Each(2)),
    ("cosine_similarity", Rule::Over(6)),
    (
        "layer_norm",
        Rule::Formula("5 per element, 7 with weights", products::norm),
    ),
    (
        "group_norm",
        Rule::Formula("5 per element, 7 with weights", products::norm),
    ),
    (
        "instance_norm",
        Rule::Formula("5 per element, 7 with weights", products::norm),
    ),
    (
        "rms_norm",
        Rule::Formula("3 per element, 4 with weights", products::rms_norm),
    ),
    (
        "avg_pool2d",
        Rule::Formula("window per result", products::pool),
    ),
    (
        "max_pool2d",
        Rule::Formula("window per result", products::pool),
    ),
    ("_convolution", Rule::Formula("MACs", products::convolution)),
    ("linear", Rule::Formula("MACs", products::linear)),
    ("matmul", Rule::Formula("MACs", products::matmul)),
    ("mm", Rule::Formula("MACs", products::matmul)),
    ("bmm", Rule::Formula("MACs", products::matmul)),
    ("mv", Rule::Formula("MACs", products::matmul)),
    ("dot", Rule::Formula("MACs", products::matmul)),
    ("addmm", Rule::Formula("MACs", products::addmm)),
    ("baddbmm", Rule::Formula("MACs", products::addmm)),
    ("einsum", Rule::Formula("MACs", products::einsum)),
    (
        "scaled_dot_product_attention",
        Rule::Formula("MACs, softmax", products::attention),
    ),
    (
        "cdist",
        Rule::Formula("3 per pair and coordinate", products::cdist),
    ),
];

const GROUPS: &[(&[&str], Rule)] = &[
    (VIEWS, Rule::View),
    (LAYOUTS, Rule::Layout),
    (COPIES, Rule::Copy),
    (LOOKUPS, Rule::Lookup),
    (FILLS, Rule::Fill),
    (POINTWISE, Rule::Each(1)),
    (REDUCTIONS, Rule::Over(1)),
];

/// The rule of an operator.
pub(super) fn find(kind: &str) -> Option<&'static Rule> {
    let name = kind.strip_prefix("aten::")?;
    let group = GROUPS.iter().find(|(names, _)| names.contains(&name));
    let other = || OTHERS.iter().find(|(other, _)| *other == name);
    group
        .map(|(_, rule)| rule)
        .or_else(|| other().map(|(_, rule)| rule))
}

/// Operations of a node by its rule.
pub(super) fn operations(rule: &Rule, call: &Call<'_>) -> Operations {
    let elementwise = match rule {
        Rule::View | Rule::Layout | Rule::Copy | Rule::Lookup | Rule::Fill => 0,
        Rule::Each(n) => call.elements(call.result()).saturating_mul(*n),
        Rule::Over(n) => call.elements(call.first()).saturating_mul(*n),
        Rule::Formula(_, formula) => return formula(call),
    };
    Operations {
        macs: 0,
        elementwise,
    }
}

/// libtorch's operators with a rule, each with how it counts.
pub fn supported() -> BTreeMap<String, String> {
    let kinds = names().map(|name| format!("aten::{name}"));
    kinds
        .filter_map(|kind| find(&kind).map(|rule| (kind.clone(), described(rule))))
        .collect()
}

/// Every name that has a rule.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let grouped = GROUPS.iter().flat_map(|(names, _)| names.iter().copied());
    grouped.chain(OTHERS.iter().map(|(name, _)| *name))
}

fn described(rule: &Rule) -> String {
    match rule {
        Rule::View => "a view".to_owned(),
        Rule::Layout => "a view, or a copy".to_owned(),
        Rule::Copy => "a copy".to_owned(),
        Rule::Lookup => "a copy of parts".to_owned(),
        Rule::Fill => "written only".to_owned(),
        Rule::Each(n) => format!("{n} per result"),
        Rule::Over(n) => format!("{n} per element"),
        Rule::Formula(what, _) => (*what).to_owned(),
    }
}
