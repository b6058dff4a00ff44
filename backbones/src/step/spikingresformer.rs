//! SpikingResformer: residual stages whose attention compares spikes with a coarser map made from them.
//!
//! Paper: "SpikingResformer: Bridging ResNet and Vision Transformer in Spiking Neural Networks", CVPR 2024,
//! arXiv 2403.14302. Official code: Fancyssc/STEP, `cls/models/static/spikingresformer_cifar.py`.
//!
//! The attention is scaled by firing rates that training measured: buffers of the checkpoint, without which a network
//! has no scale.

use super::network::Network;
use super::parts::grid;
use super::time::{Neurons, Spikes, Time};
use super::variants::{CIFAR_VARIANT, network, reproduced};
use crate::{Stage, Variant};
use tch::{Tensor, nn};
use zoo_ops::spike_attention::DualAttention;
use zoo_ops::taps;
use zoo_ops::work::Site;
use zoo_ops::{Activation, ConvBn, ConvConfig, Linear};

/// Sizes of one stage.
#[derive(Debug, Clone, Copy)]
pub struct StageConfig {
    /// Channels.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Side of the patches that one place of the coarser map stands for.
    pub patch: i64,
    /// Pairs of attention and feed-forward layers.
    pub pairs: usize,
}

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Stages; the map's sides halve between them.
    pub stages: [StageConfig; 3],
    /// Channels of a group of the feed-forward layers' 3x3 convolutions.
    pub group: i64,
    /// Side of the image that the scale of the values was chosen for, whatever the image is.
    pub scaled_for: i64,
}

impl Config {
    /// For CIFAR. The values are scaled as if images had 224 pixels a side, as published.
    pub fn cifar() -> Self {
        let stage = |width, heads, patch, pairs| StageConfig {
            width,
            heads,
            patch,
            pairs,
        };
        Config {
            stages: [stage(64, 1, 4, 1), stage(192, 3, 2, 2), stage(384, 6, 1, 3)],
            group: 64,
            scaled_for: 224,
        }
    }

    /// Places of the coarser map of stage `index` of an image that the scale was chosen for.
    fn length(&self, index: usize) -> i64 {
        let side = (self.scaled_for >> index) / self.stages[index].patch;
        side * side
    }
}

/// What an attention layer is: its stage, and what its values are scaled for.
#[derive(Debug, Clone, Copy)]
struct AttentionConfig {
    stage: StageConfig,
    length: i64,
    first: bool,
}

/// Dual spike self-attention between neurons, with its residual.
#[derive(Debug)]
struct Attention {
    in_lif: Spikes,
    keys_values: ConvBn,
    /// Means of the spikes that scores are made of and of the scores' spikes, [1, 1, heads, 1, 1] each.
    rates: [Tensor; 2],
    config: AttentionConfig,
    /// Whether the scales are part of `keys_values`.
    folded: bool,
    product: DualAttention,
    attn_lif: Spikes,
    out_lif: Spikes,
    proj: ConvBn,
}

impl Attention {
    fn new(p: &nn::Path, config: AttentionConfig, neurons: &Neurons) -> Self {
        let StageConfig {
            width,
            heads,
            patch,
            ..
        } = config.stage;
        let patches = ConvConfig {
            bias: false,
            ..ConvConfig::patches(patch)
        };
        let projection = (p / "proj_conv", p / "proj_norm");
        Attention {
            in_lif: neurons.layer(p / "in_lif", width),
            keys_values: ConvBn::new(p / "W", p / "bn", width, 2 * width, patches),
            rates: ["firing_rate_x", "firing_rate_attn"]
                .map(|name| p.ones_no_train(name, &[1, 1, heads, 1, 1])),
            config,
            folded: false,
            product: DualAttention::new(Site::at(p), heads),
            attn_lif: neurons.layer(p / "attn_lif", heads),
            out_lif: neurons.layer(p / "attn_out_lif", width),
            proj: ConvBn::new(
                projection.0,
                projection.1,
                width,
                width,
                ConvConfig::pointwise(),
            ),
        }
    }

