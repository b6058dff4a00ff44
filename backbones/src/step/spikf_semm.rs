//! Spikformer with experts (SEMM): attention of several experts behind a spiking router, and an MLP that multiplies spikes.
//!
//! Paper: "Spiking Transformer with Experts Mixture", NeurIPS 2024.
//! Official code: Fancyssc/STEP, `cls/models/static/spikf_semm_cifar.py` and `spikf_semm_imagenet.py`.
//!
//! Where the two official files differ, or are odd, the code here says so; `docs/spiking.md` has the list.

use super::network::Network;
use super::parts::{Layout, Naming, Unit, any_size, grid, map, see_tokens, tokens};
use super::stem::{POOLS_CIFAR, POOLS_IMAGENET, PatchSplitting};
use super::time::{Neurons, Spikes, Time};
use super::variants::{CIFAR, CIFAR_VARIANT, IMAGENET_VARIANT, network, reproduced};
use crate::{Backbone, BuildOptions, Preprocessing, Stage, Variant};
use tch::{Tensor, nn};
use zoo_ops::spike_attention::ExpertAttention;
use zoo_ops::work::Site;
use zoo_ops::{BatchNorm, ConvBn, ConvConfig, Linear, LinearBn, Spiked, Stored, taps};

/// Which of the two official networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Stride 4, layers on tokens.
    Cifar,
    /// Stride 16, layers on maps; keys and values without their norms, attention without a scale.
    ImageNet,
}

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which of the two networks.
    pub form: Form,
    /// Channels of a token.
    pub width: i64,
    /// Experts.
    pub experts: i64,
    /// Channels of an expert's queries, and of the keys.
    pub expert_width: i64,
    /// Hidden channels of the MLP; half of them gate the others.
    pub hidden: i64,
    /// Blocks.
    pub depth: usize,
}

impl Config {
    /// 4-384 with four experts, for CIFAR.
    pub fn cifar() -> Self {
        Config {
            form: Form::Cifar,
            width: 384,
            experts: 4,
            expert_width: 96,
            hidden: 4 * 384,
            depth: 4,
        }
    }

    /// 8-512 with four experts, for ImageNet.
    pub fn imagenet() -> Self {
        Config {
            form: Form::ImageNet,
            width: 512,
            hidden: 512 / 3 * 16,
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

    /// Of queries, keys and values.
    fn naming(&self) -> Naming {
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
            Form::Cifar => self.naming(),
            Form::ImageNet => Naming {
                stored: Stored::Conv2d,
                bias: true,
                ..self.naming()
            },
        }
    }
}

/// What makes keys or values.
#[derive(Debug)]
enum Projection {
    Normed(LinearBn),
    /// The ImageNet form has the norm and leaves it out.
    Bare(Linear),
}

impl Projection {
    fn new(p: &nn::Path, name: &str, out: i64, config: &Config) -> Self {
        match config.form {
            Form::Cifar => Projection::Normed(config.naming().layer(p, name, (config.width, out))),
            Form::ImageNet => {
                let _unused = BatchNorm::new(p / format!("{name}_bn"), out, 1e-5);
                let path = p / format!("{name}_conv");
                Projection::Bare(Linear::pointwise_1d(path, config.width, out, false))
            }
        }
    }

    fn forward(&self, x: &Spiked) -> Tensor {
        match self {
            Projection::Normed(layer) => layer.forward_spikes(x),
            Projection::Bare(layer) => layer.forward_spikes(x),
        }
    }

