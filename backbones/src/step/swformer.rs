//! SWformer: attention replaced by a Haar wavelet transform between neurons, with convolutions beside it.
//!
//! Paper: "Spiking Wavelet Transformer", ECCV 2024, arXiv 2403.11138.
//! Official code: Fancyssc/STEP, `cls/models/static/swformer_cifar.py` and `cls/models/utils/sw_layers.py`.

use super::network::Network;
use super::parts::{Layout, Naming, grid, map, see_tokens, tokens};
use super::stem::{POOLS_CIFAR, PatchSplitting};
use super::time::{Neurons, Spikes, Time};
use super::variants::{CIFAR_VARIANT, network, reproduced};
use crate::{Stage, Variant};
use tch::{Kind, Tensor, nn};
use zoo_ops::taps;
use zoo_ops::work::Site;
use zoo_ops::{
    BatchNorm, Conv2d, ConvConfig, Derived, Haar, Linear, LinearBn, Side, Spiked, Stored,
    is_haar_side,
};

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Channels of a token.
    pub width: i64,
    /// Blocks of channels that are mixed among themselves.
    pub groups: i64,
    /// Blocks of the network.
    pub depth: usize,
}

impl Config {
    /// 4-384 for CIFAR.
    pub fn cifar() -> Self {
        Config {
            width: 384,
            groups: 16,
            depth: 4,
        }
    }
}

/// A convolution with the same weights for every group of channels, and the norm behind it.
#[derive(Debug)]
struct SharedConv {
    conv: Conv2d,
    norm: BatchNorm,
}

impl SharedConv {
    fn new(p: &nn::Path, name: &str, kernel: i64, config: &Config) -> Self {
        let channels = config.width / config.groups;
        let same = ConvConfig::same(kernel).with_bias();
        SharedConv {
            conv: Conv2d::new(p / name, channels, channels, same),
            norm: BatchNorm::new(p / format!("{name}_bn"), config.width, 1e-5),
        }
    }

    fn forward(&self, x: &Tensor, groups: i64) -> Tensor {
        let size = x.size();
        let apart = x.reshape([-1, size[1] / groups, size[2], size[3]]);
        let y = self.conv.forward(&apart);
        self.norm
            .forward(&y.reshape([-1, size[1], size[2], size[3]]))
    }

    /// One 3x3 kernel for each group, with the norm in it, and the bias: float64.
    fn folded(&self, groups: i64) -> (Tensor, Tensor) {
        let (scale, shift) = self.norm.scale_shift();
        let (weight, bias) = self.conv.exact();
        let around = (3 - weight.size()[2]) / 2;
        let weight = weight.constant_pad_nd([around; 4]);
        let weight = weight.repeat([groups, 1, 1, 1]) * scale.reshape([-1, 1, 1, 1]);
        let bias = bias.map_or_else(|| shift.zeros_like(), |b| b.repeat([groups]) * scale);
        (weight, bias + shift)
    }
}

/// A grouped convolution that only exists folded.
#[derive(Debug)]
struct Folded {
    weight: Derived,
    bias: Derived,
}

impl Folded {
    fn new((weight, bias): (Tensor, Tensor), kind: Kind) -> Self {
        Folded {
            weight: Derived::new(weight.to_kind(kind)),
            bias: Derived::new(bias.to_kind(kind)),
        }
    }

    fn forward(&self, x: &Tensor, groups: i64) -> Tensor {
        let weight = self.weight.like(x);
        let padding = weight.size()[2] / 2;
        x.conv2d(
            &weight,
            Some(self.bias.like(x)),
            [1],
            [padding],
            [1],
            groups,
        )
    }
}

/// What [`WaveletMixer::fuse`] makes of the layers that are affine.
#[derive(Debug)]
struct FoldedMixer {
    mix: Folded,
    beside: Folded,
}

/// Frequency-aware token mixing (FATM): Haar transform, mixing of channels, inverse, with neurons between, and two convolutions beside.
#[derive(Debug)]
struct WaveletMixer {
    x_lif: Spikes,
    forward: Haar,
    forward_lif: Spikes,
    forward_norm: BatchNorm,
    mix_lif: Spikes,
    /// [groups, in, out].
    weight: Tensor,
    weight_norm: BatchNorm,
    inverse: Haar,
    inverse_lifs: [Spikes; 2],
    inverse_norm: BatchNorm,
    beside: [SharedConv; 2],
    folded: Option<FoldedMixer>,
    groups: i64,
    site: Site,
    first: bool,
}

