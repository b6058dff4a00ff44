//! Half precision.

use super::super::ExportError;
use super::super::model::{Attribute, Draft, Op};
use super::redirect_one;
use tch::Kind;

/// The largest number of half precision.
const LARGEST: f64 = 65504.0;

/// Weights and arithmetic in half precision, with casts at the inputs and outputs.
///
/// # Errors
/// Weights with numbers that half precision does not have; infinities stay what they are.
pub(in super::super) fn to_half(draft: &mut Draft) -> Result<(), ExportError> {
    const FLOAT16: i64 = 10;
    const FLOAT: i64 = 1;
    let mut large = Vec::new();
    for (name, weight) in &mut draft.weights {
        if weight.kind() != Kind::Float {
            continue;
        }
        let finite = weight.isfinite().logical_and(&weight.abs().gt(LARGEST));
        if finite.any().int64_value(&[]) != 0 {
            large.push(format!("`{name}`"));
        }
        *weight = weight.to_kind(Kind::Half);
    }
    if !large.is_empty() {
        return Err(ExportError::Unsupported {
            what: format!(
                "{} in half precision: numbers beyond 65504",
                large.join(", ")
            ),
        });
    }
    for op in draft.ops.iter_mut().filter(|op| op.kind == "Cast") {
        for (_, value) in &mut op.attributes {
            if *value == Attribute::Int(FLOAT) {
                *value = Attribute::Int(FLOAT16);
            }
        }
    }
    let inputs: Vec<String> = draft.inputs.iter().map(|p| p.name.clone()).collect();
    for (i, name) in inputs.iter().enumerate() {
        let half = draft.name(&format!("{name}.half"));
        redirect_one(draft, name, &half);
        let mut cast = Op::new("Cast", &[name]).int("to", FLOAT16);
        cast.outputs = vec![half];
        draft.ops.insert(i, cast);
    }
    let outputs: Vec<String> = draft.outputs.iter().map(|p| p.name.clone()).collect();
    for name in outputs {
        let half = draft.name(&format!("{name}.half"));
        redirect_one(draft, &name, &half);
        for op in &mut draft.ops {
            for output in op.outputs.iter_mut().filter(|o| **o == name) {
                half.clone_into(output);
            }
        }
        let mut cast = Op::new("Cast", &[&half]).int("to", FLOAT);
        cast.outputs = vec![name];
        draft.ops.push(cast);
    }
    Ok(())
}
