//! How libtorch's operators become ONNX's, by what they are for.

mod elementwise;
mod layers;
mod reduce;
mod select;
mod shapes;

use super::call::{Call, Converted};

/// An operator's form in ONNX.
pub(super) struct Rule {
    /// libtorch's name.
    pub kind: &'static str,
    /// The ONNX operators it becomes.
    pub becomes: &'static str,
    /// Adds them.
    pub convert: fn(&mut Call<'_, '_>) -> Converted,
}

const fn rule(
    kind: &'static str,
    becomes: &'static str,
    convert: fn(&mut Call<'_, '_>) -> Converted,
) -> Rule {
    Rule {
        kind,
        becomes,
        convert,
    }
}

/// Every rule.
pub(super) fn all() -> impl Iterator<Item = &'static Rule> {
    let tables = [
        elementwise::RULES,
        layers::RULES,
        reduce::RULES,
        select::RULES,
        shapes::RULES,
    ];
    tables.into_iter().flatten()
}

/// The rule of an operator.
pub(super) fn find(kind: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.kind == kind)
}
