//! Spikformer, as STEP has it: post-neuron residuals, so that activations are small integers.
//!
//! Paper: "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023, arXiv 2209.15425.
//! Official code: Fancyssc/STEP, `cls/models/static/spikformer_cifar.py` and `spikformer_imagenet.py`.

use super::network::Network;
use super::parts::{
    AttentionConfig, Layout, Naming, QkvAttention, Unit, any_size, grid, map, never_called_norm,
    see_tokens, seen_as, tokens,
};
use super::stem::{POOLS_CIFAR, POOLS_IMAGENET, PatchSplitting};
use super::time::{Neurons, Time};
use crate::Stage;
use tch::{Tensor, nn};
use zoo_ops::spike_attention::Order;
use zoo_ops::{Linear, Stored};

/// Which of the two official networks: they differ in the stem's pools and in how layers are named and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Stride 4, layers on tokens.
    Cifar,
    /// Stride 16, layers on maps, and layer norms that are never called.
    ImageNet,
}

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which of the two networks.
    pub form: Form,
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
            form: Form::Cifar,
            width: 384,
            heads: 12,
            depth: 4,
            scale: 0.125,
        }
    }

    /// 8-512 for ImageNet.
    pub fn imagenet() -> Self {
        Config {
            form: Form::ImageNet,
            width: 512,
            heads: 8,
            depth: 8,
            ..Self::cifar()
        }
    }

    fn layout(&self) -> Layout {
        match self.form {
            Form::Cifar => Layout::Tokens,
            Form::ImageNet => Layout::Map,
        }
    }

    fn attention(&self) -> Naming {
        match self.form {
            Form::Cifar => Naming {
                suffix: "linear",
                stored: Stored::Matrix,
                bias: true,
            },
            Form::ImageNet => Naming {
                suffix: "conv",
                stored: Stored::Conv1d,
                bias: false,
            },
        }
    }

    fn mlp(&self) -> Naming {
        match self.form {
            Form::Cifar => self.attention(),
            Form::ImageNet => Naming {
                suffix: "conv",
                stored: Stored::Conv2d,
                bias: true,
            },
        }
    }
}

/// x + attention(x), then x + mlp(x); each ends in neurons.
#[derive(Debug)]
struct Block {
    attn: QkvAttention,
    proj: Unit,
    fc: [Unit; 2],
    layout: Layout,
    out: String,
}

impl Block {
    fn new(p: &nn::Path, index: usize, config: &Config, neurons: &Neurons) -> Self {
        let seen = seen_as("block", index, "attn");
        let width = config.width;
        let naming = config.attention();
        let attention = AttentionConfig {
            width,
            heads: config.heads,
            scale: config.scale,
            order: Order::Scores,
            layout: config.layout(),
        };
        if config.form == Form::ImageNet {
            never_called_norm(&(p / "norm1"), width);
            never_called_norm(&(p / "norm2"), width);
        }
        let (attn, mlp) = (p / "attn", p / "mlp");
        let [wide, narrow] = [(width, 4 * width), (4 * width, width)];
        Block {
            attn: QkvAttention::new(&attn, attention, naming, neurons, &seen),
            proj: naming.unit(&attn, "proj", (width, width), neurons),
            fc: [
                config.mlp().unit(&mlp, "fc1", wide, neurons),
                config.mlp().unit(&mlp, "fc2", narrow, neurons),
            ],
            layout: config.layout(),
            out: format!("{seen}.out"),
        }
    }

    /// Tokens to tokens.
    fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        let attended = self.proj.forward(&self.attn.forward(x, time), time);
        see_tokens(&self.out, &attended, self.layout, grid);
        let x = x + attended;
        let hidden = self.fc[0].forward(&x, time);
        x + self.fc[1].forward(&hidden, time)
    }

    fn fuse(&mut self) {
        self.attn.fuse();
        self.proj.fuse();
        self.fc.iter_mut().for_each(Unit::fuse);
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct Spikformer {
    patch_embed: PatchSplitting,
    blocks: Vec<Block>,
    head: Linear,
    config: Config,
}

impl Spikformer {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: Config, classes: i64, neurons: &Neurons) -> Self {
        let pools = match config.form {
            Form::Cifar => POOLS_CIFAR,
            Form::ImageNet => POOLS_IMAGENET,
        };
        let (embed, block) = (p / "patch_embed", p / "block");
        Spikformer {
            patch_embed: PatchSplitting::new(&embed, (3, config.width), pools, true, neurons),
            blocks: (0..config.depth)
                .map(|i| Block::new(&(&block / i), i, &config, neurons))
                .collect(),
            head: Linear::new(p / "head", config.width, classes, true),
            config,
        }
    }

    fn stride(&self) -> i64 {
        match self.config.form {
            Form::Cifar => 4,
            Form::ImageNet => 16,
        }
    }
}

impl Network for Spikformer {
    fn currents(&self, x: &Tensor) -> Tensor {
        self.patch_embed.currents(x)
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        let layout = self.config.layout();
        let embedded = self.patch_embed.forward(currents, time);
        let grid = grid(&embedded);
        let mut x = tokens(&embedded);
        see_tokens("stages.0", &x, layout, grid);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, grid, time);
            see_tokens(&format!("stages.{}", i + 1), &x, layout, grid);
        }
        vec![map(&x, grid)]
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.config.width,
            stride: self.stride(),
        }]
    }

    fn fuse(&mut self) {
        self.patch_embed.fuse();
        self.blocks.iter_mut().for_each(Block::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        any_size("Spikformer", height, width)
    }
}
