//! SGLFormer: attention inside sub-images and over the whole image in turn, at full resolution.
//!
//! Paper: "Combining aggregated attention and transformer architecture for accurate and efficient performance of Spiking
//! Neural Networks" (SGLFormer), Frontiers in Neuroscience 2024, doi 10.3389/fnins.2024.1371290.
//! Official code: Fancyssc/STEP, `cls/models/static/sglformer_cifar.py`, two oddities of which the published weights were
//! trained with: queries, keys and values come from one convolution and one layer of neurons, which is called three times
//! without a reset; and the local attention mixes channels and places up ([`scrambled_map`]).

use super::network::Network;
use super::parts::{MapUnit, Naming, Unit, grid, map, tokens};
use super::time::{Neurons, Spikes, Time};
use super::variants::{CIFAR_VARIANT, network, reproduced};
use crate::{Stage, Variant};
use tch::{Kind, Tensor, nn};
use zoo_ops::spike_attention::{
    Order, SpikeAttention, from_subimages, scrambled_map, to_subimages,
};
use zoo_ops::work::{self, Site};
use zoo_ops::{BatchNormLinear, ConvConfig, Spiked, Stored, taps};

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
    /// One block of 384 channels for CIFAR.
    pub fn cifar() -> Self {
        Config {
            width: 384,
            heads: 16,
            depth: 1,
            scale: 0.125,
        }
    }
}

/// Places that one kernel of the head sees.
const WINDOW: i64 = 64;

const POINTWISE: Naming = Naming {
    suffix: "conv",
    stored: Stored::Conv2d,
    bias: false,
};

/// a + S(conv(S(dw(S(conv(a)))))) of a = x + S(dw(x)), on maps.
#[derive(Debug)]
struct Local {
    units: [MapUnit; 4],
}

impl Local {
    fn new(p: &nn::Path, width: i64, neurons: &Neurons) -> Self {
        let hidden = 4 * width;
        let depthwise = |channels| ConvConfig::same(3).with_groups(channels);
        let unit = |names, sizes, config| MapUnit::new(p, names, sizes, config, neurons);
        Local {
            units: [
                unit(
                    ["dw_conv1", "bn1", "lif1"],
                    (width, width),
                    depthwise(width),
                ),
                unit(
                    ["conv1", "bn2", "lif2"],
                    (width, hidden),
                    ConvConfig::pointwise(),
                ),
                unit(
                    ["dw_conv2", "bn3", "lif3"],
                    (hidden, hidden),
                    depthwise(hidden),
                ),
                unit(
                    ["conv2", "bn4", "lif4"],
                    (hidden, width),
                    ConvConfig::pointwise(),
                ),
            ],
        }
    }

    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let [first, rest @ ..] = &self.units;
        let x = x + first.forward(x, time);
        let spikes = rest
            .iter()
            .fold(x.shallow_clone(), |x, unit| unit.forward(&x, time));
        spikes + x
    }
}

/// Where an attention layer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Inside each of four interleaved sub-images.
    SubImages,
    /// Everywhere.
    Image,
}

/// Spiking self-attention whose queries, keys and values share a layer.
#[derive(Debug)]
struct Attention {
    qkv: Unit,
    product: SpikeAttention,
    attn_lif: Spikes,
    proj: Unit,
    heads: i64,
    reach: Reach,
    seen: String,
}

impl Attention {
    fn new(p: &nn::Path, name: &str, config: &Config, reach: Reach, neurons: &Neurons) -> Self {
        let p = &(p / name);
        let sizes = (config.width, config.width);
        for unused in ["k", "v"] {
            // In the checkpoint, and called by nobody.
            let _unit = POINTWISE.unit(p, unused, sizes, neurons);
        }
        let order = Order::Scores;
        Attention {
            qkv: POINTWISE.unit(p, "q", sizes, neurons),
            product: SpikeAttention::new(Site::at(p), config.heads, config.scale, order),
            attn_lif: neurons.attention(p / "attn_lif", config.width),
            proj: POINTWISE.unit(p, "pro", sizes, neurons),
            heads: config.heads,
            reach,
            seen: name.to_owned(),
        }
    }

