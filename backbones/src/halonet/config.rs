//! What the variants differ in.

use zoo_ops::{Activation, round_channels};

/// The convolutions before stage 1; the first strides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// 7x7 to 64 channels, max pooling.
    Seven,
    /// 3x3 to 24, 32 and 64 channels, max pooling.
    TieredPool,
    /// 3x3 to 24, 32 and 64 channels, the last strides.
    Tiered,
    /// One 3x3 to 32 channels.
    Three,
}

/// Reweighting of channels behind the 3x3 convolutions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ChannelGate {
    /// None.
    None,
    /// Squeeze-and-excitation through this part of the width.
    SqueezeExcite(f64),
    /// Efficient channel attention.
    Efficient,
}

/// Width of the queries and keys of a head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum QueryWidth {
    /// The heads part the width inside of the block.
    Whole,
    /// This.
    Fixed(i64),
    /// The heads part this much of the width inside of the block, in steps of 8.
    Ratio(f64),
}

/// The attention of a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attention {
    /// Blocked local attention.
    Halo {
        /// Side of a block.
        block: i64,
        /// Pixels around it.
        halo: i64,
        /// Heads.
        heads: i64,
        /// Width of queries and keys.
        queries: QueryWidth,
        /// Width of all values, relative to the width inside of the block.
        values: f64,
    },
    /// Global attention with 4 heads, for the map of one input size.
    Bottleneck,
    /// Lambda layer with 4 heads and a 13x13 receptive field.
    Lambda,
}

/// A stage: `blocks` has a `B` for each convolutional block and an `A` for each with attention; the first strides.
#[derive(Debug, Clone)]
pub struct StageConfig {
    /// Output channels.
    pub channels: i64,
    /// The sequence of blocks.
    pub blocks: String,
    /// What the `A` are.
    pub attention: Attention,
}

/// Width inside of the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middle {
    /// 64, 128, 256, 512 in the four stages; blocks that change shape have a projection as shortcut.
    Doubling,
    /// This multiple of the block's input (RegNet-Z): blocks that change shape have no shortcut, outputs are linear.
    OfInput(i64),
}

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// The convolutions before stage 1.
    pub stem: Stem,
    /// The four stages.
    pub stages: [StageConfig; 4],
    /// Width inside of a block.
    pub middle: Middle,
    /// Channels per group of the 3x3 convolutions.
    pub group_width: Option<i64>,
    /// Behind the 3x3 convolutions.
    pub gate: ChannelGate,
    /// Everywhere but in squeeze-and-excitation.
    pub activation: Activation,
    /// Channels of a last 1x1 convolution.
    pub final_conv: Option<i64>,
    /// Height and width of the inputs for which [`Attention::Bottleneck`] is built.
    pub image: [i64; 2],
}

const fn halo(block: i64, halo: i64, heads: i64) -> Attention {
    Attention::Halo {
        block,
        halo,
        heads,
        queries: QueryWidth::Whole,
        values: 1.0,
    }
}

pub(super) fn stages(
    channels: [i64; 4],
    blocks: [&str; 4],
    attention: [Attention; 4],
) -> [StageConfig; 4] {
    [0, 1, 2, 3].map(|i| StageConfig {
        channels: channels[i],
        blocks: blocks[i].to_owned(),
        attention: attention[i],
    })
}

/// Stage widths of a ResNet-50.
const RESNET: [i64; 4] = [256, 512, 1024, 2048];

impl QueryWidth {
    /// Width of a head's queries in a block of `width` channels.
    pub(super) fn per_head(self, width: i64, heads: i64) -> i64 {
        match self {
            QueryWidth::Whole => width / heads,
            QueryWidth::Fixed(dim) => dim,
            QueryWidth::Ratio(ratio) => {
                let exact = width as f64 * ratio;
                let rounded = round_channels(exact, 8);
                let short = (rounded as f64) < 0.9 * exact;
                (rounded + if short { 8 } else { 0 }) / heads
            }
        }
    }
}

impl Config {
    /// timm's `halonet_h1`.
    pub fn h1() -> Self {
        Config {
            stem: Stem::Seven,
            stages: stages(
                [64, 128, 256, 512],
                ["AAA", "AAA", "AAAAAAAAAA", "AAA"],
                [halo(8, 3, 8); 4],
            ),
            activation: Activation::Relu,
            ..Self::resnet(["", "", "", ""], [halo(8, 3, 8); 4])
        }
    }

    /// timm's `halonet26t`.
    pub fn halonet26t() -> Self {
        Config {
            activation: Activation::Relu,
            ..Self::resnet(["BB", "BB", "BA", "AA"], [halo(8, 2, 8); 4])
        }
    }

