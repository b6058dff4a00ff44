//! QKFormer: a pyramid whose first two stages gate whole tokens by the sum of their queries, and whose third attends.
//!
//! Paper: "QKFormer: Hierarchical Spiking Transformer using Q-K Attention", NeurIPS 2024, arXiv 2403.16552.
//! Official code: Fancyssc/STEP, `cls/models/static/qkformer_cifar.py` and `qkformer_imagenet.py`. The ImageNet form has one
//! block of token attention in its second stage where the original has two.

use super::network::Network;
use super::parts::{
    AttentionConfig, Layout, Naming, QkvAttention, Unit, any_size, grid, map, max_pool,
    numbered_layer, see_tokens, seen_as, tokens,
};
use super::time::{Neurons, Spikes, Time};
use crate::Stage;
use tch::{Tensor, nn};
use zoo_ops::spike_attention::{Order, token_gate};
use zoo_ops::taps;
use zoo_ops::{ConvBn, ConvConfig, Linear, LinearBn, Spiked, Stored};

/// Which of the two official networks: they differ in where their patch embeddings pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Strides 1, 2, 4.
    Cifar,
    /// Strides 4, 8, 16.
    ImageNet,
}

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which of the two networks.
    pub form: Form,
    /// Channels of the last stage; the others have a quarter and a half.
    pub width: i64,
    /// Attention heads in all stages.
    pub heads: i64,
    /// Blocks of the last stage.
    pub depth: usize,
    /// Scale of the last stage's attention.
    pub scale: f64,
}

impl Config {
    /// 4-384 for CIFAR: 1, 1 and 2 blocks.
    pub fn cifar() -> Self {
        Config {
            form: Form::Cifar,
            width: 384,
            heads: 8,
            depth: 2,
            scale: 0.125,
        }
    }

    /// 10-384 for ImageNet as the factory builds it: 1, 1 and 7 blocks.
    pub fn imagenet() -> Self {
        Config {
            form: Form::ImageNet,
            depth: 7,
            ..Self::cifar()
        }
    }
}

/// A convolution, its norm, a pool where the form has one, and neurons: `NAME_conv`, `NAME_bn`, `NAME_lif`.
#[derive(Debug)]
struct SpikingConv {
    conv: ConvBn,
    pool: bool,
    lif: Spikes,
}

impl SpikingConv {
    fn new(
        p: &nn::Path,
        name: &str,
        (inputs, out): (i64, i64),
        (config, pool): (ConvConfig, bool),
        neurons: &Neurons,
    ) -> Self {
        let at = |what: &str| p / format!("{name}_{what}");
        SpikingConv {
            conv: ConvBn::new(at("conv"), at("bn"), inputs, out, config),
            pool,
            lif: neurons.layer(at("lif"), out),
        }
    }

    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        self.fire(&self.conv.forward_spikes(x), time)
    }

    fn fire(&self, currents: &Tensor, time: &Time) -> Tensor {
        if self.pool {
            self.lif.forward(&max_pool(currents), time)
        } else {
            self.lif.forward(currents, time)
        }
    }
}

/// Convolutions with a convolution of one tap beside them; both end in neurons and are added.
#[derive(Debug)]
struct PatchEmbed {
    convs: Vec<SpikingConv>,
    residual: SpikingConv,
}

impl PatchEmbed {
    /// Convolutions by name, inputs and pool.
    fn new(
        p: &nn::Path,
        convs: &[(&str, i64, bool)],
        stride: i64,
        (inputs, width): (i64, i64),
        neurons: &Neurons,
    ) -> Self {
        let same = ConvConfig::same(3);
        let pointwise = ConvConfig::pointwise().with_stride(stride);
        let sizes = (inputs, width);
        PatchEmbed {
            convs: convs
                .iter()
                .map(|(name, from, pool)| {
                    SpikingConv::new(p, name, (*from, width), (same, *pool), neurons)
                })
                .collect(),
            residual: SpikingConv::new(p, "proj_res", sizes, (pointwise, false), neurons),
        }
    }

    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let mut y = x.shallow_clone();
        for conv in &self.convs {
            y = conv.forward(&y, time);
        }
        y + self.residual.forward(x, time)
    }

    fn fuse(&mut self) {
        self.convs.iter_mut().for_each(|c| c.conv.fuse());
        self.residual.conv.fuse();
    }
}