impl WaveletMixer {
    fn new(p: &nn::Path, config: &Config, neurons: &Neurons, first: bool) -> Self {
        let (width, groups) = (config.width, config.groups);
        let each = width / groups;
        let (forward, inverse) = (p / "haar_forward", p / "haar_inverse");
        let norm = |name: &str| BatchNorm::new(p / name, width, 1e-5);
        let weight = nn::Init::Randn {
            mean: 0.0,
            stdev: 0.02,
        };
        WaveletMixer {
            x_lif: neurons.layer(p / "x_lif", width),
            forward: Haar::new(Site::at(&forward), false),
            forward_lif: neurons.layer(&forward / "col_haar_neuron", width),
            forward_norm: norm("haar_forward_bn"),
            mix_lif: neurons.layer(p / "haar_lif", width),
            weight: p.var("haar_weight", &[groups, each, each], weight),
            weight_norm: norm("haar_multiply_bn"),
            inverse: Haar::new(Site::at(&inverse), true),
            inverse_lifs: ["row_haar_neuron", "col_haar_neuron"]
                .map(|name| neurons.layer(&inverse / name, width)),
            inverse_norm: norm("haar_inverse_bn"),
            beside: [("conv1", 1), ("conv2", 3)]
                .map(|(name, kernel)| SharedConv::new(p, name, kernel, config)),
            folded: None,
            groups,
            site: Site::at(p),
            first,
        }
    }

    /// Potentials [rows, C, H, W] to what is added to them.
    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let spikes = self.x_lif.forward(x, time);
        let rows = self.forward.forward(&spikes, Side::Width);
        let rows = self.forward_lif.forward(&rows, time);
        let waves = self.forward.forward(&rows, Side::Height);
        let fired = self
            .mix_lif
            .forward(&self.forward_norm.forward(&waves), time);
        let mixed = self.mix(&fired);
        let [row_lif, column_lif] = &self.inverse_lifs;
        let rows = self
            .inverse
            .forward(&row_lif.forward(&mixed, time), Side::Width);
        let back = self
            .inverse
            .forward(&column_lif.forward(&rows, time), Side::Height);
        let out = self.inverse_norm.forward(&back) + self.beside(&spikes);
        if self.first && taps::recording() {
            let by_time = |t: &Tensor| t.unflatten(0, [time.steps(), -1]);
            taps::see("attn.x_spikes", &spikes);
            taps::see("attn.haar_forward", &by_time(&waves));
            taps::see("attn.haar_multiply", &mixed);
            taps::see("attn.haar_inverse", &by_time(&back));
            taps::see("attn.out", &out);
        }
        out
    }

    /// Each group of channels times its matrix, and the norm.
    fn mix(&self, x: &Tensor) -> Tensor {
        if let Some(folded) = &self.folded {
            return folded.mix.forward(x, self.groups);
        }
        let [height, width] = grid(x);
        // [groups, rows * places, channels].
        let apart = x.unflatten(1, [self.groups, -1]).permute([1, 0, 3, 4, 2]);
        let mixed = self.site.matmul(&apart.flatten(1, 3), &self.weight);
        let mixed = mixed.unflatten(1, [-1, height, width]);
        let joined = mixed.permute([1, 0, 4, 2, 3]).flatten(1, 2);
        self.weight_norm.forward(&joined)
    }

    fn beside(&self, spikes: &Tensor) -> Tensor {
        match &self.folded {
            Some(folded) => folded.beside.forward(spikes, self.groups),
            None => {
                let [one, three] = &self.beside;
                one.forward(spikes, self.groups) + three.forward(spikes, self.groups)
            }
        }
    }

    /// One grouped 1x1 convolution for the matrices and their norm, one grouped 3x3 convolution for what is beside.
    fn fuse(&mut self) {
        let kind = self.weight.kind();
        let (scale, shift) = self.weight_norm.scale_shift();
        let matrices = self.weight.detach().to_kind(Kind::Double);
        let rows = matrices.transpose(1, 2).flatten(0, 1) * scale.unsqueeze(1);
        let mix = (rows.unsqueeze(-1).unsqueeze(-1), shift);
        let [one, three] = self.beside.each_ref().map(|conv| conv.folded(self.groups));
        let beside = (one.0 + three.0, one.1 + three.1);
        self.folded = Some(FoldedMixer {
            mix: Folded::new(mix, kind),
            beside: Folded::new(beside, kind),
        });
    }
}