    /// Tokens of maps to tokens of spikes.
    fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        match self.reach {
            Reach::Image => {
                let attended = self.attend(x, time);
                self.proj.forward(&attended, time)
            }
            Reach::SubImages => {
                let parts = to_subimages(&map(x, grid));
                let small = [grid[0] / 2, grid[1] / 2];
                let attended = self.attend(&tokens(&parts), time);
                let scrambled = scrambled_map(&attended, self.heads, small);
                let fired = self.proj.forward(&tokens(&scrambled), time);
                tokens(&from_subimages(&map(&fired, small)))
            }
        }
    }

    fn attend(&self, x: &Tensor, time: &Time) -> Tensor {
        let currents = self.qkv.layer.forward_spikes(&Spiked::new(x));
        let neurons = self.qkv.lif.neuron();
        let mut state = None;
        let [q, k, v] = [0, 1, 2].map(|call| {
            let again = (call > 0 && work::recording()).then(|| self.qkv.layer.forward(x));
            let currents = again.as_ref().unwrap_or(&currents);
            let (spikes, after) = neurons.forward_from(currents, time.steps(), state.take());
            state = Some(after);
            spikes
        });
        let mixed = self.product.forward(&q, &k, &v);
        let attended = self.attn_lif.forward(&mixed, time);
        if taps::recording() {
            let by_head = |t: &Tensor| zoo_ops::split_heads(t, self.heads);
            taps::see(&format!("{}.pre_lif", self.seen), &by_head(&mixed));
            taps::see(&format!("{}.attn", self.seen), &by_head(&attended));
        }
        attended
    }

    fn fuse(&mut self) {
        self.qkv.fuse();
        self.proj.fuse();
    }
}

/// Local convolutions, then attention inside sub-images and twice over the image, each with an MLP behind; residuals all along.
#[derive(Debug)]
struct Block {
    local: Local,
    /// Attention and both layers of its MLP.
    layers: [(Attention, [Unit; 2]); 3],
    path: String,
}

impl Block {
    fn new(p: &nn::Path, index: usize, config: &Config, neurons: &Neurons) -> Self {
        let hidden = 4 * config.width;
        let layer = |i: i64, reach| {
            let mlp = p / format!("mlp{i}");
            let attention = Attention::new(p, &format!("ssa{i}"), config, reach, neurons);
            let units = [
                POINTWISE.unit(&mlp, "fc1", (config.width, hidden), neurons),
                POINTWISE.unit(&mlp, "fc2", (hidden, config.width), neurons),
            ];
            (attention, units)
        };
        Block {
            local: Local::new(&(p / "loc"), config.width, neurons),
            layers: [
                layer(1, Reach::SubImages),
                layer(2, Reach::Image),
                layer(3, Reach::Image),
            ],
            path: format!("blocks.{index}"),
        }
    }

    /// Maps to maps of small integers.
    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let grid = grid(x);
        let local = self.local.forward(x, time);
        taps::see(&format!("{}.loc", self.path), &local);
        let mut x = tokens(&(x + local));
        for (i, (attention, mlp)) in self.layers.iter().enumerate() {
            let attended = attention.forward(&x, grid, time);
            x = &x + &attended;
            let spikes = mlp[1].forward(&mlp[0].forward(&x, time), time);
            x = &x + &spikes;
            taps::see(
                &format!("{}.ssa{}", self.path, i + 1),
                &map(&attended, grid),
            );
            taps::see(&format!("{}.mlp{}", self.path, i + 1), &map(&spikes, grid));
        }
        let x = map(&x, grid);
        taps::see(&self.path, &x);
        x
    }

    fn fuse(&mut self) {
        self.local.units.iter_mut().for_each(MapUnit::fuse);
        for (attention, mlp) in &mut self.layers {
            attention.fuse();
            mlp.iter_mut().for_each(Unit::fuse);
        }
    }
}

/// A depthwise convolution over 64 neighbouring places and all time steps, averaged over where it is placed.
#[derive(Debug)]
struct TimeConv {
    /// [C, 1, 64, T].
    weight: Tensor,
    bias: Tensor,
    site: Site,
}

impl TimeConv {
    fn new(p: &nn::Path, width: i64, steps: i64) -> Self {
        let shape = [width, 1, WINDOW, steps];
        TimeConv {
            weight: p.var("weight", &shape, nn::init::DEFAULT_KAIMING_UNIFORM),
            bias: p.zeros("bias", &[width]),
            site: Site::at(p),
        }
    }

