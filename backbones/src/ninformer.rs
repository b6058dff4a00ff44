//! NiNformer: attention gives way to a gate that a small network makes of the same tokens. For small images.
//!
//! Paper: "NiNformer: A Network in Network Transformer with Token Mixing Generated Gating Function", Neural Computing &
//! Applications 2025, arXiv 2403.02411. Official code: Abdullah-88/NiNformer, `ninformer.py` and `train.py`. Siblings of
//! the same author with another gate: Abdullah-88/Fourier_NiNformer and Abdullah-88/ShortConv_NiNformer (no papers).
//! No weights are published, and no accuracy stands in the repositories.
//!
//! The published scripts train on CIFAR-10; the CIFAR-100 and MNIST variants differ in classes and input only and are
//! ours. NiNformer's gate has the number of tokens in its parameters, its siblings' have not.
//!
//! The official evaluation of NiNformer and Fourier NiNformer also crops (32, padding 4) and flips test images at
//! random; the preprocessing here does not. The official Fourier gate computes in float32 whatever the input is; this
//! one follows the input.

use crate::token_net::{
    EPS, FeedForward, HIDDEN, Input, TokenBlock, TokenNet, WIDTH, feed_forward, preprocessing,
    tokens_of,
};
use crate::{Backbone, BuildOptions, Variant};
use tch::{Tensor, nn};
use zoo_ops::taps::Tap;
use zoo_ops::{Activation, CausalConv, FourierMix, LayerNorm, Linear, Mlp};

/// Which network makes the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateKind {
    /// An MLP-Mixer block.
    Mixer,
    /// The real part of a two-dimensional Fourier transform.
    Fourier,
    /// A short causal convolution and a gated linear unit.
    ShortConv,
}

/// What tells the variants apart.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The gate.
    pub gate: GateKind,
    /// Channels of the input.
    pub input_channels: i64,
}

impl Config {
    /// For RGB images.
    pub const fn rgb(gate: GateKind) -> Self {
        Config {
            gate,
            input_channels: 3,
        }
    }

    /// For grey images.
    pub const fn grey(gate: GateKind) -> Self {
        Config {
            gate,
            input_channels: 1,
        }
    }
}

/// t = n + mlp over tokens(LN n), then t + mlp over channels(LN t): unbounded, no sigmoid follows.
#[derive(Debug)]
struct MixerGate {
    token_norm: LayerNorm,
    token_mlp: Mlp,
    channel_norm: LayerNorm,
    channel_mlp: Mlp,
}

impl MixerGate {
    fn new(p: &nn::Path, tokens: i64) -> Self {
        let (token, channel) = (p / "token_mix", p / "channel_mix");
        MixerGate {
            token_norm: LayerNorm::new(&token / 0, WIDTH, EPS),
            token_mlp: feed_forward(&(&token / 2), tokens),
            channel_norm: LayerNorm::new(&channel / 0, WIDTH, EPS),
            channel_mlp: feed_forward(&(&channel / 1), WIDTH),
        }
    }

    fn forward(&self, n: &Tensor) -> Tensor {
        let across = self.token_norm.forward(n).transpose(1, 2);
        let t = n + self.token_mlp.forward(&across).transpose(1, 2);
        self.channel_mlp
            .forward_add(&self.channel_norm.forward(&t), &t)
    }

    /// The token norm stays: the perceptron behind it runs along the other axis.
    fn fuse(&mut self) {
        self.token_mlp.fuse();
        self.channel_mlp.fold_norm(&mut self.channel_norm);
        self.channel_mlp.fuse();
    }
}

/// Wo(gelu(Wg c) * Wv c) of c = the last four tokens of LN n, weighted channel by channel. No residual inside.
#[derive(Debug)]
struct ShortConvGate {
    norm: LayerNorm,
    short_conv: CausalConv,
    gate_proj: Linear,
    value_proj: Linear,
    out_proj: Linear,
}

