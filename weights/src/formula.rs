//! Weights filled by a formula of their names: anybody can make the same ones, so none need be stored.
//!
//! Element `i` (row-major, from 0) of tensor NAME, in 64-bit wrapping integers:
//!
//! ```text
//! key = fnv1a64(SALT + "/" + NAME)
//! z   = key + i + 0x9E3779B97F4A7C15          then the finaliser of SplitMix64
//! u   = (z >> 11) * 2^-53                     in [0, 1)
//! ```
//!
//! and from `u` a value that suits the tensor's part in a network ([`Formula::fill`]), computed in float64
//! and rounded to float32. FNV-1a: <http://www.isthe.com/chongo/tech/comp/fnv/>; SplitMix64: Steele, Lea and
//! Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A formula: names of tensors to values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Formula {
    /// Makes different sets of weights under the same names.
    pub salt: String,
    /// Scales weights of rank 2 and more.
    pub gain: f64,
}

/// What a tensor is in its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A parameter: filled.
    Param,
    /// A running statistic: filled.
    Stat,
    /// Any other buffer: keeps the value that its constructor gives it.
    Buffer,
}

/// How the inputs of a single operator are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Value at `u = 0`.
    pub lo: f64,
    /// Value towards `u = 1`.
    pub hi: f64,
    /// Exponent of `u`.
    #[serde(default = "one")]
    pub pow: f64,
    /// Round down to whole numbers.
    #[serde(default)]
    pub floor: bool,
}

fn one() -> f64 {
    1.0
}

/// A text that is no formula.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not formula[:SALT[:GAIN]] with a positive GAIN, such as formula:zoo:0.7")]
pub struct ParseFormulaError {
    text: String,
}

impl Default for Formula {
    fn default() -> Self {
        Formula {
            salt: "zoo".into(),
            gain: 1.0,
        }
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "formula:{}:{}", self.salt, self.gain)
    }
}

impl FromStr for Formula {
    type Err = ParseFormulaError;

    /// `formula`, `formula:SALT` or `formula:SALT:GAIN`; by default salt `zoo` and gain 1.
    fn from_str(text: &str) -> Result<Self, ParseFormulaError> {
        let parse = || {
            let mut formula = Formula::default();
            let mut parts = text.split(':');
            if parts.next() != Some("formula") {
                return None;
            }
            if let Some(salt) = parts.next() {
                formula.salt = Some(salt).filter(|salt| !salt.is_empty())?.into();
            }
            if let Some(gain) = parts.next() {
                formula.gain = gain
                    .parse()
                    .ok()
                    .filter(|gain: &f64| gain.is_finite() && *gain > 0.0)?;
            }
            parts.next().is_none().then_some(formula)
        };
        parse().ok_or_else(|| ParseFormulaError { text: text.into() })
    }
}

impl Formula {
    /// The values of a tensor, row-major; `None` for a [`Kind::Buffer`], which the formula leaves alone.
    ///
    /// | tensor | value |
    /// | --- | --- |
    /// | name ends `running_var` | `0.5 + u` |
    /// | name ends `running_mean` | `(u - 0.5) * 0.2` |
    /// | rank 2 and more | `(2u - 1) * sqrt(3 / fan_in) * gain`, `fan_in = numel / shape[0]` |
    /// | scalar, or vector called `*.weight`, `*.gamma`, `*.scale` | `0.5 + u` |
    /// | other vector | `(u - 0.5) * 0.2` |
    pub fn fill(&self, name: &str, shape: &[usize], kind: Kind) -> Option<Vec<f32>> {
        if kind == Kind::Buffer {
            return None;
        }
        let numel = shape.iter().product();
        let shifted = |u: f64| 0.5 + u;
        let centred = |u: f64| (u - 0.5) * 0.2;
        let is_scale = [".weight", ".gamma", ".scale"]
            .iter()
            .any(|end| name.ends_with(end));
        Some(if name.ends_with("running_var") {
            self.values(name, numel, shifted)
        } else if name.ends_with("running_mean") {
            self.values(name, numel, centred)
        } else if shape.len() >= 2 {
            let fan_in = shape[1..].iter().product::<usize>() as f64;
            let bound = (3.0 / fan_in).sqrt();
            let gain = self.gain;
            self.values(name, numel, |u| (2.0 * u - 1.0) * bound * gain)
        } else if shape.is_empty() || is_scale {
            self.values(name, numel, shifted)
        } else {
            self.values(name, numel, centred)
        })
    }

    /// The input of a model, row-major: uniform with variance 1, under the name `input`.
    pub fn fill_input(&self, shape: &[usize]) -> Vec<f32> {
        let bound = 3f64.sqrt();
        self.values("input", shape.iter().product(), |u| (2.0 * u - 1.0) * bound)
    }

