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

fn stages(channels: [i64; 4], blocks: [&str; 4], attention: [Attention; 4]) -> [StageConfig; 4] {
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

    /// One of the paper's H0 to H7 by its own hyper-parameters. Queries and keys keep H1's width, values do not.
    pub fn paper(sizes: &PaperSizes) -> Self {
        let attention = |heads| Attention::Halo {
            block: sizes.block,
            halo: sizes.halo,
            heads,
            queries: QueryWidth::Whole,
            values: sizes.value_width,
        };
        let third = "A".repeat(sizes.stage3_blocks);
        Config {
            stem: Stem::Seven,
            stages: stages(
                [64, 128, 256, 512].map(|c| (f64::from(c) * sizes.output_width) as i64),
                ["AAA", "AAA", &third, "AAA"],
                [4, 8, 8, 8].map(attention),
            ),
            activation: Activation::Relu,
            final_conv: sizes.final_conv,
            ..Self::h1()
        }
    }
}

/// A row of the paper's table of HaloNets.
#[derive(Debug, Clone, Copy)]
pub struct PaperSizes {
    /// b, side of a block.
    pub block: i64,
    /// h, halo.
    pub halo: i64,
    /// r_v, width of the attention's values relative to H1.
    pub value_width: f64,
    /// r_b, width of the blocks' outputs relative to H1.
    pub output_width: f64,
    /// l_3, blocks of stage 3.
    pub stage3_blocks: usize,
    /// d_f, channels of the last 1x1 convolution.
    pub final_conv: Option<i64>,
}

impl Stem {
    /// Whether a max pooling follows.
    pub(super) fn pools(self) -> bool {
        matches!(self, Stem::Seven | Stem::TieredPool)
    }

    /// Input pixels per pixel of the stem's map.
    fn stride(self) -> i64 {
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

    /// Follows a size through the network; the error names the first attention that can not take its map.
    pub(super) fn check_input(&self, input: [i64; 2]) -> Result<(), String> {
        let [height, width] = input;
        let refuse = |stage: usize, map: [i64; 2], needs: String| {
            Err(format!(
                "the attention of stage {} needs {needs}, and {height}x{width} inputs give it a map of {}x{}",
                stage + 1,
                map[0],
                map[1]
            ))
        };
        if height < 1 || width < 1 {
            return Err(format!("an image of {height}x{width} has no pixels"));
        }
        let halved = |map: [i64; 2]| map.map(|side| (side + 1) / 2);
        let mut map = (0..self.stem.stride().ilog2()).fold(input, |map, _| halved(map));
        for (stage, sizes) in self.stages.iter().enumerate() {
            for (i, kind) in sizes.blocks.chars().enumerate() {
                let strided = i == 0 && self.stage_stride(stage) == 2;
                let mut next = if strided { halved(map) } else { map };
                match sizes.attention {
                    _ if kind != 'A' => {}
                    Attention::Halo { block, .. } => {
                        if map.iter().any(|side| side % block != 0) {
                            let multiple = self.whole_blocks();
                            let needs = format!(
                                "whole blocks of {block}x{block} pixels (multiples of {multiple} always fit)"
                            );
                            return refuse(stage, map, needs);
                        }
                        if strided && block % 2 == 1 {
                            next = map.map(|side| side / 2);
                        }
                    }
                    Attention::Bottleneck => {
                        let [rows, columns] = self.map_of_stage(stage);
                        if map != [rows, columns] {
                            return refuse(stage, map, format!("a map of {rows}x{columns}"));
                        }
                    }
                    Attention::Lambda => {}
                }
                map = next;
            }
        }
        Ok(())
    }

    /// A number of pixels whose multiples are whole blocks everywhere.
    fn whole_blocks(&self) -> i64 {
        let needed = |(stage, sizes): (usize, &StageConfig)| match sizes.attention {
            Attention::Halo { block, .. } if sizes.blocks.contains('A') => {
                let only_first =
                    sizes.blocks.rfind('A') == Some(0) && self.stage_stride(stage) == 2;
                block * if only_first { 2 << stage } else { 4 << stage }
            }
            _ => 1,
        };
        self.stages
            .iter()
            .enumerate()
            .map(needed)
            .max()
            .unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_be_whole_blocks() {
        let resnet = Config::halonet26t();
        assert!(resnet.check_input([256, 512]).is_ok());
        assert!(resnet.check_input([255, 241]).is_ok(), "strides round up");
        let error = resnet.check_input([288, 256]).unwrap_err();
        assert!(
            error.contains("stage 3") && error.contains("18x16"),
            "{error}"
        );
        assert!(error.contains("multiples of 256"), "{error}");
        let regnet = Config::haloregnetz_b();
        assert!(regnet.check_input([448, 224]).is_ok());
        assert!(regnet.check_input([336, 224]).is_err());
        assert!(regnet.check_input([0, 224]).is_err());
    }

    #[test]
    fn global_attention_takes_the_size_it_was_built_for() {
        let square = Config::halo2botnet50ts([256, 256]);
        assert!(square.check_input([256, 256]).is_ok());
        let error = square.check_input([256, 512]).unwrap_err();
        assert!(error.contains("8x8") && error.contains("8x16"), "{error}");
        let wide = Config::lamhalobotnet50ts([256, 512]);
        assert!(wide.check_input([256, 512]).is_ok());
    }
}
