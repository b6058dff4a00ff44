//! Spike-driven transformer, first version: residuals of membrane potentials, and attention that is one sum per channel.
//!
//! Paper: "Spike-driven Transformer", NeurIPS 2023, arXiv 2307.01694.
//! Official code: Fancyssc/STEP, `cls/models/static/sdt_cifar.py` and `sdt_imagenet.py`. The ImageNet form has the stem of the
//! CIFAR form: stride 4, where the original has 16.
//!
//! The official code swaps height and width behind the stem. Nothing behind it looks at places, so that only records see
//! the swap; [`crate::Backbone::stages`] gives maps as they are.

use super::network::Network;
use super::parts::{
    Embedding, Naming, Projection, Unit, any_size, grid, map, max_pool, numbered_layer,
    position_conv, seen_as, stem_conv, stem_lif, stem_widths, tokens,
};
use super::rep_conv::{RepConv, RepUnit};
use super::sequence::{Residual, SequenceStem, check_length};
use super::time::{Neurons, Spikes, Time};
use crate::{InputForm, Stage};
use tch::{Kind, Tensor, nn};
use zoo_ops::spike_attention::channel_gate;
use zoo_ops::taps;
use zoo_ops::{ConvBn, Linear, LinearBn, Spiked, Stored};

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Channels of a token.
    pub width: i64,
    /// Attention heads. They change no number, only the shape of a tensor that nothing reads.
    pub heads: i64,
    /// Blocks.
    pub depth: usize,
    /// What makes tokens.
    pub embedding: Embedding,
    /// What makes queries, keys and values.
    pub projection: Projection,
    /// Records of the ImageNet form see the head's spikes by time.
    pub head_by_time: bool,
}

impl Config {
    /// 2-512 for CIFAR.
    pub fn cifar() -> Self {
        Config {
            width: 512,
            heads: 8,
            depth: 2,
            embedding: Embedding::PatchSplitting,
            projection: Projection::Linear,
            head_by_time: false,
        }
    }

    /// 8-512 for ImageNet.
    pub fn imagenet() -> Self {
        Config {
            depth: 8,
            head_by_time: true,
            ..Self::cifar()
        }
    }
}

/// Height and width of the tokens, and whether the official code swaps them.
#[derive(Debug, Clone, Copy)]
struct Grid {
    size: [i64; 2],
    swapped: bool,
}

impl Grid {
    /// Shows tokens in the official layout.
    fn see(&self, name: &str, x: &Tensor) {
        if taps::recording() {
            let map = map(x, self.size);
            let seen = if self.swapped {
                map.transpose(2, 3)
            } else {
                map
            };
            taps::see(name, &seen);
        }
    }
}

/// Convolutions with neurons between; the last two add their currents.
#[derive(Debug)]
struct ConvStem {
    convs: Vec<ConvBn>,
    lifs: Vec<Spikes>,
    position: ConvBn,
}

impl ConvStem {
    fn new(p: &nn::Path, widths: &[i64], neurons: &Neurons) -> Self {
        let width = widths[widths.len() - 1];
        // In the checkpoint, and called by nobody.
        let _unused = neurons.layer(p / "rpe_lif", width);
        let each = || widths.windows(2).enumerate();
        ConvStem {
            convs: each().map(|(i, w)| stem_conv(p, i, w[0], w[1])).collect(),
            lifs: each().map(|(i, w)| stem_lif(p, i, w[1], neurons)).collect(),
            position: position_conv(p, width),
        }
    }

    /// Currents of the first neurons to potentials [rows, width, H / 4, W / 4].
    fn forward(&self, currents: &Tensor, time: &Time) -> Tensor {
        let last = self.convs.len() - 1;
        let mut x = currents.shallow_clone();
        for i in 0..last {
            let spikes = self.lifs[i].forward(&x, time);
            let pooled = if i + 1 == last {
                max_pool(&spikes)
            } else {
                spikes
            };
            x = self.convs[i + 1].forward_spikes(&pooled);
        }
        let x = max_pool(&x);
        let spikes = self.lifs[last].forward(&x, time);
        self.position.forward_spikes_add(&spikes, &x)
    }

    fn fuse(&mut self) {
        self.convs.iter_mut().for_each(ConvBn::fuse);
        self.position.fuse();
    }
}

/// What makes tokens of the input.
#[derive(Debug)]
enum Stem {
    Map(ConvStem),
    Sequence(SequenceStem),
}

impl Stem {
    fn new(p: &nn::Path, config: &Config, length: i64, neurons: &Neurons) -> Self {
        let width = config.width;
        match config.embedding {
            Embedding::PatchSplitting => {
                Stem::Map(ConvStem::new(p, &stem_widths(3, width), neurons))
            }
            Embedding::TwoConvs => Stem::Map(ConvStem::new(p, &[3, width / 4, width], neurons)),
            Embedding::Sequence => {
                let residual = Residual::Potentials;
                Stem::Sequence(SequenceStem::new(p, (3, width), length, residual, neurons))
            }
        }
    }

