//! The two-dimensional discrete Fourier transform as a mixer of tokens and channels.

use crate::{Derived, work};
use std::cell::RefCell;
use tch::{Device, Kind, Tensor};

/// Token counts whose tables are kept.
const KEPT: usize = 8;

/// Re(DFT over tokens(DFT over channels(x))), neither normalised; no parameters.
///
/// Computed with constant cosine and sine matrices, so that it runs in every format and on every device:
/// `Cn (x Cd) - Sn (x Sd)`. The result is symmetric, y[n, c] = y[-n, -c], so half of the columns are computed.
#[derive(Debug)]
pub struct FourierMix {
    channels: i64,
    /// [d, 2 (d / 2 + 1)]: the kept columns of the cosines, then of the sines.
    over_channels: Derived,
    over_tokens: RefCell<Vec<(i64, [Derived; 2])>>,
}

impl FourierMix {
    /// `channels` entries; the table for `tokens` is made now, others when they are met.
    pub fn new(tokens: i64, channels: i64) -> Self {
        let [cos, sin] = tables(channels).map(|t| t.narrow(1, 0, kept(channels)));
        let mix = FourierMix {
            channels,
            over_channels: Derived::new(Tensor::cat(&[cos, sin], 1)),
            over_tokens: RefCell::default(),
        };
        mix.over_tokens
            .borrow_mut()
            .push((tokens, token_tables(tokens)));
        mix
    }

    /// [B, N, channels] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let columns = kept(self.channels);
        let spectrum = work::matmul(x, &self.over_channels.like(x));
        let [cos, sin] = self.tokens_like(x);
        let half = work::matmul(&cos, &spectrum.narrow(2, 0, columns))
            - work::matmul(&sin, &spectrum.narrow(2, columns, columns));
        let mirrored = half.narrow(2, 1, self.channels - columns).flip([1, 2]);
        // Token 0 is its own mirror image; flipping has put it last.
        Tensor::cat(&[half, mirrored.roll([1], [1])], 2)
    }

    fn tokens_like(&self, x: &Tensor) -> [Tensor; 2] {
        let tokens = x.size()[1];
        let mut tables = self.over_tokens.borrow_mut();
        if !tables.iter().any(|(n, _)| *n == tokens) {
            if tables.len() == KEPT {
                drop(tables.remove(1));
            }
            tables.push((tokens, token_tables(tokens)));
        }
        let found = tables.iter().find(|(n, _)| *n == tokens);
        let (_, pair) = found.expect("made above");
        pair.each_ref().map(|t| t.like(x))
    }
}

/// Columns that determine the others.
fn kept(channels: i64) -> i64 {
    channels / 2 + 1
}

/// Each [1, N, N].
fn token_tables(tokens: i64) -> [Derived; 2] {
    tables(tokens).map(|t| Derived::new(t.unsqueeze(0)))
}

/// cos and sin of 2 pi j k / n, [n, n] in float64; j k is reduced modulo n first, so that large products stay exact.
fn tables(n: i64) -> [Tensor; 2] {
    let index = Tensor::arange(n, (Kind::Int64, Device::Cpu));
    let phase = index.outer(&index).remainder(n).to_kind(Kind::Double);
    let angle = phase * (2.0 * std::f64::consts::PI / n as f64);
    [angle.cos(), angle.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_real_part_of_the_fft() {
        tch::manual_seed(4);
        for (tokens, channels) in [(6, 8), (5, 7), (12, 6), (1, 4), (7, 1), (2, 2)] {
            let mix = FourierMix::new(6, channels);
            let x = Tensor::randn([3, tokens, channels], (Kind::Double, Device::Cpu));
            let expected = x.fft_fft2(None::<&[i64]>, [-2, -1].as_slice(), "backward");
            let error = (mix.forward(&x) - expected.real())
                .abs()
                .max()
                .double_value(&[]);
            assert!(error < 1e-12, "{tokens} x {channels}: {error}");
        }
    }

    #[test]
    fn more_token_counts_than_are_kept_are_taken() {
        let mix = FourierMix::new(4, 4);
        for tokens in (1..=KEPT as i64 + 4).chain([4, 1]) {
            let x = Tensor::ones([1, tokens, 4], (Kind::Double, Device::Cpu));
            let y = mix.forward(&x);
            assert!((y.double_value(&[0, 0, 0]) - 4.0 * tokens as f64).abs() < 1e-12);
        }
    }
}
