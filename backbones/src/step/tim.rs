//! TIM: Spikformer for event frames, whose queries remember the steps before.
//!
//! Paper: "TIM: An Efficient Temporal Interaction Module for Spiking Transformer", IJCAI 2024, arXiv 2401.11687.
//! Official code: Fancyssc/STEP, `cls/models/dvs/tim.py`. Its neurons are BrainCog's, which fire above the threshold.
//!
//! As constructed there, the second neurons of the module have threshold 1 and can never fire: their currents are means of
//! spikes. Weights may set it lower (the original has 0.3), since thresholds are part of a checkpoint.

use super::network::Network;
use super::parts::{Naming, Unit, grid, map, never_called_norm, tokens};
use super::stem::{POOLS_IMAGENET, PatchSplitting};
use super::time::{Neurons, Spikes, Time};
use super::variants::{CIFAR_VARIANT, network_of};
use crate::{Backbone, BuildOptions, InputForm, Interpolation, Preprocessing, Stage, Variant};
use tch::{Tensor, nn};
use zoo_ops::spike_attention::{Order, SpikeAttention};
use zoo_ops::spiking::NeuronKind;
use zoo_ops::work::Site;
use zoo_ops::{Linear, Spiked, Stored, join_heads, split_heads, taps};

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Form of the input, with its number of time steps.
    pub input: InputForm,
    /// Channels of a token.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Blocks.
    pub depth: usize,
    /// Scale of the attention, whatever the width of a head.
    pub scale: f64,
    /// Whether queries go through the temporal interaction; its weights exist in any case.
    pub interacts: bool,
}

impl Config {
    /// 2-256 over ten steps.
    pub fn tim() -> Self {
        Config {
            input: InputForm::Frames { steps: 10 },
            width: 256,
            heads: 16,
            depth: 2,
            scale: 0.25,
            interacts: true,
        }
    }
}

/// Tokens that the interaction's convolution is built for: of 64x64 frames.
const TOKENS: i64 = 16;

const POINTWISE: Naming = Naming {
    suffix: "conv",
    stored: Stored::Conv1d,
    bias: false,
};

/// Temporal interaction: out_0 = q_0, then out_t = S(S(conv(out_{t-1})) / 2 + q_t / 2).
#[derive(Debug)]
struct Interaction {
    /// Over the channels of a head, between tokens: [16, 16, 5].
    weight: Tensor,
    bias: Tensor,
    in_lif: Spikes,
    out_lif: Spikes,
    site: Site,
    memory: String,
}

impl Interaction {
    fn new(p: &nn::Path, neurons: &Neurons) -> Self {
        let interactor = p / "interactor";
        let shape = [TOKENS, TOKENS, 5];
        let site = Site::at(&interactor);
        Interaction {
            weight: interactor.var("weight", &shape, nn::init::DEFAULT_KAIMING_UNIFORM),
            bias: interactor.zeros("bias", &[TOKENS]),
            in_lif: neurons.layer(p / "in_lif", TOKENS),
            out_lif: neurons.layer(p / "out_lif", TOKENS),
            memory: site.path().to_owned(),
            site,
        }
    }

    /// Queries by head [rows, heads, N, d] to the same shape.
    fn forward(&self, q: &Tensor, time: &Time) -> Tensor {
        let Time::Folded { steps } = time else {
            return self.step(q, time);
        };
        let apart = Time::stepwise();
        let outs: Vec<Tensor> = q
            .chunk(*steps, 0)
            .iter()
            .map(|q_t| self.step(q_t, &apart))
            .collect();
        Tensor::cat(&outs, 0)
    }

    fn step(&self, q: &Tensor, time: &Time) -> Tensor {
        let out = match time.recall(&self.memory) {
            None => q.shallow_clone(),
            Some(before) => {
                let x = before.flatten(0, 1);
                let y = x.conv1d(&self.weight, Some(&self.bias), [1], [2], [1], 1);
                self.site.convolution(&x, &self.weight.size(), true, &y);
                let past = self.in_lif.forward(&y.reshape(before.size()), time);
                self.out_lif.forward(&(past * 0.5 + q * 0.5), time)
            }
        };
        time.keep(&self.memory, &out);
        out
    }
}

/// Spiking self-attention, its queries through the interaction where the model has it.
#[derive(Debug)]
struct Attention {
    qkv: [Unit; 3],
    interaction: Option<Interaction>,
    product: SpikeAttention,
    attn_lif: Spikes,
    proj: Unit,
    heads: i64,
    first: bool,
}

impl Attention {
    fn new(p: &nn::Path, config: &Config, neurons: &Neurons, first: bool) -> Self {
        let width = config.width;
        let unit = |name| POINTWISE.unit(p, name, (width, width), neurons);
        // In the checkpoint, and called by nobody.
        let _unused = neurons.layer(p / "res_lif", width);
        let interaction = Interaction::new(&(p / "TIM"), neurons);
        let order = Order::Scores;
        Attention {
            qkv: ["q", "k", "v"].map(unit),
            interaction: config.interacts.then_some(interaction),
            product: SpikeAttention::new(Site::at(p), config.heads, config.scale, order),
            attn_lif: neurons.attention(p / "attn_lif", width),
            proj: unit("proj"),
            heads: config.heads,
            first,
        }
    }

