//! The number format that a model computes in.

use std::fmt;
use std::str::FromStr;
use tch::Kind;

/// A floating-point format for parameters and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// IEEE single.
    #[default]
    F32,
    /// Single, with the factors of products rounded to 10 bits of mantissa: CUDA only. What PyTorch calls float32 in
    /// convolutions on a GPU unless told otherwise.
    Tf32,
    /// IEEE double: for parity.
    F64,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
}

impl Precision {
    /// The kind of the tensors.
    pub fn kind(self) -> Kind {
        match self {
            Precision::F32 | Precision::Tf32 => Kind::Float,
            Precision::F64 => Kind::Double,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        }
    }

    fn names(self) -> [&'static str; 2] {
        match self {
            Precision::F32 => ["f32", "float32"],
            Precision::Tf32 => ["tf32", "tensorfloat32"],
            Precision::F64 => ["f64", "float64"],
            Precision::Bf16 => ["bf16", "bfloat16"],
            Precision::F16 => ["f16", "float16"],
        }
    }
}

/// Not a precision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a precision: say f32, tf32 (CUDA), f64, bf16 or f16")]
pub struct UnknownPrecision(String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(s: &str) -> Result<Self, UnknownPrecision> {
        use Precision::{Bf16, F16, F32, F64, Tf32};
        [F32, Tf32, F64, Bf16, F16]
            .into_iter()
            .find(|p| p.names().contains(&s))
            .ok_or_else(|| UnknownPrecision(s.to_owned()))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.names()[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_taken() {
        assert_eq!("bfloat16".parse(), Ok(Precision::Bf16));
        assert_eq!("f64".parse::<Precision>().unwrap().to_string(), "f64");
        assert!("int8".parse::<Precision>().is_err());
    }
}
