//! The cost of an operation or of a moved bit, and the formats they are for.

use crate::constants;
use serde::Serialize;

/// Per what a constant counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// One arithmetic operation.
    Operation,
    /// One bit read or written.
    Bit,
}

impl Unit {
    /// The word in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Operation => "operation",
            Unit::Bit => "bit",
        }
    }
}

/// A cost with its source.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Constant {
    /// Such as `multiply-accumulate, float32`.
    pub name: &'static str,
    /// Picojoules for one [`Unit`].
    pub picojoules: f64,
    /// Per what.
    pub per: Unit,
    /// Who says so.
    pub source: &'static str,
}

/// The format that a constant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers.
    Int8,
}

impl Precision {
    /// Bits of a number.
    pub fn bits(self) -> u32 {
        match self {
            Precision::F32 => 32,
            Precision::F16 => 16,
            Precision::Int8 => 8,
        }
    }

    /// One multiplication with its addition.
    pub fn multiply_accumulate(self) -> Constant {
        match self {
            Precision::F32 => constants::MAC_F32,
            Precision::F16 => constants::MAC_F16,
            Precision::Int8 => constants::MAC_INT8,
        }
    }

    /// One addition.
    pub fn accumulate(self) -> Constant {
        match self {
            Precision::F32 => constants::AC_F32,
            Precision::F16 => constants::AC_F16,
            Precision::Int8 => constants::AC_INT8,
        }
    }
}