impl ShortConvGate {
    fn new(p: &nn::Path) -> Self {
        let linear = |name, inputs, out| Linear::new(p / name, inputs, out, false);
        ShortConvGate {
            norm: LayerNorm::new(p / "norm", WIDTH, EPS),
            short_conv: CausalConv::new(&(p / "short_conv"), WIDTH, 4),
            gate_proj: linear("gate_proj", WIDTH, HIDDEN),
            value_proj: linear("value_proj", WIDTH, HIDDEN),
            out_proj: linear("out_proj", HIDDEN, WIDTH),
        }
    }

    fn forward(&self, n: &Tensor) -> Tensor {
        let c = self.short_conv.forward(&self.norm.forward(n));
        let gate = self.gate_proj.forward_then(&c, Activation::Gelu);
        self.out_proj.forward(&(gate * self.value_proj.forward(&c)))
    }

    /// The norm stays: the zeros in front of the first token are not normalised.
    fn fuse(&mut self) {
        self.short_conv.fuse();
        self.gate_proj.fuse();
        self.value_proj.fuse();
        self.out_proj.fuse();
    }
}

/// The network that makes the gate, [B, N, 256] to the same shape.
#[derive(Debug)]
enum Gate {
    Mixer(Box<MixerGate>),
    Fourier(FourierMix),
    ShortConv(Box<ShortConvGate>),
}

impl Gate {
    /// `p` is the unit's path, `mgu`.
    fn new(p: &nn::Path, kind: GateKind, tokens: i64) -> Self {
        let mixer = p / "Mixer";
        match kind {
            GateKind::Mixer => Gate::Mixer(Box::new(MixerGate::new(&mixer, tokens))),
            GateKind::Fourier => Gate::Fourier(FourierMix::new(tokens, WIDTH)),
            GateKind::ShortConv => Gate::ShortConv(Box::new(ShortConvGate::new(&mixer))),
        }
    }

    fn forward(&self, n: &Tensor) -> Tensor {
        match self {
            Gate::Mixer(gate) => gate.forward(n),
            Gate::Fourier(gate) => gate.forward(n),
            Gate::ShortConv(gate) => gate.forward(n),
        }
    }

    fn fuse(&mut self) {
        match self {
            Gate::Mixer(gate) => gate.fuse(),
            Gate::Fourier(_) => {}
            Gate::ShortConv(gate) => gate.fuse(),
        }
    }
}

/// n = norm x; x + proj n * gate(n); then x + ffn(norm x) with the same norm.
#[derive(Debug)]
struct Block {
    norm: LayerNorm,
    gate: Gate,
    proj: Linear,
    ffn: FeedForward,
    norm_first_use: Tap,
    gate_signal: Tap,
    unit_out: Tap,
}

impl Block {
    fn new(p: &nn::Path, index: usize, kind: GateKind, tokens: i64) -> Self {
        let unit = p / "mgu";
        let tap = |name| Tap::named(format!("block{index}.{name}"));
        Block {
            norm: LayerNorm::new(p / "norm", WIDTH, EPS),
            gate: Gate::new(&unit, kind, tokens),
            proj: Linear::new(&unit / "proj", WIDTH, WIDTH, true),
            ffn: FeedForward::new(&(p / "ffn")),
            norm_first_use: tap("norm_first_use"),
            gate_signal: tap("gate_signal"),
            unit_out: tap("unit_out"),
        }
    }
}

impl TokenBlock for Block {
    fn forward(&self, x: &Tensor) -> Tensor {
        let n = self.norm.forward(x);
        self.norm_first_use.see(&n);
        let gate = self.gate.forward(&n);
        self.gate_signal.see(&gate);
        let unit = self.proj.forward(&n) * gate;
        self.unit_out.see(&unit);
        self.ffn.forward_add(&(x + unit), &self.norm)
    }

    fn fuse(&mut self) {
        self.gate.fuse();
        self.proj.fuse();
        self.ffn.fuse(&self.norm);
    }
}

