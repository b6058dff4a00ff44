//! Spikformer, as STEP has it: post-neuron residuals, so that activations are small integers.
//!
//! Paper: "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023, arXiv 2209.15425.
//! Official code: Fancyssc/STEP, `cls/models/static/spikformer_cifar.py` and `spikformer_imagenet.py`.

use super::network::Network;
use super::parts::{
    AttentionConfig, Embedding, Layout, Naming, Product, Projection, QkvAttention, Unit, any_size,
    grid, map, never_called_norm, see_tokens, seen_as, tokens,
};
use super::rep_conv::RepUnit;
use super::sequence::{Residual, SequenceStem, check_length};
use super::stem::{POOLS_CIFAR, POOLS_IMAGENET, PatchSplitting};
use super::time::{Neurons, Time};
use crate::{InputForm, Stage};
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
    /// What makes tokens.
    pub embedding: Embedding,
    /// What makes queries, keys and values.
    pub projection: Projection,
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
            embedding: Embedding::PatchSplitting,
            projection: Projection::Linear,
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

/// Attention of spikes up to its last neurons.
#[derive(Debug)]
enum Attention {
    Linear {
        attention: QkvAttention,
        proj: Unit,
    },
    RepConv {
        qkv: [RepUnit; 3],
        product: Product,
        proj: RepUnit,
    },
}

impl Attention {
    fn new(p: &nn::Path, config: &Config, neurons: &Neurons, seen: &str) -> Self {
        let width = config.width;
        let naming = config.attention();
        let attention = AttentionConfig {
            width,
            heads: config.heads,
            scale: config.scale,
            order: Order::Scores,
            layout: config.layout(),
        };
        let rep = |name: &str| RepUnit::new(p, name, naming.suffix, width, neurons);
        match config.projection {
            Projection::Linear => Attention::Linear {
                attention: QkvAttention::new(p, attention, naming, neurons, seen),
                proj: naming.unit(p, "proj", (width, width), neurons),
            },
            Projection::RepConv => Attention::RepConv {
                qkv: ["q", "k", "v"].map(rep),
                product: Product::new(p, attention, neurons, seen),
                proj: rep("proj"),
            },
        }
    }

    fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        match self {
            Attention::Linear { attention, proj } => {
                proj.forward(&attention.forward(x, time), time)
            }
            Attention::RepConv { qkv, product, proj } => {
                let [q, k, v] = qkv.each_ref().map(|unit| unit.forward(x, grid, time));
                proj.forward(&product.forward([&q, &k, &v], time), grid, time)
            }
        }
    }

    fn fuse(&mut self) {
        match self {
            Attention::Linear { attention, proj } => {
                attention.fuse();
                proj.fuse();
            }
            Attention::RepConv { qkv, proj, .. } => {
                qkv.iter_mut().for_each(RepUnit::fuse);
                proj.fuse();
            }
        }
    }
}

/// x + attention(x), then x + mlp(x); each ends in neurons.
#[derive(Debug)]
struct Block {
    attn: Attention,
    fc: [Unit; 2],
    layout: Layout,
    out: String,
}

impl Block {
    fn new(p: &nn::Path, index: usize, config: &Config, neurons: &Neurons) -> Self {
        let seen = seen_as("block", index, "attn");
        let width = config.width;
        if config.form == Form::ImageNet {
            never_called_norm(&(p / "norm1"), width);
            never_called_norm(&(p / "norm2"), width);
        }
        let (attn, mlp) = (p / "attn", p / "mlp");
        let [wide, narrow] = [(width, 4 * width), (4 * width, width)];
        Block {
            attn: Attention::new(&attn, config, neurons, &seen),
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
        let attended = self.attn.forward(x, grid, time);
        see_tokens(&self.out, &attended, self.layout, grid);
        let x = x + attended;
        let hidden = self.fc[0].forward(&x, time);
        x + self.fc[1].forward(&hidden, time)
    }

    fn fuse(&mut self) {
        self.attn.fuse();
        self.fc.iter_mut().for_each(Unit::fuse);
    }
}

/// What makes tokens of the input.
#[derive(Debug)]
enum Stem {
    Map(PatchSplitting),
    Sequence(SequenceStem),
}

/// The network.
#[derive(Debug)]
pub(super) struct Spikformer {
    patch_embed: Stem,
    blocks: Vec<Block>,
    head: Linear,
    config: Config,
}

impl Spikformer {
    /// Builds the network under official names; `length` is that of sequences.
    pub fn new(
        p: &nn::Path,
        config: Config,
        (classes, length): (i64, i64),
        neurons: &Neurons,
    ) -> Self {
        let (embed, block) = (p / "patch_embed", p / "block");
        let widths = (3, config.width);
        let pools = match config.form {
            Form::Cifar => POOLS_CIFAR,
            Form::ImageNet => POOLS_IMAGENET,
        };
        let patch_embed = match config.embedding {
            Embedding::PatchSplitting => {
                Stem::Map(PatchSplitting::new(&embed, widths, pools, true, neurons))
            }
            Embedding::TwoConvs => Stem::Map(PatchSplitting::two_convs(&embed, widths, neurons)),
            Embedding::Sequence => {
                let residual = Residual::Spikes;
                let stem = SequenceStem::new(&embed, widths, length, residual, neurons);
                Stem::Sequence(stem)
            }
        };
        Spikformer {
            patch_embed,
            blocks: (0..config.depth)
                .map(|i| Block::new(&(&block / i), i, &config, neurons))
                .collect(),
            head: Linear::new(p / "head", config.width, classes, true),
            config,
        }
    }

    fn stride(&self) -> i64 {
        match (self.config.form, self.config.embedding) {
            (Form::Cifar, Embedding::PatchSplitting | Embedding::TwoConvs) => 4,
            (Form::ImageNet, _) | (_, Embedding::Sequence) => 16,
        }
    }
}

impl Network for Spikformer {
    fn currents(&self, x: &Tensor) -> Tensor {
        match &self.patch_embed {
            Stem::Map(stem) => stem.currents(x),
            Stem::Sequence(stem) => stem.currents(x),
        }
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        let layout = self.config.layout();
        let (mut x, grid) = match &self.patch_embed {
            Stem::Map(stem) => {
                let embedded = stem.forward(currents, time);
                (tokens(&embedded), grid(&embedded))
            }
            Stem::Sequence(stem) => {
                let x = stem.forward(currents, time);
                let count = x.size()[1];
                (x, [1, count])
            }
        };
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
        match &mut self.patch_embed {
            Stem::Map(stem) => stem.fuse(),
            Stem::Sequence(stem) => stem.fuse(),
        }
        self.blocks.iter_mut().for_each(Block::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        match self.config.embedding {
            Embedding::Sequence => check_length(height, width),
            _ => any_size("Spikformer", height, width),
        }
    }

    fn input_form(&self) -> InputForm {
        self.config.embedding.input_form()
    }
}
