//! Parts that several spiking transformers share.

use super::time::{Neurons, Spikes, Time};
use crate::InputForm;
use tch::{Tensor, nn};
use zoo_ops::spike_attention::{Order, SpikeAttention};
use zoo_ops::taps::{self, Tap};
use zoo_ops::work::Site;
use zoo_ops::{ConvBn, ConvConfig, LinearBn, Spiked, Stored};

/// A map [B, C, H, W] as tokens [B, HW, C]: a view, contiguous where the map is channels-last.
pub(super) fn tokens(map: &Tensor) -> Tensor {
    map.flatten(2, -1).transpose(1, 2)
}

/// Tokens [B, HW, C] as a map [B, C, H, W]: a view, the inverse of [`tokens`].
pub(super) fn map(tokens: &Tensor, grid: [i64; 2]) -> Tensor {
    tokens.transpose(1, 2).unflatten(2, grid)
}

/// Height and width of a map [B, C, H, W].
pub(super) fn grid(map: &Tensor) -> [i64; 2] {
    let size = map.size();
    [size[2], size[3]]
}

/// The pool of all stems: 3x3, stride 2, padding 1.
pub(super) fn max_pool(x: &Tensor) -> Tensor {
    x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)
}

/// STEP's exchangeable stems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Embedding {
    /// `SPS`: four convolutions.
    PatchSplitting,
    /// `conv2_embed`: two.
    TwoConvs,
    /// `sequential_embed`: four 1-d convolutions over a sequence of pixels.
    Sequence,
}

impl Embedding {
    /// What the stem takes.
    pub(super) fn input_form(self) -> InputForm {
        match self {
            Embedding::Sequence => InputForm::Sequence,
            _ => InputForm::Images,
        }
    }
}

/// STEP's exchangeable projections of queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    /// As in the paper. STEP's `random_*` attention is this with random weights for two of the three, never trained.
    Linear,
    /// `repconv_attn`.
    RepConv,
}

/// How the official code keeps the activations behind its stem; ours are tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// [B, N, C].
    Tokens,
    /// [B, C, H, W].
    Map,
    /// The same, and [B, heads, d, N] before the neurons behind attention.
    MapByHead {
        /// Attention heads.
        heads: i64,
    },
}

impl Layout {
    /// Tokens as the official code has them.
    pub fn of(self, x: &Tensor, grid: [i64; 2]) -> Tensor {
        match self {
            Layout::Tokens => x.shallow_clone(),
            Layout::Map | Layout::MapByHead { .. } => map(x, grid),
        }
    }

    /// The same of what the official code keeps flat even where it has maps.
    pub fn flat(self, x: &Tensor) -> Tensor {
        match self {
            Layout::Tokens => x.shallow_clone(),
            Layout::Map => x.transpose(1, 2),
            Layout::MapByHead { heads } => x.transpose(1, 2).unflatten(1, [heads, -1]),
        }
    }
}

/// Shows tokens under `name` as the official code has them, if anybody records.
pub(super) fn see_tokens(name: &str, x: &Tensor, layout: Layout, grid: [i64; 2]) {
    if taps::recording() {
        taps::see(name, &layout.of(x, grid));
    }
}

/// How a checkpoint names and stores the layers of a block: `q_linear` or `q_conv`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Naming {
    /// Behind `q_`, `k_`, ..
    pub suffix: &'static str,
    /// The rank of the weights.
    pub stored: Stored,
    /// Whether the layers have biases.
    pub bias: bool,
}

impl Naming {
    /// `NAME_suffix` and `NAME_bn`.
    pub fn layer(&self, p: &nn::Path, name: &str, sizes: (i64, i64)) -> LinearBn {
        let paths = (
            p / format!("{name}_{}", self.suffix),
            p / format!("{name}_bn"),
        );
        LinearBn::new(paths, sizes, self.stored, self.bias)
    }

    /// `NAME_suffix`, `NAME_bn` and `NAME_lif`.
    pub fn unit(&self, p: &nn::Path, name: &str, sizes: (i64, i64), neurons: &Neurons) -> Unit {
        Unit {
            layer: self.layer(p, name, sizes),
            lif: neurons.layer(p / format!("{name}_lif"), sizes.1),
        }
    }
}

/// `fc_convI` and `fc_bnI`, stored as 1x1 convolutions with biases.
pub(super) fn numbered_layer(p: &nn::Path, index: usize, sizes: (i64, i64)) -> LinearBn {
    let paths = (p / format!("fc_conv{index}"), p / format!("fc_bn{index}"));
    LinearBn::new(paths, sizes, Stored::Conv2d, true)
}

/// S(BN(Linear(x))) on tokens.
#[derive(Debug)]
pub(super) struct Unit {
    /// The currents.
    pub layer: LinearBn,
    /// The neurons behind.
    pub lif: Spikes,
}

impl Unit {
    /// Tokens to spikes.
    pub fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        self.forward_shared(&Spiked::new(x), time)
    }

    /// The same of tokens that other units read too.
    pub fn forward_shared(&self, x: &Spiked, time: &Time) -> Tensor {
        self.lif.forward(&self.layer.forward_spikes(x), time)
    }

    /// Folds the norm.
    pub fn fuse(&mut self) {
        self.layer.fuse();
    }
}

/// S(BN(Conv(x))) on maps.
#[derive(Debug)]
pub(super) struct MapUnit {
    conv: ConvBn,
    lif: Spikes,
}

impl MapUnit {
    /// The layers `conv`, `norm` and `lif` below `p`.
    pub fn new(
        p: &nn::Path,
        [conv, norm, lif]: [&str; 3],
        (inputs, out): (i64, i64),
        config: ConvConfig,
        neurons: &Neurons,
    ) -> Self {
        MapUnit {
            conv: ConvBn::new(p / conv, p / norm, inputs, out, config),
            lif: neurons.layer(p / lif, out),
        }
    }

