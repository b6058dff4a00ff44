//! Element types and their decoding.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// Element type of a tensor. Bytes are little-endian everywhere in this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Dtype {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl Dtype {
    /// All of them, smallest elements first.
    pub const ALL: [Dtype; 10] = [
        Dtype::Bool,
        Dtype::U8,
        Dtype::I8,
        Dtype::I16,
        Dtype::F16,
        Dtype::BF16,
        Dtype::I32,
        Dtype::F32,
        Dtype::I64,
        Dtype::F64,
    ];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I8 => 1,
            Dtype::I16 | Dtype::F16 | Dtype::BF16 => 2,
            Dtype::I32 | Dtype::F32 => 4,
            Dtype::I64 | Dtype::F64 => 8,
        }
    }

    /// PyTorch's name, such as `float32`.
    pub fn torch_name(self) -> &'static str {
        match self {
            Dtype::Bool => "bool",
            Dtype::U8 => "uint8",
            Dtype::I8 => "int8",
            Dtype::I16 => "int16",
            Dtype::I32 => "int32",
            Dtype::I64 => "int64",
            Dtype::F16 => "float16",
            Dtype::BF16 => "bfloat16",
            Dtype::F32 => "float32",
            Dtype::F64 => "float64",
        }
    }

    /// The name in a safetensors header, such as `F32`.
    pub fn safetensors_name(self) -> &'static str {
        match self {
            Dtype::Bool => "BOOL",
            Dtype::U8 => "U8",
            Dtype::I8 => "I8",
            Dtype::I16 => "I16",
            Dtype::I32 => "I32",
            Dtype::I64 => "I64",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::F32 => "F32",
            Dtype::F64 => "F64",
        }
    }

    /// The dtype that PyTorch calls `name` (`float32`, without `torch.`).
    pub fn from_torch_name(name: &str) -> Option<Dtype> {
        Self::ALL.into_iter().find(|d| d.torch_name() == name)
    }

    /// The dtype that a safetensors header calls `name`.
    pub fn from_safetensors_name(name: &str) -> Option<Dtype> {
        Self::ALL.into_iter().find(|d| d.safetensors_name() == name)
    }

    /// Whether elements can be infinite or not a number.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.torch_name())
    }
}

fn each<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> f64, mut take: impl FnMut(f64)) {
    for chunk in bytes.as_chunks::<N>().0 {
        take(decode(*chunk));
    }
}

/// Calls `take` with each element, widened. Exact but for `i64` beyond 2^53.
fn for_each(dtype: Dtype, bytes: &[u8], take: impl FnMut(f64)) {
    match dtype {
        Dtype::Bool => each(bytes, |[b]| f64::from(u8::from(b != 0)), take),
        Dtype::U8 => each(bytes, |[b]| f64::from(b), take),
        Dtype::I8 => each(bytes, |b| f64::from(i8::from_le_bytes(b)), take),
        Dtype::I16 => each(bytes, |b| f64::from(i16::from_le_bytes(b)), take),
        Dtype::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b)), take),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64, take),
        Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f64(), take),
        Dtype::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f64(), take),
        Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b)), take),
        Dtype::F64 => each(bytes, f64::from_le_bytes, take),
    }
}

/// Elements as `f64`: exact but for `i64` beyond 2^53. `bytes` are little-endian.
pub fn to_f64(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    let mut out = Vec::with_capacity(bytes.len() / dtype.size());
    for_each(dtype, bytes, |v| out.push(v));
    out
}

/// Elements as `f32`, wider ones rounded to nearest. `bytes` are little-endian.
pub fn to_f32(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let mut out = Vec::with_capacity(bytes.len() / dtype.size());
    if dtype == Dtype::F32 {
        out.extend(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b)),
        );
    } else {
        for_each(dtype, bytes, |v| out.push(v as f32));
    }
    out
}

/// How many elements are infinite or not a number.
pub fn count_non_finite(dtype: Dtype, bytes: &[u8]) -> usize {
    let mut count = 0;
    if dtype.is_float() {
        for_each(dtype, bytes, |v| count += usize::from(!v.is_finite()));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precisions_decode_to_their_values() {
        // 0x3C00 = 1.0, 0xC000 = -2.0, 0x0001 = 2^-24 in IEEE binary16; 0x3FC0 = 1.5 in bfloat16.
        let halves = [0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00];
        assert_eq!(to_f64(Dtype::F16, &halves), [1.0, -2.0, 2f64.powi(-24)]);
        assert_eq!(to_f32(Dtype::BF16, &[0xc0, 0x3f]), [1.5]);
    }

    #[test]
    fn signed_integers_keep_their_sign() {
        assert_eq!(to_f64(Dtype::I8, &[0xff, 0x7f]), [-1.0, 127.0]);
        assert_eq!(to_f64(Dtype::I16, &[0xfe, 0xff]), [-2.0]);
        assert_eq!(to_f32(Dtype::I64, &(-3i64).to_le_bytes()), [-3.0]);
    }

    #[test]
    fn non_finite_elements_are_counted_in_floats_only() {
        let inf = f16::INFINITY.to_le_bytes();
        let nan = f16::NAN.to_le_bytes();
        assert_eq!(
            count_non_finite(Dtype::F16, &[inf, nan, [0, 0]].concat()),
            2
        );
        assert_eq!(count_non_finite(Dtype::I16, &inf), 0);
    }

    #[test]
    fn names_lead_back_to_their_dtype() {
        for d in Dtype::ALL {
            assert_eq!(Dtype::from_torch_name(d.torch_name()), Some(d));
            assert_eq!(Dtype::from_safetensors_name(d.safetensors_name()), Some(d));
        }
    }
}
