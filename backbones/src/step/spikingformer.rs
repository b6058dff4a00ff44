//! Spikingformer: neurons before every convolution, so that every product of the network but the first is with spikes.
//!
//! Paper: "Spikingformer: Spike-driven Residual Learning for Transformer-based Spiking Neural Network", arXiv 2304.11954.
//! Official code: Fancyssc/STEP, `cls/models/static/spikingformer_cifar.py`.

use super::network::Network;
use super::parts::{
    AttentionConfig, Layout, Naming, QkvAttention, any_size, grid, map, max_pool, position_conv,
    see_tokens, seen_as, stem_conv, stem_lif, stem_widths, tokens,
};
use super::time::{Neurons, Spikes, Time};
use crate::Stage;
use tch::{Tensor, nn};
use zoo_ops::spike_attention::Order;
use zoo_ops::taps;
use zoo_ops::{ConvBn, Linear, LinearBn, Spiked, Stored};

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Channels of a token.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Blocks.
    pub depth: usize,
    /// Scale of the attention, whatever the width of a head.
    pub scale: f64,
}

impl Config {
    /// 4-384 for CIFAR.
    pub fn cifar() -> Self {
        Config {
            width: 384,
            heads: 12,
            depth: 4,
            scale: 0.125,
        }
    }
}

/// Convolutions with neurons before all but the first.
#[derive(Debug)]
struct Stem {
    convs: [ConvBn; 4],
    lifs: [Spikes; 3],
    position: ConvBn,
    position_lif: Spikes,
}

impl Stem {
    fn new(p: &nn::Path, width: i64, neurons: &Neurons) -> Self {
        let widths = stem_widths(3, width);
        Stem {
            convs: [0, 1, 2, 3].map(|i| stem_conv(p, i, widths[i], widths[i + 1])),
            lifs: [1, 2, 3].map(|i| stem_lif(p, i, widths[i], neurons)),
            position: position_conv(p, width),
            position_lif: neurons.layer(p / "rpe_lif", width),
        }
    }

    /// Currents of the first neurons to potentials [rows, width, H / 4, W / 4].
    fn forward(&self, currents: &Tensor, time: &Time) -> Tensor {
        let [lif1, lif2, lif3] = &self.lifs;
        let x = self.convs[1].forward_spikes(&lif1.forward(currents, time));
        let x = self.convs[2].forward_spikes(&lif2.forward(&x, time));
        let x = self.convs[3].forward_spikes(&max_pool(&lif3.forward(&x, time)));
        let spikes = max_pool(&self.position_lif.forward(&x, time));
        self.position.forward_spikes(&spikes)
    }

    fn fuse(&mut self) {
        self.convs.iter_mut().for_each(ConvBn::fuse);
        self.position.fuse();
    }
}

/// x + proj(attention(S(x))), then x + fc2(S(fc1(S(x)))).
#[derive(Debug)]
struct Block {
    input_lif: Spikes,
    attn: QkvAttention,
    proj: LinearBn,
    lifs: [Spikes; 2],
    fc: [LinearBn; 2],
    out: String,
}

impl Block {
    fn new(p: &nn::Path, index: usize, config: &Config, neurons: &Neurons) -> Self {
        let width = config.width;
        let hidden = 4 * width;
        let attention = AttentionConfig {
            width,
            heads: config.heads,
            scale: config.scale,
            order: Order::Scores,
            layout: Layout::Map,
        };
        let conv1d = Naming {
            suffix: "conv",
            stored: Stored::Conv1d,
            bias: false,
        };
        let conv2d = Naming {
            stored: Stored::Conv2d,
            bias: true,
            ..conv1d
        };
        let (attn, mlp) = (p / "attn", p / "mlp");
        let seen = seen_as("block", index, "attn");
        Block {
            input_lif: neurons.layer(&attn / "proj_lif", width),
            attn: QkvAttention::new(&attn, attention, conv1d, neurons, &seen),
            proj: conv1d.layer(&attn, "proj", (width, width)),
            lifs: [("fc1_lif", width), ("fc2_lif", hidden)]
                .map(|(name, channels)| neurons.layer(&mlp / name, channels)),
            fc: [("fc1", (width, hidden)), ("fc2", (hidden, width))]
                .map(|(name, sizes)| conv2d.layer(&mlp, name, sizes)),
            out: format!("{seen}.out"),
        }
    }

    /// Potentials of tokens to the same shape.
    fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        let spikes = self.attn.forward(&self.input_lif.forward(x, time), time);
        if taps::recording() {
            see_tokens(&self.out, &self.proj.forward(&spikes), Layout::Map, grid);
        }
        let x = self.proj.forward_spikes_add(&Spiked::new(&spikes), x);
        let hidden = self.fc[0].forward_spikes(&Spiked::new(&self.lifs[0].forward(&x, time)));
        self.fc[1].forward_spikes_add(&Spiked::new(&self.lifs[1].forward(&hidden, time)), &x)
    }

    fn fuse(&mut self) {
        self.attn.fuse();
        self.proj.fuse();
        self.fc.iter_mut().for_each(LinearBn::fuse);
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct Spikingformer {
    patch_embed: Stem,
    blocks: Vec<Block>,
    head: Linear,
    config: Config,
}

impl Spikingformer {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: Config, classes: i64, neurons: &Neurons) -> Self {
        let block = p / "block";
        Spikingformer {
            patch_embed: Stem::new(&(p / "patch_embed"), config.width, neurons),
            blocks: (0..config.depth)
                .map(|i| Block::new(&(&block / i), i, &config, neurons))
                .collect(),
            head: Linear::new(p / "head", config.width, classes, true),
            config,
        }
    }
}

impl Network for Spikingformer {
    fn currents(&self, x: &Tensor) -> Tensor {
        self.patch_embed.convs[0].forward(x)
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        let embedded = self.patch_embed.forward(currents, time);
        let grid = grid(&embedded);
        let mut x = tokens(&embedded);
        see_tokens("stages.0", &x, Layout::Map, grid);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, grid, time);
            see_tokens(&format!("stages.{}", i + 1), &x, Layout::Map, grid);
        }
        vec![map(&x, grid)]
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.config.width,
            stride: 4,
        }]
    }

    fn fuse(&mut self) {
        self.patch_embed.fuse();
        self.blocks.iter_mut().for_each(Block::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        any_size("Spikingformer", height, width)
    }
}