    /// What scores and mixed values are multiplied by, [heads, 1, 1] and [heads, 1, 1].
    fn scales(&self) -> [Tensor; 2] {
        let StageConfig { width, heads, .. } = self.config.stage;
        let counts = [width / heads, self.config.length];
        [0, 1].map(|i| {
            // Rates are never negative, unless a formula filled them.
            let rate = self.rates[i].detach().abs().reshape([-1, 1, 1]);
            (rate * counts[i]).sqrt().reciprocal()
        })
    }

    /// Potentials [rows, C, H, W] to the same shape.
    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let spikes = self.in_lif.forward(x, time);
        let keys_values = self.keys_values.forward(&spikes).flatten(2, 3);
        let scores = self.product.scores(&keys_values, &spikes.flatten(2, 3));
        let scales = (!self.folded).then(|| self.scales());
        let scores = match &scales {
            Some([scale, _]) => scores * scale,
            None => scores,
        };
        let attended = self.attn_lif.forward(&scores, time);
        let mixed = self.product.mix(&keys_values, &attended);
        let mixed = match &scales {
            Some([_, scale]) => (mixed.unflatten(1, [scale.size()[0], -1]) * scale).flatten(1, 2),
            None => mixed,
        };
        let mixed = mixed.unflatten(2, grid(x));
        let fired = self.out_lif.forward(&mixed, time);
        let out = self.proj.forward_spikes_add(&fired, x);
        if self.config.first && taps::recording() {
            taps::see("attn.x_spikes", &spikes);
            taps::see("attn.pre_lif", &scores);
            taps::see("attn.attn_spikes", &attended);
            taps::see("attn.out", &out);
        }
        out
    }

    /// Folds the norms, and both scales into what makes keys and values.
    fn fuse(&mut self) {
        self.keys_values.fuse();
        let StageConfig { width, heads, .. } = self.config.stage;
        let each = self.scales().map(|scale| {
            scale
                .to_kind(tch::Kind::Double)
                .expand([heads, 1, width / heads], false)
        });
        let scale = Tensor::cat(&each, 1).flatten(0, -1);
        let none = scale.zeros_like();
        self.keys_values.conv_mut().fold_output(&scale, &none);
        self.folded = true;
        self.proj.fuse();
    }
}

/// Group-wise feed-forward (GWFFN): x + down(S(u + conv(S(u)))), u = up(S(x)).
#[derive(Debug)]
struct FeedForward {
    lifs: [Spikes; 3],
    up: ConvBn,
    conv: ConvBn,
    down: ConvBn,
}

impl FeedForward {
    fn new(p: &nn::Path, (width, group): (i64, i64), neurons: &Neurons) -> Self {
        let hidden = 4 * width;
        let module = p / "conv_module" / 0;
        let pointwise = ConvConfig::pointwise();
        let grouped = ConvConfig::same(3).with_groups(hidden / group);
        FeedForward {
            lifs: [
                neurons.layer(p / "up_lif", width),
                neurons.layer(&module / 0, hidden),
                neurons.layer(p / "down_lif", hidden),
            ],
            up: ConvBn::new(p / "up_conv", p / "up_bn", width, hidden, pointwise),
            conv: ConvBn::new(&module / 1, &module / 2, hidden, hidden, grouped),
            down: ConvBn::new(p / "down_conv", p / "down_bn", hidden, width, pointwise),
        }
    }

    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let [up_lif, conv_lif, down_lif] = &self.lifs;
        let wide = self.up.forward_spikes(&up_lif.forward(x, time));
        let spikes = conv_lif.forward(&wide, time);
        let wide = self.conv.forward_add(&spikes, wide, Activation::None);
        let spikes = down_lif.forward(&wide, time);
        self.down.forward_spikes_add(&spikes, x)
    }

    fn fuse(&mut self) {
        self.up.fuse();
        self.conv.fuse();
        self.down.fuse();
    }
}

/// Halves the sides of the map.
#[derive(Debug)]
struct Downsample {
    lif: Spikes,
    conv: ConvBn,
}

#[derive(Debug)]
enum Layer {
    Down(Downsample),
    Attention(Box<Attention>),
    FeedForward(Box<FeedForward>),
}