    /// Tokens to spikes of the same shape.
    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let x = Spiked::new(x);
        let [q, k, v] = self
            .qkv
            .each_ref()
            .map(|unit| unit.forward_shared(&x, time));
        self.see("q_spikes", &q);
        self.see("k_spikes", &k);
        let q = match &self.interaction {
            Some(interaction) => {
                let q = interaction.forward(&split_heads(&q, self.heads), time);
                if self.first && taps::recording() {
                    taps::see("attn.tim", &q.unflatten(0, [time.steps(), -1]));
                }
                join_heads(&q)
            }
            None => q,
        };
        let mixed = self.product.forward(&q, &k, &v);
        self.see("pre_lif", &mixed);
        self.proj
            .forward(&self.attn_lif.forward(&mixed, time), time)
    }

    /// Shows tokens of the first block as the official code has them: channels first, and flat without the interaction.
    fn see(&self, name: &str, x: &Tensor) {
        if !self.first || !taps::recording() {
            return;
        }
        let channels_first = x.transpose(1, 2);
        let shown = if self.interaction.is_some() {
            channels_first
        } else {
            channels_first.flatten(1, 2)
        };
        taps::see(&format!("attn.{name}"), &shown);
    }

    fn fuse(&mut self) {
        self.qkv.iter_mut().for_each(Unit::fuse);
        self.proj.fuse();
    }
}

/// x + attention(x), then x + mlp(x); each ends in neurons.
#[derive(Debug)]
struct Block {
    attn: Attention,
    fc: [Unit; 2],
}

impl Block {
    fn new(p: &nn::Path, config: &Config, neurons: &Neurons, first: bool) -> Self {
        let width = config.width;
        for norm in ["norm1", "norm2"] {
            never_called_norm(&(p / norm), width);
        }
        let naming = Naming {
            bias: true,
            ..POINTWISE
        };
        let mlp = p / "mlp";
        Block {
            attn: Attention::new(&(p / "attn"), config, neurons, first),
            fc: [("fc1", (width, 4 * width)), ("fc2", (4 * width, width))]
                .map(|(name, sizes)| naming.unit(&mlp, name, sizes, neurons)),
        }
    }

    /// Tokens to tokens of small integers.
    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let attended = self.attn.forward(x, time);
        if self.attn.first && taps::recording() {
            taps::see("attn.out", &attended.transpose(1, 2));
        }
        let x = x + attended;
        let hidden = self.fc[0].forward(&x, time);
        x + self.fc[1].forward(&hidden, time)
    }

    fn fuse(&mut self) {
        self.attn.fuse();
        self.fc.iter_mut().for_each(Unit::fuse);
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct Tim {
    patch_embed: PatchSplitting,
    blocks: Vec<Block>,
    head: Linear,
    config: Config,
    steps: i64,
}

impl Tim {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: Config, classes: i64, neurons: &Neurons) -> Self {
        let (embed, block) = (p / "patch_embed", p / "block");
        let sizes = (2, config.width);
        Tim {
            patch_embed: PatchSplitting::new(&embed, sizes, POOLS_IMAGENET, true, neurons),
            blocks: (0..config.depth)
                .map(|i| Block::new(&(&block / i), &config, neurons, i == 0))
                .collect(),
            head: Linear::new(p / "head", config.width, classes, true),
            config,
            steps: neurons.0.steps,
        }
    }
}

impl Network for Tim {
    fn currents(&self, x: &Tensor) -> Tensor {
        self.patch_embed.currents(x)
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        let embedded = self.patch_embed.forward(currents, time);
        let grid = grid(&embedded);
        let mut x = tokens(&embedded);
        taps::see("patch_embed", &x.transpose(1, 2));
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, time);
            taps::see(&format!("block.{i}"), &x.transpose(1, 2));
        }
        vec![map(&x, grid)]
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.config.width,
            stride: 16,
        }]
    }

    fn fuse(&mut self) {
        self.patch_embed.fuse();
        self.blocks.iter_mut().for_each(Block::fuse);
        self.head.fuse();
    }

    /// Polarities.
    fn input_channels(&self) -> i64 {
        2
    }

    fn input_form(&self) -> InputForm {
        let steps = self.steps;
        match self.config.input {
            InputForm::Clips { .. } => InputForm::Clips { steps },
            _ => InputForm::Frames { steps },
        }
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        let whole = height % 16 == 0 && width % 16 == 0 && height.min(width) > 0;
        if !whole {
            return Err(format!(
                "frames have sides that are multiples of 16, not {height}x{width}"
            ));
        }
        if self.config.interacts && height * width != 256 * TOKENS {
            return Err(format!(
                "TIM's convolution over time is between {TOKENS} tokens, as of 64x64 frames, not of {height}x{width}"
            ));
        }
        Ok(())
    }
}

/// The network with BrainCog's neurons, over ten steps unless the caller wants others.
pub(super) fn build(p: &nn::Path, config: Config, o: &BuildOptions) -> Box<dyn Backbone> {
    network_of((NeuronKind::LifBrainCog, 10), o, |neurons| {
        Tim::new(p, config, o.classes, neurons)
    })
}

/// Frames of events as they were counted, resized.
pub(super) const FRAMES: Preprocessing = Preprocessing {
    size: (64, 64),
    crop_pct: 1.0,
    interpolation: Interpolation::Bilinear,
    mean: [0.0; 3],
    std: [1.0; 3],
    source: "Fancyssc/STEP cls/configs/tim/dvsc10.yml (event counts, not normalised)",
};

/// Every variant.
pub static VARIANTS: &[Variant] = &[Variant {
    name: "step-tim",
    aliases: &["tim"],
    params: 2_570_844,
    preprocessing: FRAMES,
    build: |p, o| build(p, Config::tim(), o),
    ..CIFAR_VARIANT
}];
