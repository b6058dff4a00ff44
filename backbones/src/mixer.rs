//! MLP-Mixer: one perceptron over tokens, one over channels, in turn.
//!
//! Paper: "MLP-Mixer: An all-MLP Architecture for Vision", arXiv 2105.01601. Reference code: timm `models/mlp_mixer.py`,
//! whose names these are. No class token and no positions; the number of tokens is in the parameters, so the input
//! size is fixed when the network is built.
//!
//! There is one stage: the tokens behind the last block, before the final norm.

use crate::{Backbone, Interpolation, Preprocessing, Reported, Stage, Variant, WeightFile};
use tch::{Kind, Tensor, nn};
use zoo_ops::taps::{self, Tap};
use zoo_ops::{Conv2d, ConvConfig, LayerNorm, Linear, Mlp};

/// Side of a patch in pixels.
const PATCH: i64 = 16;
/// Every norm's epsilon.
const EPS: f64 = 1e-6;

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Channels of a token.
    pub width: i64,
    /// Blocks.
    pub depth: usize,
    /// Hidden width of the perceptron over tokens.
    pub token_hidden: i64,
    /// Hidden width of the perceptron over channels.
    pub channel_hidden: i64,
    /// Height and width of the input in pixels.
    pub image: [i64; 2],
}

impl Config {
    /// Mixer-B/16.
    pub fn b16() -> Self {
        Config {
            width: 768,
            depth: 12,
            token_hidden: 384,
            channel_hidden: 3072,
            image: [224; 2],
        }
    }

    fn grid(&self) -> [i64; 2] {
        self.image.map(|n| n / PATCH)
    }
}

/// x + tokens' mlp(norm1 x), then x + channels' mlp(norm2 x).
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    mlp_tokens: Mlp,
    norm2: LayerNorm,
    mlp_channels: Mlp,
    tokens_out: Tap,
}

impl Block {
    fn new(p: &nn::Path, index: usize, config: &Config) -> Self {
        let [height, width] = config.grid();
        let channels = config.width;
        Block {
            norm1: LayerNorm::new(p / "norm1", channels, EPS),
            mlp_tokens: Mlp::new(&(p / "mlp_tokens"), height * width, config.token_hidden),
            norm2: LayerNorm::new(p / "norm2", channels, EPS),
            mlp_channels: Mlp::new(&(p / "mlp_channels"), channels, config.channel_hidden),
            tokens_out: Tap::named(format!("block{index}.mlp_tokens_out")),
        }
    }

    /// Tokens [B, N, C] to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        let across = self.norm1.forward(x).transpose(1, 2);
        let mixed = self.mlp_tokens.forward(&across);
        self.tokens_out.see(&mixed);
        let x = x + mixed.transpose(1, 2);
        self.mlp_channels.forward_add(&self.norm2.forward(&x), &x)
    }

    /// norm1 stays: the perceptron behind it runs along the other axis.
    fn fuse(&mut self) {
        self.mlp_tokens.fuse();
        self.mlp_channels.fold_norm(&mut self.norm2);
        self.mlp_channels.fuse();
    }
}

/// The network.
#[derive(Debug)]
pub struct Mixer {
    stem: Conv2d,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    config: Config,
}

impl Mixer {
    /// Builds the network under timm's names.
    pub fn new(p: &nn::Path, config: &Config, classes: i64) -> Self {
        let stem = p / "stem" / "proj";
        let blocks = p / "blocks";
        Mixer {
            stem: Conv2d::new(stem, 3, config.width, ConvConfig::patches(PATCH)),
            blocks: (0..config.depth)
                .map(|i| Block::new(&(&blocks / i), i, config))
                .collect(),
            norm: LayerNorm::new(p / "norm", config.width, EPS),
            head: Linear::new(p / "head", config.width, classes, true),
            config: config.clone(),
        }
    }

    /// Tokens [B, N, C] behind the last block.
    fn tokens(&self, x: &Tensor) -> Tensor {
        let mut tokens = self.stem.forward(x).flatten(2, -1).transpose(1, 2);
        taps::see("embed", &tokens);
        for (i, block) in self.blocks.iter().enumerate() {
            tokens = block.forward(&tokens);
            taps::see(&format!("stages.{i}"), &tokens);
        }
        tokens
    }
}

impl Backbone for Mixer {
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let tokens = self.tokens(x).transpose(1, 2);
        vec![tokens.unflatten(2, self.config.grid())]
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.config.width,
            stride: PATCH,
        }]
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let tokens = self.norm.forward(&self.tokens(x));
        let pooled = tokens.mean_dim(1, false, None::<Kind>);
        taps::see("pooled", &pooled);
        pooled
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn fuse(&mut self) {
        self.stem.fuse();
        self.blocks.iter_mut().for_each(Block::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if [height, width] == self.config.image {
            return Ok(());
        }
        let [h, w] = self.config.image;
        Err(format!(
            "this MLP-Mixer takes {h}x{w}, not {height}x{width}: the number of tokens is in its parameters"
        ))
    }
}

const fn mixer(name: &'static str, aliases: &'static [&'static str]) -> Variant {
    Variant {
        name,
        aliases,
        family: "mixer",
        classes: 1000,
        params: 59_880_472,
        preprocessing: Preprocessing {
            size: (224, 224),
            crop_pct: 0.875,
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
            source: "timm pretrained configuration",
        },
        reported: &[],
        weights: &[],
        key_maps: &[],
        build: |p, o| Box::new(Mixer::new(p, &Config::b16(), o.classes)),
    }
}

const fn file(url: &'static str) -> WeightFile {
    WeightFile {
        url,
        names: "official",
        licence: "Apache-2.0",
    }
}

/// Mixer-B/16 with Google's weights, and with those of Alibaba MIIL, which want other pixels.
pub static VARIANTS: &[Variant] = &[
    Variant {
        reported: &[Reported::new(
            76.616,
            Some(92.250),
            "timm results-imagenet.csv (goog_in21k_ft_in1k)",
        )],
        weights: &[
            file(
                "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx/jx_mixer_b16_224-76587d61.pth",
            ),
            file(
                "https://huggingface.co/timm/mixer_b16_224.goog_in21k_ft_in1k/resolve/main/model.safetensors",
            ),
        ],
        ..mixer("mixer-b16", &["mixer_b16_224"])
    },
    Variant {
        preprocessing: Preprocessing {
            interpolation: Interpolation::Bilinear,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..mixer("", &[]).preprocessing
        },
        reported: &[Reported::new(
            82.314,
            Some(95.710),
            "timm results-imagenet.csv (miil_in21k_ft_in1k)",
        )],
        weights: &[file(
            "https://huggingface.co/timm/mixer_b16_224.miil_in21k_ft_in1k/resolve/main/model.safetensors",
        )],
        ..mixer(
            "mixer-b16-miil",
            &["mixer_b16_224.miil_in21k_ft_in1k", "mixer_b16_224_miil"],
        )
    },
];