    /// The currents, where no time passes before the neurons.
    pub fn currents(&self, x: &Tensor) -> Tensor {
        self.conv.forward_spikes(x)
    }

    /// Those currents to spikes.
    pub fn fire(&self, currents: &Tensor, time: &Time) -> Tensor {
        self.lif.forward(currents, time)
    }

    /// Maps to spikes.
    pub fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        self.fire(&self.currents(x), time)
    }

    /// Folds the norm.
    pub fn fuse(&mut self) {
        self.conv.fuse();
    }
}

/// Heads, scale and order of products of a [`Product`].
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionConfig {
    /// Channels.
    pub width: i64,
    /// Heads; they divide the width.
    pub heads: i64,
    /// Scale of the product.
    pub scale: f64,
    /// The official order of products.
    pub order: Order,
    /// The official layout.
    pub layout: Layout,
}

/// Spiking self-attention of spikes, and the neurons behind it.
#[derive(Debug)]
pub(super) struct Product {
    product: SpikeAttention,
    attn_lif: Spikes,
    layout: Layout,
    taps: [Tap; 3],
}

impl Product {
    /// `attn_lif` below `p`. Records see its values below `seen`, such as `attn`.
    pub fn new(p: &nn::Path, config: AttentionConfig, neurons: &Neurons, seen: &str) -> Self {
        let places = ["q_spikes", "k_spikes", "pre_lif"];
        Product {
            product: SpikeAttention::new(Site::at(p), config.heads, config.scale, config.order),
            attn_lif: neurons.attention(p / "attn_lif", config.width),
            layout: config.layout,
            taps: places.map(|place| Tap::named(format!("{seen}.{place}"))),
        }
    }

    /// Spikes of queries, keys and values, tokens each, to spikes of the same shape.
    pub fn forward(&self, [q, k, v]: [&Tensor; 3], time: &Time) -> Tensor {
        let mixed = self.product.forward(q, k, v);
        if taps::recording() {
            for (tap, value) in self.taps.iter().zip([q, k, &mixed]) {
                tap.see(&self.layout.flat(value));
            }
        }
        self.attn_lif.forward(&mixed, time)
    }
}

/// Queries, keys and values of the same tokens, and their [`Product`].
#[derive(Debug)]
pub(super) struct QkvAttention {
    qkv: [Unit; 3],
    product: Product,
}

impl QkvAttention {
    /// `q_*`, `k_*`, `v_*` and `attn_lif` below `p`; records see it as `seen`.
    pub fn new(
        p: &nn::Path,
        config: AttentionConfig,
        naming: Naming,
        neurons: &Neurons,
        seen: &str,
    ) -> Self {
        let sizes = (config.width, config.width);
        QkvAttention {
            qkv: ["q", "k", "v"].map(|name| naming.unit(p, name, sizes, neurons)),
            product: Product::new(p, config, neurons, seen),
        }
    }

    /// Tokens to spikes of the same shape.
    pub fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let x = Spiked::new(x);
        let [q, k, v] = self
            .qkv
            .each_ref()
            .map(|unit| unit.forward_shared(&x, time));
        self.product.forward([&q, &k, &v], time)
    }

    /// Folds the norms.
    pub fn fuse(&mut self) {
        self.qkv.iter_mut().for_each(Unit::fuse);
    }
}

/// Where records see block `index`: the first as `attn`, others by their path.
pub(super) fn seen_as(block: &str, index: usize, name: &str) -> String {
    if index == 0 {
        name.to_owned()
    } else {
        format!("{block}.{index}.{name}")
    }
}

/// A 3x3 convolution of stride 1 and its norm: `proj_convI`, `proj_bnI` (no number for the first).
pub(super) fn stem_conv(p: &nn::Path, index: usize, inputs: i64, out: i64) -> ConvBn {
    let n = numbered(index);
    let paths = (p / format!("proj_conv{n}"), p / format!("proj_bn{n}"));
    ConvBn::new(paths.0, paths.1, inputs, out, ConvConfig::same(3))
}

/// `proj_lifI` (no number for the first).
pub(super) fn stem_lif(p: &nn::Path, index: usize, channels: i64, neurons: &Neurons) -> Spikes {
    neurons.layer(p / format!("proj_lif{}", numbered(index)), channels)
}

/// The convolution of the position branch and its norm: `rpe_conv`, `rpe_bn`.
pub(super) fn position_conv(p: &nn::Path, width: i64) -> ConvBn {
    ConvBn::new(
        p / "rpe_conv",
        p / "rpe_bn",
        width,
        width,
        ConvConfig::same(3),
    )
}

fn numbered(index: usize) -> String {
    if index == 0 {
        String::new()
    } else {
        index.to_string()
    }
}

/// Widths of the convolutions of the usual stem.
pub(super) fn stem_widths(inputs: i64, width: i64) -> [i64; 5] {
    [inputs, width / 8, width / 4, width / 2, width]
}

/// The sizes that a network takes whose convolutions and pools pad everything: all of them.
pub(super) fn any_size(name: &str, height: i64, width: i64) -> Result<(), String> {
    if height >= 1 && width >= 1 {
        return Ok(());
    }
    Err(format!(
        "{name} takes any size from 1x1, not {height}x{width}"
    ))
}

/// A layer norm that is in the checkpoint and nowhere else.
pub(super) fn never_called_norm(p: &nn::Path, width: i64) {
    let _weight = p.ones("weight", &[width]);
    let _bias = p.zeros("bias", &[width]);
}