impl Layer {
    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        match self {
            Layer::Down(down) => down.conv.forward(&down.lif.forward(x, time)),
            Layer::Attention(attention) => attention.forward(x, time),
            Layer::FeedForward(layer) => layer.forward(x, time),
        }
    }

    fn fuse(&mut self) {
        match self {
            Layer::Down(down) => down.conv.fuse(),
            Layer::Attention(attention) => attention.fuse(),
            Layer::FeedForward(layer) => layer.fuse(),
        }
    }
}

/// The layers of stage `index`, at `p`.
fn stage(p: &nn::Path, index: usize, config: &Config, neurons: &Neurons) -> Vec<Layer> {
    let here = config.stages[index];
    let mut layers = Vec::new();
    if let Some(before) = index.checked_sub(1).map(|i| config.stages[i].width) {
        let at = p / 0;
        let halve = ConvConfig::same(3).with_stride(2);
        layers.push(Layer::Down(Downsample {
            lif: neurons.layer(&at / "lif", before),
            conv: ConvBn::new(&at / "conv", &at / "norm", before, here.width, halve),
        }));
    }
    for _pair in 0..here.pairs {
        let attention = AttentionConfig {
            stage: here,
            length: config.length(index),
            first: index == 0 && layers.is_empty(),
        };
        let attention = Attention::new(&(p / layers.len()), attention, neurons);
        layers.push(Layer::Attention(Box::new(attention)));
        let sizes = (here.width, config.group);
        let feed_forward = FeedForward::new(&(p / layers.len()), sizes, neurons);
        layers.push(Layer::FeedForward(Box::new(feed_forward)));
    }
    layers
}

/// The network.
#[derive(Debug)]
pub(super) struct SpikingResformer {
    prologue: ConvBn,
    stages: [Vec<Layer>; 3],
    classifier: Linear,
    config: Config,
}

impl SpikingResformer {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: Config, classes: i64, neurons: &Neurons) -> Self {
        let (prologue, layers) = (p / "prologue", p / "layers");
        let [first, _, last] = config.stages.map(|stage| stage.width);
        SpikingResformer {
            prologue: ConvBn::new(&prologue / 0, &prologue / 1, 3, first, ConvConfig::same(3)),
            stages: [0, 1, 2].map(|i| stage(&(&layers / i), i, &config, neurons)),
            classifier: Linear::new(p / "classifier", last, classes, true),
            config,
        }
    }
}

impl Network for SpikingResformer {
    fn currents(&self, x: &Tensor) -> Tensor {
        self.prologue.forward(x)
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        taps::see("prologue", currents);
        let mut x = currents.shallow_clone();
        let mut maps = Vec::new();
        for (i, layers) in self.stages.iter().enumerate() {
            for (j, layer) in layers.iter().enumerate() {
                x = layer.forward(&x, time);
                taps::see(&format!("layers.{i}.{j}"), &x);
            }
            taps::see(&format!("layers.{i}"), &x);
            maps.push(x.shallow_clone());
        }
        maps
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.classifier.forward(features)
    }

    fn stage_info(&self) -> Vec<Stage> {
        let stages = self.config.stages.iter().zip([1, 2, 4]);
        stages
            .map(|(stage, stride)| Stage {
                channels: stage.width,
                stride,
            })
            .collect()
    }

    fn fuse(&mut self) {
        self.prologue.fuse();
        self.stages.iter_mut().flatten().for_each(Layer::fuse);
        self.classifier.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        let least = self.config.stages[0].patch;
        if height.min(width) >= least {
            return Ok(());
        }
        Err(format!(
            "SpikingResformer's first patches are {least}x{least}: images are no smaller than that, not {height}x{width}"
        ))
    }
}

/// Every variant.
pub static VARIANTS: &[Variant] = &[Variant {
    name: "step-spikingresformer-cifar",
    aliases: &["spikingresformer_cifar"],
    params: 10_793_238,
    reported: &[reproduced(95.69)],
    build: |p, o| {
        network(o, |neurons| {
            SpikingResformer::new(p, Config::cifar(), o.classes, neurons)
        })
    },
    ..CIFAR_VARIANT
}];
