//! What one operation or one moved bit is said to cost, and who says so.

use crate::{Constant, Unit};

const HOROWITZ: &str =
    "45 nm; Horowitz, \"Computing's energy problem (and what we can do about it)\", ISSCC 2014";

const fn operation(name: &'static str, picojoules: f64) -> Constant {
    Constant {
        name,
        picojoules,
        per: Unit::Operation,
        source: HOROWITZ,
    }
}

/// Multiply 3.7, add 0.9.
pub const MAC_F32: Constant = operation("multiply-accumulate, float32", 4.6);
/// Add 0.9.
pub const AC_F32: Constant = operation("accumulate, float32", 0.9);
/// Multiply 1.1, add 0.4.
pub const MAC_F16: Constant = operation("multiply-accumulate, float16", 1.5);
/// Add 0.4.
pub const AC_F16: Constant = operation("accumulate, float16", 0.4);
/// Multiply 0.2, add 0.03.
pub const MAC_INT8: Constant = operation("multiply-accumulate, int8", 0.23);
/// Add 0.03.
pub const AC_INT8: Constant = operation("accumulate, int8", 0.03);
/// One bit to or from memory; 24.96 pJ for a byte.
pub const MEMORY_BIT: Constant = Constant {
    name: "memory access",
    picojoules: 3.12,
    per: Unit::Bit,
    source: "STEP, arXiv 2505.11151, Table 9, as SpikingJelly's documentation quotes it",
};
