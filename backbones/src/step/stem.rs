//! Spiking patch splitting: Spikformer's stem, whose first currents are computed apart because no time passes before them.

use super::parts::{max_pool, position_conv, stem_conv, stem_lif, stem_widths};
use super::time::{Neurons, Spikes, Time};
use tch::{Tensor, nn};
use zoo_ops::ConvBn;

/// Convolutions with neurons, some followed by a pool, and a convolution of positions beside them.
#[derive(Debug)]
pub(super) struct PatchSplitting {
    convs: Vec<ConvBn>,
    lifs: Vec<Spikes>,
    pools: Vec<bool>,
    position: ConvBn,
    position_lif: Option<Spikes>,
}

/// Pools behind which stages: CIFAR's stride of 4.
pub(super) const POOLS_CIFAR: [bool; 4] = [false, false, true, true];
/// ImageNet's stride of 16.
pub(super) const POOLS_IMAGENET: [bool; 4] = [true; 4];

impl PatchSplitting {
    /// `proj_*` and `rpe_*` below `p`; `position_spikes` tells whether neurons follow the positions.
    pub fn new(
        p: &nn::Path,
        (inputs, width): (i64, i64),
        pools: [bool; 4],
        position_spikes: bool,
        neurons: &Neurons,
    ) -> Self {
        let widths = stem_widths(inputs, width);
        Self::of(p, &widths, &pools, position_spikes, neurons)
    }

    /// STEP's `conv2_embed`: two convolutions, each with a pool, in place of the four.
    pub fn two_convs(p: &nn::Path, (inputs, width): (i64, i64), neurons: &Neurons) -> Self {
        Self::of(p, &[inputs, width / 4, width], &[true; 2], true, neurons)
    }

    fn of(
        p: &nn::Path,
        widths: &[i64],
        pools: &[bool],
        position_spikes: bool,
        neurons: &Neurons,
    ) -> Self {
        let width = widths[pools.len()];
        let each = || widths.windows(2).enumerate();
        PatchSplitting {
            convs: each().map(|(i, w)| stem_conv(p, i, w[0], w[1])).collect(),
            lifs: each().map(|(i, w)| stem_lif(p, i, w[1], neurons)).collect(),
            pools: pools.to_vec(),
            position: position_conv(p, width),
            position_lif: position_spikes.then(|| neurons.layer(p / "rpe_lif", width)),
        }
    }

    /// Images [B, C, H, W] to the currents of the first neurons.
    pub fn currents(&self, x: &Tensor) -> Tensor {
        self.convs[0].forward(x)
    }

    /// Those currents to a map [rows, width, H / stride, W / stride].
    pub fn forward(&self, currents: &Tensor, time: &Time) -> Tensor {
        let mut x = currents.shallow_clone();
        for i in 0..self.convs.len() {
            if i > 0 {
                x = self.convs[i].forward_spikes(&x);
            }
            x = self.lifs[i].forward(&x, time);
            if self.pools[i] {
                x = max_pool(&x);
            }
        }
        match &self.position_lif {
            Some(lif) => lif.forward(&self.position.forward_spikes(&x), time) + x,
            None => self.position.forward_spikes_add(&x, &x),
        }
    }

    /// Folds the norms.
    pub fn fuse(&mut self) {
        self.convs.iter_mut().for_each(ConvBn::fuse);
        self.position.fuse();
    }
}
