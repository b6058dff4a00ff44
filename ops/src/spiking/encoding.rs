//! From a still image, or from recorded frames, to a sequence over time.

use std::fmt;
use std::str::FromStr;
use tch::{Kind, Tensor};

/// How an image with values in [0, 1] becomes T steps [T * B, ..], time slowest. As BrainCog's `Encoder` has them.
///
/// All but `Direct` read the values as intensities: encode before normalising by mean and deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// The image itself in every step.
    #[default]
    Direct,
    /// A spike with the pixel's probability, drawn anew in every step from this seed.
    Rate {
        /// The same seed draws the same spikes, on every device.
        seed: u64,
    },
    /// One spike, the earlier the brighter: in step i (from 0) where T - i - 1 < p T <= T - i, of height 1 / (i + 1).
    /// Values outside of (0, 1] never fire.
    TimeToFirstSpike,
    /// The eight bits of trunc(256 p), the highest first, of heights 1, 1/2, .. 1/128, repeated every eight steps.
    /// p = 1 gives 256, whose eight low bits are 0: no spikes, as in the official code.
    Phase,
}

/// A text that names no encoding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no encoding `{0}`; there are direct, rate, rate:SEED, ttfs and phase")]
pub struct UnknownEncoding(String);

impl FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(text: &str) -> Result<Self, UnknownEncoding> {
        let unknown = || UnknownEncoding(text.to_owned());
        Ok(match text {
            "direct" => Encoding::Direct,
            "rate" => Encoding::Rate { seed: 0 },
            "ttfs" => Encoding::TimeToFirstSpike,
            "phase" => Encoding::Phase,
            _ => {
                let seed = text.strip_prefix("rate:").ok_or_else(unknown)?;
                Encoding::Rate {
                    seed: seed.parse().map_err(|_| unknown())?,
                }
            }
        })
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Encoding::Direct => f.write_str("direct"),
            Encoding::Rate { seed } => write!(f, "rate:{seed}"),
            Encoding::TimeToFirstSpike => f.write_str("ttfs"),
            Encoding::Phase => f.write_str("phase"),
        }
    }
}

impl Encoding {
    /// [B, ..] to [steps * B, ..], time slowest.
    pub fn encode(self, x: &Tensor, steps: i64) -> Tensor {
        match self {
            Encoding::Direct => repeat(x, steps),
            Encoding::Rate { seed } => {
                let drawn = uniform(seed, x.numel() * steps.unsigned_abs() as usize);
                let u = Tensor::from_slice(&drawn)
                    .to_kind(x.kind())
                    .to_device(x.device());
                let mut shape = vec![-1];
                shape.extend(&x.size()[1..]);
                rate_from(x, &u.reshape(shape), steps)
            }
            Encoding::TimeToFirstSpike => {
                let scaled = x * steps as f64;
                let at = |i: i64| {
                    let last = (steps - i) as f64;
                    let fires = scaled.le(last).logical_and(&scaled.gt(last - 1.0));
                    fires.to_kind(x.kind()) / (i + 1) as f64
                };
                Tensor::cat(&(0..steps).map(at).collect::<Vec<_>>(), 0)
            }
            Encoding::Phase => {
                let bits = (x * 256.0).to_kind(Kind::Int64);
                let at = |i: i64| {
                    let bit = bits
                        .bitwise_right_shift_tensor_scalar(7 - i % 8)
                        .bitwise_and(1);
                    bit.to_kind(x.kind()) * (-((i % 8) as f64)).exp2()
                };
                Tensor::cat(&(0..steps).map(at).collect::<Vec<_>>(), 0)
            }
        }
    }
}

fn repeat(x: &Tensor, steps: i64) -> Tensor {
    let mut times = vec![1; x.dim()];
    times[0] = steps;
    x.repeat(times)
}

/// Rate coding of `x` [B, ..] by the numbers `u` in [0, 1) [steps * B, ..]: a spike where x > u.
pub fn rate_from(x: &Tensor, u: &Tensor, steps: i64) -> Tensor {
    repeat(x, steps).gt_tensor(u).to_kind(x.kind())
}

/// Recorded sequences [B, T, ..] as neurons take them: [T * B, ..], time slowest.
pub fn time_major(x: &Tensor) -> Tensor {
    x.transpose(0, 1).flatten(0, 1)
}

/// SplitMix64 (Steele, Lea and Flood, 2014), 24 bits of each.
fn uniform(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 * (-24f32).exp2()
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn rate_coding_draws_with_the_pixels_probability_and_by_its_seed() {
        let x = Tensor::full([1, 1, 50, 50], 0.3, (Kind::Float, Device::Cpu));
        let spikes = Encoding::Rate { seed: 1 }.encode(&x, 40);
        // 100,000 draws: six standard deviations are 0.0087.
        let rate = spikes.mean(Kind::Double).double_value(&[]);
        assert!((rate - 0.3).abs() < 0.0087, "{rate}");
        assert!(spikes.equal(&Encoding::Rate { seed: 1 }.encode(&x, 40)));
        assert!(!spikes.equal(&Encoding::Rate { seed: 2 }.encode(&x, 40)));
        let steps = spikes.chunk(40, 0);
        assert!(!steps[0].equal(&steps[1]));
    }

    #[test]
    fn names_are_parsed_and_printed() {
        for name in ["direct", "rate:7", "ttfs", "phase"] {
            assert_eq!(name.parse::<Encoding>().unwrap().to_string(), name);
        }
        assert!(
            "poisson"
                .parse::<Encoding>()
                .unwrap_err()
                .to_string()
                .contains("ttfs")
        );
    }

    #[test]
    fn recorded_sequences_become_time_major() {
        let x = Tensor::arange(12, (Kind::Float, Device::Cpu)).reshape([2, 3, 2]);
        let y = Vec::<f32>::try_from(time_major(&x).flatten(0, -1)).unwrap();
        assert_eq!(y, [0., 1., 6., 7., 2., 3., 8., 9., 4., 5., 10., 11.]);
    }
}