    fn currents(&self, x: &Tensor) -> Tensor {
        match self {
            Stem::Map(stem) => stem.convs[0].forward(x),
            Stem::Sequence(stem) => stem.currents(x),
        }
    }

    /// Tokens and where they are.
    fn forward(&self, currents: &Tensor, time: &Time) -> (Tensor, Grid) {
        match self {
            Stem::Map(stem) => {
                let embedded = stem.forward(currents, time);
                let grid = Grid {
                    size: grid(&embedded),
                    swapped: true,
                };
                (tokens(&embedded), grid)
            }
            // The 64 tokens of a sequence are laid out as a square.
            Stem::Sequence(stem) => {
                let grid = Grid {
                    size: [8, 8],
                    swapped: false,
                };
                (stem.forward(currents, time), grid)
            }
        }
    }

    fn fuse(&mut self) {
        match self {
            Stem::Map(stem) => stem.fuse(),
            Stem::Sequence(stem) => stem.fuse(),
        }
    }
}

/// What makes queries, keys and values of spikes, and the output of what passed.
#[derive(Debug)]
enum Projections {
    Linear { qkv: [Unit; 3], proj: LinearBn },
    RepConv { qkv: [RepUnit; 3], proj: RepConv },
}

impl Projections {
    fn new(p: &nn::Path, config: &Config, neurons: &Neurons) -> Self {
        let width = config.width;
        let sizes = (width, width);
        let naming = Naming {
            suffix: "conv",
            stored: Stored::Conv2d,
            bias: false,
        };
        let with_bias = Naming {
            bias: true,
            ..naming
        };
        let names = ["q", "k", "v"];
        match config.projection {
            Projection::Linear => Projections::Linear {
                qkv: names.map(|name| naming.unit(p, name, sizes, neurons)),
                proj: with_bias.layer(p, "proj", sizes),
            },
            Projection::RepConv => Projections::RepConv {
                qkv: names.map(|name| RepUnit::new(p, name, "conv", width, neurons)),
                proj: RepConv::new(p / "proj_conv", p / "proj_bn", width),
            },
        }
    }

    fn qkv(&self, x: &Tensor, grid: Grid, time: &Time) -> [Tensor; 3] {
        match self {
            Projections::Linear { qkv, .. } => {
                let x = Spiked::new(x);
                qkv.each_ref().map(|unit| unit.forward_shared(&x, time))
            }
            Projections::RepConv { qkv, .. } => qkv.each_ref().map(|unit| {
                if grid.swapped {
                    unit.forward_swapped(x, grid.size, time)
                } else {
                    unit.forward(x, grid.size, time)
                }
            }),
        }
    }

    /// The output of `x`, added to `residual`.
    fn project(&self, x: &Tensor, residual: &Tensor, grid: Grid) -> Tensor {
        match self {
            Projections::Linear { proj, .. } => proj.forward_spikes_add(&Spiked::new(x), residual),
            Projections::RepConv { proj, .. } if grid.swapped => {
                residual + proj.forward_swapped(x, grid.size)
            }
            Projections::RepConv { proj, .. } => residual + proj.forward_tokens(x, grid.size),
        }
    }

    fn fuse(&mut self) {
        match self {
            Projections::Linear { qkv, proj } => {
                qkv.iter_mut().for_each(Unit::fuse);
                proj.fuse();
            }
            Projections::RepConv { qkv, proj } => {
                qkv.iter_mut().for_each(RepUnit::fuse);
                proj.fuse();
            }
        }
    }
}

/// Spike-driven self-attention (SDSA): queries pass where the sum of keys that meet values fires.
#[derive(Debug)]
struct Attention {
    shortcut_lif: Spikes,
    projections: Projections,
    gate_lif: Spikes,
    heads: i64,
    seen: String,
}

impl Attention {
    fn new(p: &nn::Path, config: &Config, neurons: &Neurons, seen: String) -> Self {
        let (width, heads) = (config.width, config.heads);
        // In the checkpoint, and called by nobody.
        let _unused = neurons.attention(p / "attn_lif", width);
        let talking_heads = p / "talking_heads";
        let _unused = talking_heads.var("weight", &[heads, heads, 1], nn::Init::Const(0.0));
        Attention {
            shortcut_lif: neurons.layer(p / "shortcut_lif", width),
            projections: Projections::new(p, config, neurons),
            gate_lif: neurons.layer(p / "talking_heads_lif", width),
            heads,
            seen,
        }
    }