    /// timm's `halonet50ts`.
    pub fn halonet50ts() -> Self {
        let (four, eight) = (halo(8, 3, 4), halo(8, 3, 8));
        Self::resnet(["BBB", "BBBA", "BABABA", "BAB"], [four, four, eight, eight])
    }

    /// timm's `sehalonet33ts`.
    pub fn sehalonet33ts() -> Self {
        Config {
            stem: Stem::Tiered,
            stages: stages(
                [256, 512, 1024, 1536],
                ["BB", "BBA", "BBA", "AA"],
                [halo(8, 3, 8); 4],
            ),
            gate: ChannelGate::SqueezeExcite(1.0 / 16.0),
            final_conv: Some(1280),
            ..Self::halonet50ts()
        }
    }

    /// timm's `eca_halonext26ts`.
    pub fn eca_halonext26ts() -> Self {
        let attention = Attention::Halo {
            block: 8,
            halo: 2,
            heads: 8,
            queries: QueryWidth::Fixed(16),
            values: 1.0,
        };
        Config {
            group_width: Some(16),
            gate: ChannelGate::Efficient,
            ..Self::resnet(["BB", "BB", "BA", "AA"], [attention; 4])
        }
    }

    /// timm's `haloregnetz_b`.
    pub fn haloregnetz_b() -> Self {
        let attention = Attention::Halo {
            block: 7,
            halo: 2,
            heads: 8,
            queries: QueryWidth::Ratio(0.33),
            values: 1.0,
        };
        Config {
            stem: Stem::Three,
            stages: stages(
                [48, 96, 192, 288],
                ["BB", "BBBBBB", "BBBABBBABBBA", "AA"],
                [attention; 4],
            ),
            middle: Middle::OfInput(3),
            group_width: Some(16),
            gate: ChannelGate::SqueezeExcite(0.25),
            activation: Activation::Silu,
            final_conv: Some(1536),
            image: [224, 224],
        }
    }

    /// timm's `halo2botnet50ts_256`, for inputs of this height and width.
    pub fn halo2botnet50ts(image: [i64; 2]) -> Self {
        let local = halo(8, 3, 8);
        Self::hybrid(image, [local, local, local, Attention::Bottleneck])
    }

    /// timm's `lamhalobotnet50ts_256`, for inputs of this height and width.
    pub fn lamhalobotnet50ts(image: [i64; 2]) -> Self {
        let (lambda, local) = (Attention::Lambda, halo(8, 3, 8));
        Self::hybrid(image, [lambda, lambda, local, Attention::Bottleneck])
    }

    fn hybrid(image: [i64; 2], attention: [Attention; 4]) -> Self {
        Config {
            stem: Stem::Tiered,
            image,
            ..Self::resnet(["BBB", "BABA", "BABABA", "BAB"], attention)
        }
    }

    fn resnet(blocks: [&str; 4], attention: [Attention; 4]) -> Self {
        Config {
            stem: Stem::TieredPool,
            stages: stages(RESNET, blocks, attention),
            middle: Middle::Doubling,
            group_width: None,
            gate: ChannelGate::None,
            activation: Activation::Silu,
            final_conv: None,
            image: [256, 256],
        }
    }
}

impl Stem {
    /// Whether a max pooling follows.
    pub(super) fn pools(self) -> bool {
        matches!(self, Stem::Seven | Stem::TieredPool)
    }

    /// Input pixels per pixel of the stem's map.
    pub(super) fn stride(self) -> i64 {
        if self == Stem::Three { 2 } else { 4 }
    }
}

impl Middle {
    /// Channels inside of a block of `stage` (from 0) that sees `inputs` channels.
    pub(super) fn width(self, stage: usize, inputs: i64) -> i64 {
        match self {
            Middle::Doubling => 64 << stage,
            Middle::OfInput(factor) => factor * inputs,
        }
    }
}

impl Attention {
    /// Channels of the result on `width` channels.
    pub(super) fn output_width(self, width: i64) -> i64 {
        match self {
            Attention::Halo { values, .. } => (width as f64 * values) as i64,
            Attention::Bottleneck | Attention::Lambda => width,
        }
    }
}

impl Config {
    /// Stride of a stage's first block.
    pub(super) fn stage_stride(&self, stage: usize) -> i64 {
        if stage == 0 {
            4 / self.stem.stride()
        } else {
            2
        }
    }

    /// Height and width of a stage's maps for inputs of the size that the variant is built for.
    pub(super) fn map_of_stage(&self, stage: usize) -> [i64; 2] {
        self.image.map(|side| side / (4 << stage))
    }
}
