//! Causal depthwise convolution along tokens.

use crate::start;
use crate::{Derived, work};
use tch::{Tensor, nn};

/// y_t = bias + sum over j of weight_j x_(t - K + 1 + j), channel by channel, zeros before the first token.
///
/// Names: `weight` `[C, 1, K]`, `bias` `[C]`. The same as the first N outputs of a convolution with padding K - 1.
#[derive(Debug)]
pub struct CausalConv {
    weight: Tensor,
    bias: Tensor,
    /// The taps `[C]`, oldest token first.
    taps: Option<Vec<Derived>>,
}

impl CausalConv {
    /// `channels` with `kernel` taps each at path `p`.
    pub fn new(p: &nn::Path, channels: i64, kernel: i64) -> Self {
        let shape = [channels, 1, kernel];
        CausalConv {
            weight: start::kaiming(p, "weight", &shape),
            bias: p.zeros("bias", &[channels]),
            taps: None,
        }
    }

    /// Tokens [B, N, C] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [channels, kernel] = [self.weight.size()[0], self.weight.size()[2]];
        let Some(taps) = &self.taps else {
            let padded = x.transpose(1, 2).constant_pad_nd([kernel - 1, 0]);
            let y = padded.conv1d(&self.weight, Some(&self.bias), 1, 0, 1, channels);
            work::convolution(x, &self.weight, true, &y);
            return y.transpose(1, 2);
        };
        let tokens = x.size()[1];
        let padded = x.constant_pad_nd([0, 0, kernel - 1, 0]);
        let sum = |y: Tensor, (j, tap): (usize, &Derived)| {
            y.addcmul(&padded.narrow(1, j as i64, tokens), &tap.like(x))
        };
        let y = taps.iter().enumerate().fold(self.bias.shallow_clone(), sum);
        work::convolution(x, &self.weight, true, &y);
        y
    }

    /// Works on tokens as they lie in memory from now on: K multiply-adds, no transposes.
    pub fn fuse(&mut self) {
        let weight = self.weight.detach();
        let taps = (0..weight.size()[2]).map(|j| weight.select(2, j).flatten(0, -1).copy());
        self.taps = Some(taps.map(Derived::new).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn both_forms_are_the_sum_over_earlier_tokens() {
        tch::manual_seed(5);
        let mut vs = nn::VarStore::new(Device::Cpu);
        let mut conv = CausalConv::new(&vs.root(), 3, 4);
        vs.double();
        tch::no_grad(|| {
            vs.variables()
                .values_mut()
                .for_each(|t| drop(t.normal_(0.0, 1.0)))
        });
        // Shorter and longer than the kernel.
        for tokens in [2, 9] {
            let x = Tensor::randn([2, tokens, 3], (Kind::Double, Device::Cpu));
            let plain = conv.forward(&x);
            conv.fuse();
            let fused = conv.forward(&x);
            conv.taps = None;
            for y in [plain, fused] {
                for (b, t, c) in [(0, 0, 0), (1, 1, 2), (0, tokens - 1, 1)] {
                    let expected: f64 = (0..4)
                        .filter(|j| t + j >= 3)
                        .map(|j| {
                            conv.weight.double_value(&[c, 0, j])
                                * x.double_value(&[b, t + j - 3, c])
                        })
                        .sum::<f64>()
                        + conv.bias.double_value(&[c]);
                    assert!((y.double_value(&[b, t, c]) - expected).abs() < 1e-12);
                }
            }
        }
    }
}