    /// [B, C, N, T] to [B, C, N - 63, 1], as published.
    fn published(&self, x: &Tensor) -> Tensor {
        let channels = x.size()[1];
        let y = x.conv2d(&self.weight, Some(&self.bias), [1], [0], [1], channels);
        self.site.convolution(x, &self.weight.size(), true, &y);
        y
    }

    /// Its mean over the places, [B, C]: the kernel times the mean of what each of its taps sees, which are sums of
    /// small integers and so the same number.
    fn mean(&self, x: &Tensor) -> Tensor {
        let positions = x.size()[2] - WINDOW + 1;
        let sums = x.cumsum(2, None::<Kind>);
        let until = sums.narrow(2, positions - 1, WINDOW);
        let before = sums.narrow(2, 0, WINDOW - 1).constant_pad_nd([0, 0, 1, 0]);
        let seen = (until - before) / positions as f64;
        let taps = seen * self.weight.squeeze_dim(1);
        taps.sum_dim_intlist([2i64, 3].as_slice(), false, None::<Kind>) + &self.bias
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct SglFormer {
    stem: MapUnit,
    tokenizer: [MapUnit; 4],
    blocks: Vec<Block>,
    time_conv: TimeConv,
    head: BatchNormLinear,
    config: Config,
}

impl SglFormer {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: Config, classes: i64, neurons: &Neurons) -> Self {
        let width = config.width;
        let (stem, tokenizer, blocks) = (p / "stem", p / "tokenizer", p / "blocks");
        let widths = [width / 6, width / 4, width / 2, width, width];
        let same = ConvConfig::same(3);
        let names = ["stem_conv", "stem_bn", "stem_lif"];
        SglFormer {
            stem: MapUnit::new(&stem, names, (3, width / 6), same, neurons),
            tokenizer: [1, 2, 3, 4].map(|i| {
                let names = ["conv", "bn", "lif"].map(|name| format!("{name}{i}"));
                let names = names.each_ref().map(String::as_str);
                MapUnit::new(&tokenizer, names, (widths[i - 1], widths[i]), same, neurons)
            }),
            blocks: (0..config.depth)
                .map(|i| Block::new(&(&blocks / i), i, &config, neurons))
                .collect(),
            time_conv: TimeConv::new(&(p / "full_size_conv"), width, neurons.0.steps),
            head: BatchNormLinear::new(p / "bn", p / "head", width, classes),
            config,
        }
    }
}

impl Network for SglFormer {
    fn currents(&self, x: &Tensor) -> Tensor {
        self.stem.currents(x)
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        let mut x = self.stem.fire(currents, time);
        taps::see("stem", &x);
        for unit in &self.tokenizer {
            x = unit.forward(&x, time);
        }
        taps::see("tokenizer", &x);
        for block in &self.blocks {
            x = block.forward(&x, time);
        }
        vec![x]
    }

    /// The time steps are inputs of the last convolution like its places.
    fn features(&self, last: &Tensor, time: &Time) -> Tensor {
        let x = last.unflatten(0, [time.steps(), -1]);
        let x = x.flatten(3, 4).permute([1, 2, 3, 0]);
        if !taps::recording() && !work::recording() {
            return self.time_conv.mean(&x);
        }
        let y = self.time_conv.published(&x);
        taps::see("full_size_conv", &y);
        y.squeeze_dim(-1)
            .mean_dim([-1i64].as_slice(), false, None::<Kind>)
    }

    fn stepwise(&self) -> bool {
        false
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.config.width,
            stride: 1,
        }]
    }

    fn fuse(&mut self) {
        self.stem.fuse();
        self.tokenizer.iter_mut().for_each(MapUnit::fuse);
        self.blocks.iter_mut().for_each(Block::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if height % 2 == 0 && width % 2 == 0 && height * width >= WINDOW && height.min(width) > 0 {
            return Ok(());
        }
        Err(format!(
            "SGLFormer takes images of even sides and at least {WINDOW} pixels, not {height}x{width}"
        ))
    }
}

/// Every variant.
pub static VARIANTS: &[Variant] = &[Variant {
    name: "step-sglformer-cifar",
    aliases: &["sglformer_cifar"],
    params: 8_852_934,
    reported: &[reproduced(95.88)],
    build: |p, o| {
        network(o, |neurons| {
            SglFormer::new(p, Config::cifar(), o.classes, neurons)
        })
    },
    ..CIFAR_VARIANT
}];
