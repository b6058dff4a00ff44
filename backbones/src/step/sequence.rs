//! The stem for sequences of pixels (sMNIST, psMNIST, sCIFAR): STEP's `sequential_embed`.

use super::time::{Neurons, Spikes, Time};
use tch::{Kind, Tensor, nn};
use zoo_ops::work::Site;
use zoo_ops::{BatchNorm, Derived};

/// Tokens that leave the stem, whatever the length of the sequence.
const TOKENS: i64 = 64;
/// Lengths from which the first convolution steps by two.
const LONG: i64 = 1024;
const KERNEL: i64 = 5;

/// A 1-d convolution with bias and its norm.
#[derive(Debug)]
struct Conv1dBn {
    weight: Tensor,
    bias: Tensor,
    norm: Option<BatchNorm>,
    folded: Option<(Derived, Derived)>,
    site: Site,
}

impl Conv1dBn {
    fn new((conv, norm): (nn::Path, nn::Path), inputs: i64, out: i64, kernel: i64) -> Self {
        let shape = [out, inputs, kernel];
        Conv1dBn {
            weight: conv.var("weight", &shape, nn::init::DEFAULT_KAIMING_UNIFORM),
            bias: conv.zeros("bias", &[out]),
            norm: Some(BatchNorm::new(norm, out, 1e-5)),
            folded: None,
            site: Site::at(&conv),
        }
    }

    /// [B, in, L] to [B, out, L'].
    fn forward(&self, x: &Tensor, stride: i64, padding: i64) -> Tensor {
        let convolve = |w: &Tensor, b: &Tensor| {
            let y = x.conv1d(w, Some(b), [stride], [padding], [1], 1);
            self.site.convolution(x, &w.size(), true, &y);
            y
        };
        match (&self.norm, &self.folded) {
            (_, Some((weight, bias))) => convolve(&weight.like(x), &bias.like(x)),
            (Some(norm), None) => norm.forward(&convolve(&self.weight, &self.bias)),
            (None, None) => convolve(&self.weight, &self.bias),
        }
    }

    fn fuse(&mut self) {
        if let Some(norm) = self.norm.take() {
            let (scale, shift) = norm.scale_shift();
            let double = |t: &Tensor| t.detach().to_kind(Kind::Double);
            let weight = double(&self.weight) * scale.reshape([-1, 1, 1]);
            let bias = double(&self.bias) * scale + shift;
            let kind = self.weight.kind();
            let kept = |t: Tensor| Derived::new(t.to_kind(kind));
            self.folded = Some((kept(weight), kept(bias)));
        }
    }
}

/// Four strided convolutions, a pool to 64 tokens, and a convolution of positions beside them.
#[derive(Debug)]
pub(super) struct SequenceStem {
    layers: [Conv1dBn; 4],
    lifs: [Spikes; 3],
    last_lif: Spikes,
    position: Conv1dBn,
    strides: [i64; 4],
    length: i64,
    residual: Residual,
}

/// Where the last neurons stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Residual {
    /// Before the pool, which is there only where the strides would not lead to 64 tokens: spikes go on (`layers.3.2`).
    Spikes,
    /// Before the positions only: potentials go on (`proj_lif3`).
    Potentials,
}

impl SequenceStem {
    /// For sequences of `length`; other lengths work with the same strides.
    pub fn new(
        p: &nn::Path,
        (inputs, width): (i64, i64),
        length: i64,
        residual: Residual,
        neurons: &Neurons,
    ) -> Self {
        let widths = [inputs, width / 8, width / 4, width / 2, width];
        let at = |i: usize, j: i64| p / "layers" / i / j;
        let last = match residual {
            Residual::Spikes => at(3, 2),
            Residual::Potentials => p / "proj_lif3",
        };
        let position = (p / "pe_conv", p / "pe_bn");
        SequenceStem {
            layers: [0, 1, 2, 3]
                .map(|i| Conv1dBn::new((at(i, 0), at(i, 1)), widths[i], widths[i + 1], KERNEL)),
            lifs: [0, 1, 2].map(|i| neurons.layer(at(i, 2), widths[i + 1])),
            last_lif: neurons.layer(last, width),
            position: Conv1dBn::new(position, width, width, 3),
            strides: [if length >= LONG { 2 } else { 1 }, 2, 2, 2],
            length,
            residual,
        }
    }

    /// What the official code takes for the length before layer `i`. Its paddings are one short: 1024 become 63, not 64.
    fn nominal_length(&self, i: usize) -> i64 {
        self.strides[..i].iter().fold(self.length, |n, s| n / s)
    }

    /// The padding of layer `i`, of the length the stem is made for.
    fn padding(&self, i: usize) -> i64 {
        let length = self.nominal_length(i);
        let stride = self.strides[i];
        ((length / stride - 1) * stride + KERNEL - length).max(0) / 2
    }

    fn convolve(&self, i: usize, x: &Tensor) -> Tensor {
        self.layers[i].forward(x, self.strides[i], self.padding(i))
    }

    /// Sequences [B, C, L] to the currents of the first neurons.
    pub fn currents(&self, x: &Tensor) -> Tensor {
        self.convolve(0, x)
    }

    /// Those currents to tokens [rows, N, width]; N is 64, or 63 where there is no pool.
    pub fn forward(&self, currents: &Tensor, time: &Time) -> Tensor {
        let mut x = currents.shallow_clone();
        for (i, lif) in self.lifs.iter().enumerate() {
            x = self.convolve(i + 1, &lif.forward(&x, time));
        }
        let (features, spikes) = match self.residual {
            Residual::Spikes => {
                let spikes = self.last_lif.forward(&x, time);
                let spikes = if self.nominal_length(4) == TOKENS {
                    spikes
                } else {
                    spikes.adaptive_avg_pool1d(TOKENS)
                };
                (spikes.shallow_clone(), spikes)
            }
            Residual::Potentials => {
                let features = x.adaptive_avg_pool1d(TOKENS);
                let spikes = self.last_lif.forward(&features, time);
                (features, spikes)
            }
        };
        (features + self.position.forward(&spikes, 1, 1)).transpose(1, 2)
    }

    /// Folds the norms.
    pub fn fuse(&mut self) {
        self.layers.iter_mut().for_each(Conv1dBn::fuse);
        self.position.fuse();
    }
}

/// The sequences that the stem takes.
pub(super) fn check_length(height: i64, length: i64) -> Result<(), String> {
    if height == 1 && length >= 16 {
        return Ok(());
    }
    Err(format!(
        "the stem for sequences takes lengths from 16, not {height}x{length}"
    ))
}
