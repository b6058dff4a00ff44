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
    Naming, Unit, any_size, grid, map, max_pool, numbered_layer, position_conv, seen_as, stem_conv,
    stem_lif, stem_widths, tokens,
};
use super::time::{Neurons, Spikes, Time};
use crate::Stage;
use tch::{Kind, Tensor, nn};
use zoo_ops::spike_attention::channel_gate;
use zoo_ops::taps;
use zoo_ops::{Activation, ConvBn, Linear, LinearBn, Stored};

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Channels of a token.
    pub width: i64,
    /// Attention heads. They change no number, only the shape of a tensor that nothing reads.
    pub heads: i64,
    /// Blocks.
    pub depth: usize,
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

/// Shows tokens in the official layout: maps whose height and width are swapped.
fn see_swapped(name: &str, x: &Tensor, grid: [i64; 2]) {
    if taps::recording() {
        taps::see(name, &map(x, grid).transpose(2, 3));
    }
}

/// Convolutions with neurons between; the last two add their currents.
#[derive(Debug)]
struct Stem {
    convs: [ConvBn; 4],
    lifs: [Spikes; 4],
    position: ConvBn,
}

impl Stem {
    fn new(p: &nn::Path, width: i64, neurons: &Neurons) -> Self {
        let widths = stem_widths(3, width);
        // In the checkpoint, and called by nobody.
        let _unused = neurons.layer(p / "rpe_lif", width);
        Stem {
            convs: [0, 1, 2, 3].map(|i| stem_conv(p, i, widths[i], widths[i + 1])),
            lifs: [0, 1, 2, 3].map(|i| stem_lif(p, i, widths[i + 1], neurons)),
            position: position_conv(p, width),
        }
    }

    /// Currents of the first neurons to potentials [rows, width, H / 4, W / 4].
    fn forward(&self, currents: &Tensor, time: &Time) -> Tensor {
        let [lif, lif1, lif2, lif3] = &self.lifs;
        let x = lif1.forward(&self.convs[1].forward(&lif.forward(currents, time)), time);
        let x = max_pool(&lif2.forward(&self.convs[2].forward(&x), time));
        let x = max_pool(&self.convs[3].forward(&x));
        let spikes = lif3.forward(&x, time);
        self.position.forward_add(&spikes, &x, Activation::None)
    }

    fn fuse(&mut self) {
        self.convs.iter_mut().for_each(ConvBn::fuse);
        self.position.fuse();
    }
}

/// Spike-driven self-attention (SDSA): queries pass where the sum of keys that meet values fires.
#[derive(Debug)]
struct Attention {
    shortcut_lif: Spikes,
    qkv: [Unit; 3],
    gate_lif: Spikes,
    proj: LinearBn,
    heads: i64,
    seen: String,
}

impl Attention {
    fn new(p: &nn::Path, config: &Config, neurons: &Neurons, seen: String) -> Self {
        let (width, heads) = (config.width, config.heads);
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
        // In the checkpoint, and called by nobody.
        let _unused = neurons.attention(p / "attn_lif", width);
        let talking_heads = p / "talking_heads";
        let _unused = talking_heads.var("weight", &[heads, heads, 1], nn::Init::Const(0.0));
        Attention {
            shortcut_lif: neurons.layer(p / "shortcut_lif", width),
            qkv: ["q", "k", "v"].map(|name| naming.unit(p, name, sizes, neurons)),
            gate_lif: neurons.layer(p / "talking_heads_lif", width),
            proj: with_bias.layer(p, "proj", sizes),
            heads,
            seen,
        }
    }

    /// Potentials of tokens to the same shape, the residual included.
    fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        let spikes = self.shortcut_lif.forward(x, time);
        let [q, k, v] = self.qkv.each_ref().map(|unit| unit.forward(&spikes, time));
        let sums = channel_gate(&k, &v);
        let gate = self.gate_lif.forward(&sums, time);
        let out = self.proj.forward_add(&(&q * gate.unsqueeze(1)), x);
        if taps::recording() {
            let by_head = |t: &Tensor| t.unflatten(1, [self.heads, -1]).unsqueeze(2);
            taps::see(&format!("{}.kv_sum", self.seen), &by_head(&sums));
            taps::see(&format!("{}.kv_spikes", self.seen), &by_head(&gate));
            see_swapped(&format!("{}.q_spikes", self.seen), &q, grid);
            see_swapped(&format!("{}.out", self.seen), &out, grid);
        }
        out
    }

    fn fuse(&mut self) {
        self.qkv.iter_mut().for_each(Unit::fuse);
        self.proj.fuse();
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

    fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        let x = self.attn.forward(x, grid, time);
        let hidden = self.fc[0].forward(&self.lifs[0].forward(&x, time));
        self.fc[1].forward_add(&self.lifs[1].forward(&hidden, time), &x)
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
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: Config, classes: i64, neurons: &Neurons) -> Self {
        let block = p / "block";
        Sdt {
            patch_embed: Stem::new(&(p / "patch_embed"), config.width, neurons),
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
        self.patch_embed.convs[0].forward(x)
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        let embedded = self.patch_embed.forward(currents, time);
        let grid = grid(&embedded);
        let mut x = tokens(&embedded);
        see_swapped("stages.0", &x, grid);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, grid, time);
            see_swapped(&format!("stages.{}", i + 1), &x, grid);
        }
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
            stride: 4,
        }]
    }

    fn fuse(&mut self) {
        self.patch_embed.fuse();
        self.blocks.iter_mut().for_each(Block::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        any_size("SDT", height, width)
    }
}