    /// An input of a single operator, row-major: `lo + (hi - lo) * u^pow`, whole numbers where `floor`.
    pub fn fill_spread(&self, name: &str, shape: &[usize], spread: Spread) -> Vec<f32> {
        let Spread { lo, hi, pow, floor } = spread;
        let mut values = self.values(name, shape.iter().product(), |u| {
            lo + (hi - lo) * u.powf(pow)
        });
        if floor {
            values.iter_mut().for_each(|v| *v = v.floor());
        }
        values
    }

    /// The numbers `u` in [0, 1) under a name, in float64.
    pub fn uniform(&self, name: &str, numel: usize) -> impl Iterator<Item = f64> + use<> {
        let key = fnv1a64(self.salt.bytes().chain(*b"/").chain(name.bytes()));
        (0..numel as u64).map(move |i| uniform(key, i))
    }

    fn values(&self, name: &str, numel: usize, value: impl Fn(f64) -> f64) -> Vec<f32> {
        self.uniform(name, numel).map(|u| value(u) as f32).collect()
    }
}

fn fnv1a64(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}

/// Uniform in [0, 1), all 53 bits of it exact.
fn uniform(key: u64, i: u64) -> f64 {
    let z = key.wrapping_add(i).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let z = z ^ (z >> 31);
    (z >> 11) as f64 * (-53f64).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_are_those_of_the_definition() {
        let key = fnv1a64(b"zoo/input".iter().copied());
        for (i, expected) in [0.65508914, 0.58392758, 0.63809049].into_iter().enumerate() {
            assert!((uniform(key, i as u64) - expected).abs() < 5e-9);
        }
    }

    #[test]
    fn fnv1a_agrees_with_its_authors_test_vectors() {
        assert_eq!(fnv1a64(b"".iter().copied()), 0xcbf29ce484222325);
        assert_eq!(fnv1a64(b"foobar".iter().copied()), 0x85944171f73967e8);
    }

    #[test]
    fn each_kind_of_tensor_gets_its_range() {
        let f = Formula {
            salt: "zoo".into(),
            gain: 0.5,
        };
        let fill = |name: &str, shape: &[usize]| f.fill(name, shape, Kind::Param).unwrap();
        let within = |values: Vec<f32>, lo: f32, hi: f32| {
            let (least, most) = values
                .iter()
                .fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
            let margin = 0.05 * (hi - lo);
            assert!(
                lo <= least && least < lo + margin && hi - margin < most && most <= hi,
                "{least}..{most}"
            );
        };
        within(fill("bn.running_var", &[1000]), 0.5, 1.5);
        within(fill("bn.running_mean", &[1000]), -0.1, 0.1);
        within(
            fill("conv.weight", &[10, 4, 5, 5]),
            -0.5 * 0.03f32.sqrt(),
            0.5 * 0.03f32.sqrt(),
        );
        within(fill("bn.weight", &[1000]), 0.5, 1.5);
        within(fill("layer_scale", &[1000]), -0.1, 0.1);
        within(f.fill_input(&[1, 1000]), -3f32.sqrt(), 3f32.sqrt());
        assert!((0.5..1.5).contains(&fill("temperature", &[])[0]));
        assert_eq!(f.fill("index", &[3], Kind::Buffer), None);
        assert!(fill("w", &[0, 3]).is_empty());
        assert!(fill("w", &[3, 0]).is_empty());
    }

    #[test]
    fn spreads_follow_their_power_and_floor() {
        let f = Formula::default();
        let plain = f.fill_spread(
            "x",
            &[500],
            Spread {
                lo: 0.0,
                hi: 1.0,
                pow: 1.0,
                floor: false,
            },
        );
        let squared = f.fill_spread(
            "x",
            &[500],
            Spread {
                lo: 1.0,
                hi: 11.0,
                pow: 2.0,
                floor: false,
            },
        );
        let floored = f.fill_spread(
            "x",
            &[500],
            Spread {
                lo: 1.0,
                hi: 11.0,
                pow: 2.0,
                floor: true,
            },
        );
        for ((u, v), w) in plain.iter().zip(&squared).zip(&floored) {
            assert!((1.0 + 10.0 * u * u - v).abs() < 1e-5);
            assert_eq!(v.floor(), *w);
        }
    }

    #[test]
    fn texts_parse_and_print() {
        let parse = |text: &str| text.parse::<Formula>();
        assert_eq!(parse("formula"), Ok(Formula::default()));
        assert_eq!(
            parse("formula:a"),
            Ok(Formula {
                salt: "a".into(),
                gain: 1.0
            })
        );
        assert_eq!(
            parse("formula:a:0.7"),
            Ok(Formula {
                salt: "a".into(),
                gain: 0.7
            })
        );
        assert_eq!(
            parse("formula:a:0.7").unwrap().to_string().parse(),
            parse("formula:a:0.7")
        );
        for bad in [
            "",
            "formulas",
            "formula:",
            "formula:a:",
            "formula:a:x",
            "formula:a:-1",
            "formula:a:inf",
            "formula:a:1:2",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