/// Token attention or spiking self-attention, before its last neurons.
#[derive(Debug)]
enum Mixer {
    /// TSSA: the sum of a token's queries fires, or the token's keys do not pass.
    Token {
        q: Unit,
        k: Unit,
        gate_lif: Spikes,
        heads: i64,
    },
    /// SSA.
    Full(QkvAttention),
}

const WITHOUT_BIAS: Naming = Naming {
    suffix: "conv",
    stored: Stored::Conv1d,
    bias: false,
};

impl Mixer {
    fn token(p: &nn::Path, width: i64, heads: i64, neurons: &Neurons) -> Self {
        let sizes = (width, width);
        Mixer::Token {
            q: WITHOUT_BIAS.unit(p, "q", sizes, neurons),
            k: WITHOUT_BIAS.unit(p, "k", sizes, neurons),
            gate_lif: neurons.attention(p / "attn_lif", heads),
            heads,
        }
    }

    fn forward(&self, x: &Tensor, time: &Time, seen: &str) -> Tensor {
        match self {
            Mixer::Full(attention) => attention.forward(x, time),
            Mixer::Token {
                q,
                k,
                gate_lif,
                heads,
            } => {
                let (q, k) = (q.forward(x, time), k.forward(x, time));
                let sums = token_gate(&q, *heads);
                let gate = gate_lif.forward(&sums, time);
                if taps::recording() {
                    let official = |t: &Tensor| t.transpose(1, 2).unsqueeze(2);
                    taps::see(&format!("{seen}.q_sum"), &official(&sums));
                    taps::see(&format!("{seen}.attn"), &official(&gate));
                }
                let by_head = k.unflatten(2, [*heads, -1]);
                (by_head * gate.unsqueeze(-1)).flatten(2, 3)
            }
        }
    }

    fn fuse(&mut self) {
        match self {
            Mixer::Full(attention) => attention.fuse(),
            Mixer::Token { q, k, .. } => {
                q.fuse();
                k.fuse();
            }
        }
    }
}

/// x + S(proj(mixer(x))), then x + mlp(x).
#[derive(Debug)]
struct Block {
    mixer: Mixer,
    proj: Unit,
    fc: [(LinearBn, Spikes); 2],
    seen: String,
}

impl Block {
    fn new(
        p: &nn::Path,
        (stage, index): (usize, usize),
        width: i64,
        config: &Config,
        neurons: &Neurons,
    ) -> Self {
        let (attn, mlp) = (p / if stage < 3 { "tssa" } else { "ssa" }, p / "mlp");
        let seen = match stage {
            1 => seen_as("stage1", index, "tssa"),
            2 => format!("stage2.{index}.tssa"),
            _ => seen_as("stage3", index, "ssa"),
        };
        let heads = config.heads;
        let attention = AttentionConfig {
            width,
            heads,
            scale: config.scale,
            order: Order::Context,
            layout: Layout::MapByHead { heads },
        };
        let with_bias = Naming {
            bias: true,
            ..WITHOUT_BIAS
        };
        let layer = |i: usize, sizes: (i64, i64)| {
            let lif = neurons.layer(&mlp / format!("fc_lif{i}"), sizes.1);
            (numbered_layer(&mlp, i, sizes), lif)
        };
        Block {
            mixer: if stage < 3 {
                Mixer::token(&attn, width, heads, neurons)
            } else {
                Mixer::Full(QkvAttention::new(
                    &attn,
                    attention,
                    WITHOUT_BIAS,
                    neurons,
                    &seen,
                ))
            },
            proj: with_bias.unit(&attn, "proj", (width, width), neurons),
            fc: [layer(1, (width, 4 * width)), layer(2, (4 * width, width))],
            seen,
        }
    }

    fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        let mixed = self.mixer.forward(x, time, &self.seen);
        let attended = self.proj.forward(&mixed, time);
        see_tokens(&format!("{}.out", self.seen), &attended, Layout::Map, grid);
        let x = x + attended;
        let mut hidden = x.shallow_clone();
        for (layer, lif) in &self.fc {
            hidden = lif.forward(&layer.forward_spikes(&Spiked::new(&hidden)), time);
        }
        x + hidden
    }

    fn fuse(&mut self) {
        self.mixer.fuse();
        self.proj.fuse();
        self.fc.iter_mut().for_each(|(layer, _)| layer.fuse());
    }
}

/// A patch embedding (the first stage's begins with its currents) and blocks.
#[derive(Debug)]
struct StageBlocks {
    embed: PatchEmbed,
    blocks: Vec<Block>,
}

/// The network.
#[derive(Debug)]
pub(super) struct QkFormer {
    first: SpikingConv,
    stages: Vec<StageBlocks>,
    head: Linear,
    config: Config,
}

impl QkFormer {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: Config, classes: i64, neurons: &Neurons) -> Self {
        let pooled = config.form == Form::ImageNet;
        let widths = [config.width / 4, config.width / 2, config.width];
        let embed1 = p / "patch_embed1";
        let half = widths[0] / 2;
        let first = (ConvConfig::same(3), pooled);
        let embed = |stage: usize| {
            let (inputs, width) = match stage {
                1 => (half, widths[0]),
                _ => (widths[stage - 2], widths[stage - 1]),
            };
            let convs = match (stage, config.form) {
                (1, Form::Cifar) => vec![("proj1", inputs, false)],
                (1, Form::ImageNet) => vec![("proj1", inputs, true), ("proj2", width, false)],
                (_, Form::Cifar) => vec![("proj3", inputs, false), ("proj4", width, true)],
                (_, Form::ImageNet) => vec![("proj3", inputs, true), ("proj4", width, false)],
            };
            let stride = if stage == 1 && !pooled { 1 } else { 2 };
            let path = p / format!("patch_embed{stage}");
            PatchEmbed::new(&path, &convs, stride, (inputs, width), neurons)
        };
        let blocks = |stage: usize, depth: usize| -> Vec<Block> {
            let path = p / format!("stage{stage}");
            let width = widths[stage - 1];
            (0..depth)
                .map(|i| Block::new(&(&path / i), (stage, i), width, &config, neurons))
                .collect()
        };
        QkFormer {
            first: SpikingConv::new(&embed1, "proj", (3, half), first, neurons),
            stages: [(1, 1), (2, 1), (3, config.depth)]
                .map(|(stage, depth)| StageBlocks {
                    embed: embed(stage),
                    blocks: blocks(stage, depth),
                })
                .into(),
            head: Linear::new(p / "head", config.width, classes, true),
            config,
        }
    }
}

impl Network for QkFormer {
    fn currents(&self, x: &Tensor) -> Tensor {
        self.first.conv.forward(x)
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        let mut x = self.first.fire(currents, time);
        let mut seen = 0;
        let mut maps = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let embedded = stage.embed.forward(&x, time);
            let grid = grid(&embedded);
            let mut t = tokens(&embedded);
            see_tokens(&format!("stages.{seen}"), &t, Layout::Map, grid);
            for block in &stage.blocks {
                seen += 1;
                t = block.forward(&t, grid, time);
                see_tokens(&format!("stages.{seen}"), &t, Layout::Map, grid);
            }
            seen += 1;
            x = map(&t, grid);
            maps.push(x.shallow_clone());
        }
        maps
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn stage_info(&self) -> Vec<Stage> {
        let width = self.config.width;
        let strides = match self.config.form {
            Form::Cifar => [1, 2, 4],
            Form::ImageNet => [4, 8, 16],
        };
        [width / 4, width / 2, width]
            .into_iter()
            .zip(strides)
            .map(|(channels, stride)| Stage { channels, stride })
            .collect()
    }

    fn fuse(&mut self) {
        self.first.conv.fuse();
        for stage in &mut self.stages {
            stage.embed.fuse();
            stage.blocks.iter_mut().for_each(Block::fuse);
        }
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        any_size("QKFormer", height, width)
    }
}
