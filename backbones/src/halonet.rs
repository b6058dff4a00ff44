//! HaloNet: bottleneck networks whose 3x3 convolutions give way, in some blocks or all, to blocked local attention.
//!
//! Paper: "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", CVPR 2021, arXiv 2103.12731. There is
//! no official PyTorch code and there are no official weights. The reference is timm, `models/byoanet.py`: its own
//! ResNet- and RegNet-like designs with halo attention in few layers, and one H1. The paper's H0 to H7 are made of the
//! same blocks, after the sizes that public re-implementations agree on; there are no outputs to hold them to.
//!
//! Every map that is attended to must be whole blocks. timm computes whole windows, zero keys beyond the border
//! included. Once fused, this code keeps one zero line for all of them where a map has one or two blocks along a side:
//! of 14 x 14 keys (halo 3) 9 x 9 or 12 x 12 remain, of 12 x 12 (halo 2) 9 x 9 or 11 x 11. The RegNet's strided
//! attention has odd blocks: all its queries are computed, then averaged 2 x 2, here as there.

mod attention;
mod config;
mod input_size;
mod paper;
mod variants;

use crate::{Backbone, BuildOptions, Stage};
use attention::AttentionLayer;
use tch::{Kind, Tensor, nn};
use zoo_ops::taps;
use zoo_ops::{
    Activation, ConvBn, ConvConfig, EfficientChannelAttention, Linear, SqueezeExcite,
    round_channels,
};

pub use config::{Attention, ChannelGate, Config, Middle, QueryWidth, StageConfig, Stem};
pub use paper::PaperSizes;
pub use variants::VARIANTS;

/// timm's `ConvNormAct` without the activation: names `conv` and `bn`.
fn conv_bn(p: &nn::Path, inputs: i64, out: i64, config: ConvConfig) -> ConvBn {
    ConvBn::new(p / "conv", p / "bn", inputs, out, config)
}

/// Squeeze-and-excitation or efficient channel attention, at `attn`.
#[derive(Debug)]
enum Gate {
    SqueezeExcite(Box<SqueezeExcite>),
    Efficient(EfficientChannelAttention),
}

impl Gate {
    fn new(p: nn::Path, width: i64, kind: ChannelGate) -> Option<Self> {
        Some(match kind {
            ChannelGate::None => return None,
            ChannelGate::SqueezeExcite(ratio) => {
                let reduced = round_channels(width as f64 * ratio, 8);
                Gate::SqueezeExcite(Box::new(SqueezeExcite::new(p, width, reduced)))
            }
            ChannelGate::Efficient => Gate::Efficient(EfficientChannelAttention::new(p, width)),
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Gate::SqueezeExcite(gate) => gate.forward(x),
            Gate::Efficient(gate) => gate.forward(x),
        }
    }
}

/// What mixes positions in a block.
#[derive(Debug)]
enum Mixer {
    Conv(ConvBn, Option<Gate>),
    Attention(AttentionLayer),
}

impl Mixer {
    fn forward(&self, x: &Tensor, activation: Activation) -> Tensor {
        match self {
            Mixer::Attention(layer) => layer.forward(x, activation),
            Mixer::Conv(conv, gate) => {
                let x = conv.forward_then(x, activation);
                gate.as_ref()
                    .map_or_else(|| x.shallow_clone(), |g| g.forward(&x))
            }
        }
    }

    fn fuse(&mut self) {
        match self {
            Mixer::Attention(layer) => layer.fuse(),
            Mixer::Conv(conv, gate) => {
                conv.fuse();
                if let Some(Gate::SqueezeExcite(gate)) = gate {
                    gate.fuse();
                }
            }
        }
    }
}

/// What a block adds to its result.
#[derive(Debug)]
enum Shortcut {
    Identity,
    Projection(Box<ConvBn>),
    Nothing,
}

/// 1x1, mixer, 1x1, shortcut.
#[derive(Debug)]
struct Block {
    conv1: ConvBn,
    mixer: Mixer,
    conv3: ConvBn,
    shortcut: Shortcut,
    activation: Activation,
    last_activation: Activation,
}

/// Where a block stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    stage: usize,
    inputs: i64,
    stride: i64,
    attends: bool,
}

impl Block {
    fn new(p: &nn::Path, config: &Config, place: Place) -> Self {
        let Place {
            stage,
            inputs,
            stride,
            attends,
        } = place;
        let StageConfig {
            channels,
            attention,
            ..
        } = config.stages[stage];
        let width = config.middle.width(stage, inputs);
        let mixed = if attends {
            attention.output_width(width)
        } else {
            width
        };
        let mixer = if attends {
            let map = config.map_of_stage(stage);
            Mixer::Attention(AttentionLayer::new(p, width, stride, attention, map))
        } else {
            let groups = config.group_width.map_or(1, |w| width / w);
            let conv = ConvConfig::same(3).with_stride(stride).with_groups(groups);
            Mixer::Conv(
                conv_bn(&(p / "conv2_kxk"), width, width, conv),
                Gate::new(p / "attn", width, config.gate),
            )
        };
        let shortcut = match config.middle {
            _ if inputs == channels && stride == 1 => Shortcut::Identity,
            Middle::OfInput(_) => Shortcut::Nothing,
            Middle::Doubling => {
                let strided = ConvConfig::pointwise().with_stride(stride);
                Shortcut::Projection(Box::new(conv_bn(
                    &(p / "shortcut"),
                    inputs,
                    channels,
                    strided,
                )))
            }
        };
        let last_activation = match config.middle {
            Middle::OfInput(_) => Activation::None,
            Middle::Doubling => config.activation,
        };
        let pointwise = ConvConfig::pointwise();
        Block {
            conv1: conv_bn(&(p / "conv1_1x1"), inputs, width, pointwise),
            mixer,
            conv3: conv_bn(&(p / "conv3_1x1"), mixed, channels, pointwise),
            shortcut,
            activation: config.activation,
            last_activation,
        }
    }