/// x + mixer(x), then x + fc2(S(fc1(S(x)))).
#[derive(Debug)]
struct Block {
    mixer: WaveletMixer,
    lifs: [Spikes; 2],
    fc: [LinearBn; 2],
}

impl Block {
    fn new(p: &nn::Path, config: &Config, neurons: &Neurons, first: bool) -> Self {
        let naming = Naming {
            suffix: "conv",
            stored: Stored::Conv2d,
            bias: true,
        };
        let (mlp, width) = (p / "mlp", config.width);
        let hidden = 4 * width;
        Block {
            mixer: WaveletMixer::new(&(p / "attn"), config, neurons, first),
            lifs: [("fc1_lif", width), ("fc2_lif", hidden)]
                .map(|(name, channels)| neurons.layer(&mlp / name, channels)),
            fc: [("fc1", (width, hidden)), ("fc2", (hidden, width))]
                .map(|(name, sizes)| naming.layer(&mlp, name, sizes)),
        }
    }

    /// Potentials of tokens to the same shape.
    fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        let x = x + tokens(&self.mixer.forward(&map(x, grid), time));
        let hidden = self.fc[0].forward_spikes(&Spiked::new(&self.lifs[0].forward(&x, time)));
        self.fc[1].forward_spikes_add(&Spiked::new(&self.lifs[1].forward(&hidden, time)), &x)
    }

    fn fuse(&mut self) {
        self.mixer.fuse();
        self.fc.iter_mut().for_each(LinearBn::fuse);
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct SwFormer {
    patch_embed: PatchSplitting,
    blocks: Vec<Block>,
    head: Linear,
    width: i64,
}

impl SwFormer {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: Config, classes: i64, neurons: &Neurons) -> Self {
        let (embed, block) = (p / "patch_embed", p / "block");
        let width = config.width;
        SwFormer {
            patch_embed: PatchSplitting::new(&embed, (3, width), POOLS_CIFAR, false, neurons),
            blocks: (0..config.depth)
                .map(|i| Block::new(&(&block / i), &config, neurons, i == 0))
                .collect(),
            head: Linear::new(p / "head", width, classes, true),
            width,
        }
    }
}

impl Network for SwFormer {
    fn currents(&self, x: &Tensor) -> Tensor {
        self.patch_embed.currents(x)
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        let embedded = self.patch_embed.forward(currents, time);
        let grid = grid(&embedded);
        let mut x = tokens(&embedded);
        see_tokens("patch_embed", &x, Layout::Map, grid);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, grid, time);
            see_tokens(&format!("block.{i}"), &x, Layout::Map, grid);
        }
        vec![map(&x, grid)]
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.width,
            stride: 4,
        }]
    }

    fn fuse(&mut self) {
        self.patch_embed.fuse();
        self.blocks.iter_mut().for_each(Block::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        let side = |pixels: i64| (pixels + 3) / 4;
        if side(height) == side(width) && is_haar_side(side(height)) {
            return Ok(());
        }
        Err(format!(
            "SWformer's maps (a quarter of the image) are square with a side that is a power of two, \
             such as of 32x32 or 64x64 images, not of {height}x{width}"
        ))
    }
}

/// Every variant.
pub static VARIANTS: &[Variant] = &[Variant {
    name: "step-swformer-cifar",
    aliases: &["swformer_cifar", "swformer-4-384"],
    params: 7_022_522,
    reported: &[reproduced(95.31)],
    build: |p, o| {
        network(o, |neurons| {
            SwFormer::new(p, Config::cifar(), o.classes, neurons)
        })
    },
    ..CIFAR_VARIANT
}];
