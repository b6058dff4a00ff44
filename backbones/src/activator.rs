//! Activator: a gated linear unit in the place of attention. For small images.
//!
//! Paper: "Activator: GLU Activation Function as the Core Component of a Vision Transformer", arXiv 2405.15953.
//! Official code: Abdullah-88/Activator, `activator.py`, `activator_only_GEGLU.py` and the two training scripts. No
//! weights are published, and no accuracy stands in the repository.
//!
//! Nothing mixes tokens but the mean at the end: every 4x4 patch is processed alone. Unlike a classical GEGLU this one
//! has a LayerNorm, with the same weights, on both branches. The published scripts train on CIFAR-10; the CIFAR-100
//! variants differ in classes only.

use crate::token_net::{
    EPS, FeedForward, HIDDEN, Input, TokenBlock, TokenNet, WIDTH, preprocessing,
};
use crate::{Backbone, BuildOptions, Variant};
use tch::{Tensor, nn};
use zoo_ops::taps::{self, Tap};
use zoo_ops::{Activation, LayerNorm, Linear};

/// proj_3(LN gelu(proj_1 x) * LN(proj_2 x)), one LN for both.
#[derive(Debug)]
struct GatingUnit {
    proj_1: Linear,
    proj_2: Linear,
    norm: LayerNorm,
    proj_3: Linear,
}

impl GatingUnit {
    fn new(p: &nn::Path) -> Self {
        GatingUnit {
            proj_1: Linear::new(p / "proj_1", WIDTH, HIDDEN, true),
            proj_2: Linear::new(p / "proj_2", WIDTH, HIDDEN, true),
            norm: LayerNorm::new(p / "norm", HIDDEN, EPS),
            proj_3: Linear::new(p / "proj_3", HIDDEN, WIDTH, true),
        }
    }

    /// What `proj_3` takes: [B, N, 256] to [B, N, 512].
    fn gate(&self, n: &Tensor) -> Tensor {
        let u = self.proj_1.forward_then(n, Activation::Gelu);
        let v = self.proj_2.forward(n);
        self.norm.forward(&u) * self.norm.forward(&v)
    }

    /// Takes a copy of the weight and bias of the norm in front.
    fn fuse(&mut self, norm: &LayerNorm) {
        norm.copy_into(&mut self.proj_1);
        norm.copy_into(&mut self.proj_2);
        self.proj_1.fuse();
        self.proj_2.fuse();
        self.proj_3.fuse();
    }
}

/// x + unit(norm x); then, where there is one, x + ffn(norm x) with the same norm.
#[derive(Debug)]
struct Block {
    norm: LayerNorm,
    unit: GatingUnit,
    ffn: Option<FeedForward>,
    fused: bool,
    norm_first_use: Tap,
    unit_out: Tap,
}

impl Block {
    fn new(p: &nn::Path, index: usize, with_ffn: bool) -> Self {
        Block {
            norm: LayerNorm::new(p / "norm", WIDTH, EPS),
            unit: GatingUnit::new(&(p / "actgu")),
            ffn: with_ffn.then(|| FeedForward::new(&(p / "ffn"))),
            fused: false,
            norm_first_use: Tap::named(format!("block{index}.norm_first_use")),
            unit_out: Tap::named(format!("block{index}.unit_out")),
        }
    }
}

impl TokenBlock for Block {
    fn forward(&self, x: &Tensor) -> Tensor {
        let n = if self.fused {
            self.norm.normalise(x)
        } else {
            self.norm.forward(x)
        };
        let gated = self.unit.gate(&n);
        if taps::recording() {
            self.norm_first_use.see(&self.norm.forward(x));
            self.unit_out.see(&self.unit.proj_3.forward(&gated));
        }
        let x = self.unit.proj_3.forward_add(&gated, x);
        match &self.ffn {
            Some(ffn) => ffn.forward_add(&x, &self.norm),
            None => x,
        }
    }

    fn fuse(&mut self) {
        self.unit.fuse(&self.norm);
        if let Some(ffn) = &mut self.ffn {
            ffn.fuse(&self.norm);
        }
        self.fused = true;
    }
}

fn build(p: &nn::Path, with_ffn: bool, options: &BuildOptions) -> Box<dyn Backbone> {
    let input = Input {
        channels: 3,
        tokens: None,
    };
    Box::new(TokenNet::new(p, input, options, |p, i| {
        Block::new(p, i, with_ffn)
    }))
}

const fn variant(name: &'static str, classes: i64, params: u64) -> Variant {
    Variant {
        name,
        aliases: &[],
        family: "activator",
        classes,
        params,
        preprocessing: preprocessing(32, "Abdullah-88/Activator train.py"),
        reported: &[],
        weights: &[],
        key_maps: &[],
        build: |p, o| build(p, true, o),
    }
}

const fn only_geglu(name: &'static str, classes: i64, params: u64) -> Variant {
    Variant {
        build: |p, o| build(p, false, o),
        ..variant(name, classes, params)
    }
}

/// Both forms: with the perceptron, and with the gated unit only.
pub static VARIANTS: &[Variant] = &[
    variant("activator-cifar10", 10, 2_650_890),
    variant("activator-cifar100", 100, 2_674_020),
    only_geglu("activator-only-geglu-cifar10", 10, 1_599_242),
    only_geglu("activator-only-geglu-cifar100", 100, 1_622_372),
];
