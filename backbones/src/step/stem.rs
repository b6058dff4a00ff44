//! Spiking patch splitting: Spikformer's stem, whose first currents are computed apart because no time passes before them.

use super::parts::{max_pool, position_conv, stem_conv, stem_lif, stem_widths};
use super::time::{Neurons, Spikes, Time};
use tch::{Tensor, nn};
use zoo_ops::{Activation, ConvBn};

/// Four convolutions with neurons, some followed by a pool, and a convolution of positions beside them.
#[derive(Debug)]
pub(super) struct PatchSplitting {
    convs: [ConvBn; 4],
    lifs: [Spikes; 4],
    pools: [bool; 4],
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
        PatchSplitting {
            convs: [0, 1, 2, 3].map(|i| stem_conv(p, i, widths[i], widths[i + 1])),
            lifs: [0, 1, 2, 3].map(|i| stem_lif(p, i, widths[i + 1], neurons)),
            pools,
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
        for i in 0..4 {
            if i > 0 {
                x = self.convs[i].forward(&x);
            }
            x = self.lifs[i].forward(&x, time);
            if self.pools[i] {
                x = max_pool(&x);
            }
        }
        match &self.position_lif {
            Some(lif) => lif.forward(&self.position.forward(&x), time) + x,
            None => self.position.forward_add(&x, &x, Activation::None),
        }
    }

    /// Folds the norms.
    pub fn fuse(&mut self) {
        self.convs.iter_mut().for_each(ConvBn::fuse);
        self.position.fuse();
    }
}