/// Builds the network under official names.
pub fn build(p: &nn::Path, config: Config, options: &BuildOptions) -> Box<dyn Backbone> {
    let tokens = tokens_of(options.size);
    let input = Input {
        channels: config.input_channels,
        tokens: (config.gate == GateKind::Mixer).then_some(tokens),
    };
    Box::new(TokenNet::new(p, input, options, |p, i| {
        Block::new(p, i, config.gate, tokens)
    }))
}

const fn variant(name: &'static str, classes: i64, params: u64) -> Variant {
    Variant {
        name,
        aliases: &[],
        family: "ninformer",
        classes,
        params,
        preprocessing: preprocessing(32, "Abdullah-88/NiNformer train.py"),
        reported: &[],
        weights: &[],
        key_maps: &[],
        build: |p, o| build(p, Config::rgb(GateKind::Mixer), o),
    }
}

/// The published networks, and NiNformer for two more data sets of its paper.
pub static VARIANTS: &[Variant] = &[
    variant("ninformer-cifar10", 10, 2_652_170),
    variant("ninformer-cifar100", 100, 2_675_300),
    Variant {
        preprocessing: preprocessing(28, "ours, after Abdullah-88/NiNformer train.py"),
        build: |p, o| build(p, Config::grey(GateKind::Mixer), o),
        ..variant("ninformer-mnist", 10, 2_582_478)
    },
    Variant {
        preprocessing: preprocessing(32, "Abdullah-88/Fourier_NiNformer train.py"),
        build: |p, o| build(p, Config::rgb(GateKind::Fourier), o),
        ..variant("fourier-ninformer-cifar10", 10, 1_331_978)
    },
    Variant {
        preprocessing: preprocessing(32, "Abdullah-88/ShortConv_NiNformer train.py"),
        build: |p, o| build(p, Config::rgb(GateKind::ShortConv), o),
        ..variant("shortconv-ninformer-cifar10", 10, 2_912_010)
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn network(vs: &mut nn::VarStore, config: Config, size: [i64; 2]) -> Box<dyn Backbone> {
        tch::manual_seed(7);
        let options = BuildOptions {
            classes: 3,
            size,
            spiking: Default::default(),
        };
        let net = build(&vs.root(), config, &options);
        vs.double();
        net
    }

    #[test]
    fn only_the_mixer_gate_fixes_the_number_of_tokens() {
        let mut vs = nn::VarStore::new(Device::Cpu);
        let net = network(&mut vs, Config::rgb(GateKind::Mixer), [16, 24]);
        assert!(net.check_input(16, 24).is_ok() && net.check_input(8, 48).is_ok());
        let error = net.check_input(32, 32).expect_err("64 tokens");
        assert!(error.contains("24 patches"), "{error}");
        for kind in [GateKind::Fourier, GateKind::ShortConv] {
            let mut vs = nn::VarStore::new(Device::Cpu);
            let mut net = network(&mut vs, Config::rgb(kind), [16, 24]);
            assert!(net.check_input(16, 25).is_err() && net.check_input(0, 16).is_err());
            assert!(net.check_input(20, 12).is_ok());
            let x = Tensor::randn([2, 3, 20, 12], F64);
            let plain = net.logits(&x);
            tch::no_grad(|| net.fuse());
            let error = (plain - net.logits(&x)).abs().max().double_value(&[]);
            assert!(error < 1e-9, "{kind:?}: {error}");
            assert_eq!(net.stages(&x)[0].size(), [2, WIDTH, 5, 3]);
        }
    }

    #[test]
    fn grey_images_have_one_channel() {
        let mut vs = nn::VarStore::new(Device::Cpu);
        let net = network(&mut vs, Config::grey(GateKind::Mixer), [28, 28]);
        assert_eq!(net.input_channels(), 1);
        assert_eq!(
            net.logits(&Tensor::randn([1, 1, 28, 28], F64)).size(),
            [1, 3]
        );
    }
}