    /// Potentials of tokens to the same shape, the residual included.
    fn forward(&self, x: &Tensor, grid: Grid, time: &Time) -> Tensor {
        let spikes = self.shortcut_lif.forward(x, time);
        let [q, k, v] = self.projections.qkv(&spikes, grid, time);
        let sums = channel_gate(&k, &v);
        let gate = self.gate_lif.forward(&sums, time);
        let passed = &q * gate.unsqueeze(1);
        let out = self.projections.project(&passed, x, grid);
        if taps::recording() {
            let by_head = |t: &Tensor| t.unflatten(1, [self.heads, -1]).unsqueeze(2);
            taps::see(&format!("{}.kv_sum", self.seen), &by_head(&sums));
            taps::see(&format!("{}.kv_spikes", self.seen), &by_head(&gate));
            grid.see(&format!("{}.q_spikes", self.seen), &q);
            grid.see(&format!("{}.out", self.seen), &out);
        }
        out
    }

    fn fuse(&mut self) {
        self.projections.fuse();
    }
}

/// Attention, then x + fc2(S(fc1(S(x)))).
#[derive(Debug)]
struct Block {
    attn: Attention,
    lifs: [Spikes; 2],
    fc: [LinearBn; 2],
}

impl Block {
    fn new(p: &nn::Path, index: usize, config: &Config, neurons: &Neurons) -> Self {
        let (mlp, width) = (p / "mlp", config.width);
        let hidden = 4 * width;
        let seen = seen_as("block", index, "attn");
        Block {
            attn: Attention::new(&(p / "attn"), config, neurons, seen),
            lifs: [(1, width), (2, hidden)]
                .map(|(i, channels)| neurons.layer(&mlp / format!("fc_lif{i}"), channels)),
            fc: [(1, (width, hidden)), (2, (hidden, width))]
                .map(|(i, sizes)| numbered_layer(&mlp, i, sizes)),
        }
    }

    fn forward(&self, x: &Tensor, grid: Grid, time: &Time) -> Tensor {
        let x = self.attn.forward(x, grid, time);
        let hidden = self.fc[0].forward_spikes(&Spiked::new(&self.lifs[0].forward(&x, time)));
        self.fc[1].forward_spikes_add(&Spiked::new(&self.lifs[1].forward(&hidden, time)), &x)
    }

    fn fuse(&mut self) {
        self.attn.fuse();
        self.fc.iter_mut().for_each(LinearBn::fuse);
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct Sdt {
    patch_embed: Stem,
    blocks: Vec<Block>,
    head_lif: Spikes,
    head: Linear,
    config: Config,
}

impl Sdt {
    /// Builds the network under official names; `length` is that of sequences.
    pub fn new(
        p: &nn::Path,
        config: Config,
        (classes, length): (i64, i64),
        neurons: &Neurons,
    ) -> Self {
        let block = p / "block";
        Sdt {
            patch_embed: Stem::new(&(p / "patch_embed"), &config, length, neurons),
            blocks: (0..config.depth)
                .map(|i| Block::new(&(&block / i), i, &config, neurons))
                .collect(),
            head_lif: neurons.layer(p / "head_lif", config.width),
            head: Linear::new(p / "head", config.width, classes, true),
            config,
        }
    }
}

impl Network for Sdt {
    fn currents(&self, x: &Tensor) -> Tensor {
        self.patch_embed.currents(x)
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        let (mut x, grid) = self.patch_embed.forward(currents, time);
        grid.see("stages.0", &x);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, grid, time);
            grid.see(&format!("stages.{}", i + 1), &x);
        }
        let grid = match self.config.embedding {
            Embedding::Sequence => [1, 64],
            _ => grid.size,
        };
        vec![map(&x, grid)]
    }

    /// The mean over the places fires once more before it is averaged over time.
    fn pool(&self, last: &Tensor, time: &Time) -> Tensor {
        let mean = last.mean_dim([2i64, 3].as_slice(), false, None::<Kind>);
        let spikes = self.head_lif.forward(&mean, time);
        if taps::recording() {
            let name = format!("stages.{}", self.blocks.len() + 1);
            if self.config.head_by_time {
                taps::see(&name, &spikes.unflatten(0, [time.steps(), -1]));
            } else {
                taps::see(&name, &spikes);
            }
        }
        spikes
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.config.width,
            stride: match self.config.embedding {
                Embedding::Sequence => 16,
                _ => 4,
            },
        }]
    }

    fn fuse(&mut self) {
        self.patch_embed.fuse();
        self.blocks.iter_mut().for_each(Block::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        match self.config.embedding {
            Embedding::Sequence => check_length(height, width),
            _ => any_size("SDT", height, width),
        }
    }

    fn input_form(&self) -> InputForm {
        self.config.embedding.input_form()
    }
}