    fn forward(&self, x: Tensor) -> Tensor {
        let mixed = self.conv1.forward_then(&x, self.activation);
        let mixed = self.mixer.forward(&mixed, self.activation);
        let last = self.last_activation;
        match &self.shortcut {
            Shortcut::Identity => self.conv3.forward_add(&mixed, x, last),
            Shortcut::Projection(conv) => self.conv3.forward_add(&mixed, conv.forward(&x), last),
            Shortcut::Nothing => self.conv3.forward_then(&mixed, last),
        }
    }

    fn fuse(&mut self) {
        self.conv1.fuse();
        self.mixer.fuse();
        self.conv3.fuse();
        if let Shortcut::Projection(conv) = &mut self.shortcut {
            conv.fuse();
        }
    }
}

/// The network.
#[derive(Debug)]
pub struct Halonet {
    stem: Vec<ConvBn>,
    stages: Vec<Vec<Block>>,
    final_conv: Option<ConvBn>,
    head: Linear,
    config: Config,
}

impl Halonet {
    /// Builds the network under timm's names.
    pub fn new(p: &nn::Path, config: Config, classes: i64) -> Self {
        let (stem, mut channels) = config.stem.build(&(p / "stem"));
        let mut stages = Vec::with_capacity(config.stages.len());
        for (stage, sizes) in config.stages.iter().enumerate() {
            let path = p / "stages" / stage;
            let mut blocks = Vec::with_capacity(sizes.blocks.len());
            for (i, kind) in sizes.blocks.chars().enumerate() {
                let place = Place {
                    stage,
                    inputs: channels,
                    stride: if i == 0 {
                        config.stage_stride(stage)
                    } else {
                        1
                    },
                    attends: kind == 'A',
                };
                blocks.push(Block::new(&(&path / i), &config, place));
                channels = sizes.channels;
            }
            stages.push(blocks);
        }
        let final_conv = config
            .final_conv
            .map(|out| conv_bn(&(p / "final_conv"), channels, out, ConvConfig::pointwise()));
        let features = config.final_conv.unwrap_or(channels);
        Halonet {
            stem,
            stages,
            final_conv,
            head: Linear::new(p / "head" / "fc", features, classes, true),
            config,
        }
    }

    fn run_stem(&self, x: &Tensor) -> Tensor {
        let x = self.stem.iter().fold(x.shallow_clone(), |x, conv| {
            conv.forward_then(&x, self.config.activation)
        });
        match self.config.stem.pools() {
            true => x.max_pool2d(3, 2, 1, 1, false),
            false => x,
        }
    }
}

impl Stem {
    /// The convolutions, and the channels of the last.
    fn build(self, p: &nn::Path) -> (Vec<ConvBn>, i64) {
        let three = |name: &str, inputs, out, stride| {
            conv_bn(
                &(p / name),
                inputs,
                out,
                ConvConfig::same(3).with_stride(stride),
            )
        };
        let tiered = |last| {
            vec![
                three("conv1", 3, 24, 2),
                three("conv2", 24, 32, 1),
                three("conv3", 32, 64, last),
            ]
        };
        match self {
            Stem::Seven => {
                let seven = ConvConfig::same(7).with_stride(2);
                (vec![conv_bn(&(p / "conv1"), 3, 64, seven)], 64)
            }
            Stem::TieredPool => (tiered(1), 64),
            Stem::Tiered => (tiered(2), 64),
            Stem::Three => {
                let strided = ConvConfig::same(3).with_stride(2);
                (vec![conv_bn(p, 3, 32, strided)], 32)
            }
        }
    }
}

impl Backbone for Halonet {
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = self.run_stem(x);
        taps::see("stem", &x);
        let mut maps = Vec::with_capacity(self.stages.len());
        for (i, blocks) in self.stages.iter().enumerate() {
            x = blocks.iter().fold(x, |x, block| block.forward(x));
            taps::see(&format!("stages.{i}"), &x);
            maps.push(x.shallow_clone());
        }
        maps
    }

    fn stage_info(&self) -> Vec<Stage> {
        self.config
            .stages
            .iter()
            .zip([4, 8, 16, 32])
            .map(|(stage, stride)| Stage {
                channels: stage.channels,
                stride,
            })
            .collect()
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let mut last = self.stages(x).pop().expect("four stages");
        if let Some(conv) = &self.final_conv {
            last = conv.forward_then(&last, self.config.activation);
            taps::see("final_conv", &last);
        }
        last.mean_dim([2i64, 3].as_slice(), false, None::<Kind>)
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn fuse(&mut self) {
        self.stem.iter_mut().for_each(ConvBn::fuse);
        self.stages.iter_mut().flatten().for_each(Block::fuse);
        self.final_conv.iter_mut().for_each(ConvBn::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        self.config.check_input([height, width])
    }
}

fn build(p: &nn::Path, config: Config, options: &BuildOptions) -> Box<dyn Backbone> {
    Box::new(Halonet::new(p, config, options.classes))
}