    fn fuse(&mut self) {
        match self {
            Projection::Normed(layer) => layer.fuse(),
            Projection::Bare(layer) => layer.fuse(),
        }
    }
}

/// Queries of one expert, and the neurons behind its attention.
#[derive(Debug)]
struct Expert {
    queries: Unit,
    lif: Spikes,
}

/// The sum of the experts' attention, each where its router fires.
#[derive(Debug)]
struct Attention {
    keys: (Projection, Spikes),
    values: (Projection, Spikes),
    router: (LinearBn, Spikes),
    experts: Vec<Expert>,
    product: ExpertAttention,
    proj: Unit,
    form: Form,
    first: bool,
}

impl Attention {
    fn new(p: &nn::Path, config: &Config, neurons: &Neurons, first: bool) -> Self {
        let (width, narrow) = (config.width, config.expert_width);
        let naming = config.naming();
        let with_bias = Naming {
            bias: true,
            ..naming
        };
        let router = (p / "router1", p / "router2");
        let (queries, lifs) = (p / "ff_list", p / "lif_list");
        let scale = (config.form == Form::Cifar).then_some(0.125);
        Attention {
            keys: (
                Projection::new(p, "k", narrow, config),
                neurons.layer(p / "k_lif", narrow),
            ),
            values: (
                Projection::new(p, "v", width, config),
                neurons.layer(p / "v_lif", width),
            ),
            router: (
                LinearBn::new(router, (width, config.experts), naming.stored, true),
                neurons.layer(p / "router3", config.experts),
            ),
            experts: (0..config.experts)
                .map(|i| Expert {
                    queries: naming.unit(&(&queries / i), "unit", (width, narrow), neurons),
                    lif: neurons.layer(&lifs / i, width),
                })
                .collect(),
            product: ExpertAttention::new(Site::at(p), scale),
            proj: with_bias.unit(p, "proj", (width, width), neurons),
            form: config.form,
            first,
        }
    }

    /// Tokens to spikes of the same shape.
    fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        let x = &Spiked::new(x);
        let k = self.keys.1.forward(&self.keys.0.forward(x), time);
        let v = self.values.1.forward(&self.values.0.forward(x), time);
        let routes = self.router.1.forward(&self.routes(x), time);
        let shared = self.product.share(&k, &v);
        let mut sum: Option<Tensor> = None;
        for (i, expert) in self.experts.iter().enumerate() {
            let q = expert.queries.forward_shared(x, time);
            let mixed = self.product.attend(&q, &shared);
            let fired = expert.lif.forward(&mixed, time);
            let routed = fired * routes.narrow(2, i as i64, 1);
            if i == 0 {
                self.see([("q_spikes", &q), ("pre_lif", &mixed)], time);
            }
            sum = Some(match sum {
                Some(sum) => sum + routed,
                None => routed,
            });
        }
        let sum = sum.unwrap_or_else(|| v.zeros_like());
        let out = self.proj.forward(&sum, time);
        self.see([("k_spikes", &k), ("v_spikes", &v)], time);
        if self.first && taps::recording() {
            let layout = match self.form {
                Form::Cifar => Layout::Tokens,
                Form::ImageNet => Layout::Map,
            };
            self.see([("router", &routes)], time);
            see_tokens("attn.out", &out, layout, grid);
        }
        out
    }

    /// Currents of the routers [rows, N, experts]. The CIFAR form reads [experts, N] as [N, experts].
    fn routes(&self, x: &Spiked) -> Tensor {
        let routes = self.router.0.forward_spikes(x);
        match self.form {
            Form::Cifar => routes.transpose(1, 2).reshape(routes.size()),
            Form::ImageNet => routes,
        }
    }

    /// Shows tokens of the first block in the official layout.
    fn see<const N: usize>(&self, values: [(&str, &Tensor); N], time: &Time) {
        if !self.first || !taps::recording() {
            return;
        }
        for (name, x) in values {
            let shown = match self.form {
                Form::Cifar => x.unflatten(0, [time.steps(), -1]),
                Form::ImageNet if name == "pre_lif" => x.shallow_clone(),
                Form::ImageNet => x.transpose(1, 2),
            };
            taps::see(&format!("attn.{name}"), &shown);
        }
    }

    fn fuse(&mut self) {
        self.keys.0.fuse();
        self.values.0.fuse();
        self.router.0.fuse();
        self.experts
            .iter_mut()
            .for_each(|expert| expert.queries.fuse());
        self.proj.fuse();
    }
}

/// fc2 of S(dw(first half)) times the second half, of the spikes of fc1.
#[derive(Debug)]
struct Mlp {
    fc: [Unit; 2],
    depthwise: ConvBn,
    lif: Spikes,
}

impl Mlp {
    fn new(p: &nn::Path, config: &Config, neurons: &Neurons) -> Self {
        let (width, hidden) = (config.width, config.hidden);
        let half = hidden / 2;
        let naming = config.mlp();
        let depthwise = ConvConfig {
            bias: config.form == Form::ImageNet,
            ..ConvConfig::same(3).with_groups(half)
        };
        Mlp {
            fc: [
                naming.unit(p, "fc1", (width, hidden), neurons),
                naming.unit(p, "fc2", (half, width), neurons),
            ],
            depthwise: ConvBn::new(p / "dw_conv", p / "dw_bn", half, half, depthwise),
            lif: neurons.layer(p / "dw_lif", half),
        }
    }

    /// Tokens to spikes of the same shape.
    fn forward(&self, x: &Tensor, grid: [i64; 2], time: &Time) -> Tensor {
        let hidden = self.fc[0].forward(x, time);
        let halves = hidden.chunk(2, 2);
        let around = self.depthwise.forward(&map(&halves[0], grid));
        let gate = tokens(&self.lif.forward(&around, time));
        self.fc[1].forward(&(gate * &halves[1]), time)
    }

    fn fuse(&mut self) {
        self.fc.iter_mut().for_each(Unit::fuse);
        self.depthwise.fuse();
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct SpikfSemm {
    patch_embed: PatchSplitting,
    blocks: Vec<(Attention, Mlp)>,
    head: Linear,
    config: Config,
}

impl SpikfSemm {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: Config, classes: i64, neurons: &Neurons) -> Self {
        let pools = match config.form {
            Form::Cifar => POOLS_CIFAR,
            Form::ImageNet => POOLS_IMAGENET,
        };
        let (embed, block) = (p / "patch_embed", p / "block");
        let blocks = (0..config.depth).map(|i| {
            let at = &block / i;
            let attention = Attention::new(&(&at / "attn"), &config, neurons, i == 0);
            (attention, Mlp::new(&(&at / "mlp"), &config, neurons))
        });
        SpikfSemm {
            patch_embed: PatchSplitting::new(&embed, (3, config.width), pools, true, neurons),
            blocks: blocks.collect(),
            head: Linear::new(p / "head", config.width, classes, true),
            config,
        }
    }
}

impl Network for SpikfSemm {
    fn currents(&self, x: &Tensor) -> Tensor {
        self.patch_embed.currents(x)
    }

    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor> {
        let layout = self.config.layout();
        let embedded = self.patch_embed.forward(currents, time);
        let grid = grid(&embedded);
        let mut x = tokens(&embedded);
        see_tokens("patch_embed", &x, layout, grid);
        for (i, (attention, mlp)) in self.blocks.iter().enumerate() {
            x = &x + attention.forward(&x, grid, time);
            x = &x + mlp.forward(&x, grid, time);
            see_tokens(&format!("block.{i}"), &x, layout, grid);
        }
        vec![map(&x, grid)]
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.config.width,
            stride: match self.config.form {
                Form::Cifar => 4,
                Form::ImageNet => 16,
            },
        }]
    }

    fn fuse(&mut self) {
        self.patch_embed.fuse();
        for (attention, mlp) in &mut self.blocks {
            attention.fuse();
            mlp.fuse();
        }
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        any_size("Spikformer with experts", height, width)
    }
}

fn build(p: &nn::Path, config: Config, o: &BuildOptions) -> Box<dyn Backbone> {
    network(o, |neurons| SpikfSemm::new(p, config, o.classes, neurons))
}

/// STEP's evaluation transform for CIFAR with the statistics of CIFAR-100, which this model's configurations have.
const CIFAR_SEMM: Preprocessing = Preprocessing {
    mean: [0.5071, 0.4867, 0.4408],
    std: [0.2675, 0.2565, 0.2761],
    source: "Fancyssc/STEP cls/configs/spikf_semm/cifar10.yml",
    ..CIFAR
};

/// Every variant.
pub static VARIANTS: &[Variant] = &[
    Variant {
        name: "step-spikf-semm-cifar",
        aliases: &["spikf_semm_cifar"],
        params: 7_739_372,
        preprocessing: CIFAR_SEMM,
        reported: &[reproduced(94.98)],
        build: |p, o| build(p, Config::cifar(), o),
        ..CIFAR_VARIANT
    },
    Variant {
        name: "step-spikf-semm-imagenet",
        aliases: &["spikf_semm_imagenet"],
        params: 27_550_338,
        build: |p, o| build(p, Config::imagenet(), o),
        ..IMAGENET_VARIANT
    },
];
