//! The paper's own family, H0 to H7.

use super::config::stages;
use super::{Attention, Config, QueryWidth, Stem};
use zoo_ops::Activation;

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

impl PaperSizes {
    /// HaloNet-H0.
    pub const H0: Self = PaperSizes {
        output_width: 0.5,
        stage3_blocks: 7,
        ..Self::H1
    };
    /// HaloNet-H1.
    pub const H1: Self = PaperSizes {
        block: 8,
        halo: 3,
        value_width: 1.0,
        output_width: 1.0,
        stage3_blocks: 10,
        final_conv: None,
    };
    /// HaloNet-H2.
    pub const H2: Self = PaperSizes {
        output_width: 1.25,
        stage3_blocks: 11,
        ..Self::H1
    };
    /// HaloNet-H3.
    pub const H3: Self = PaperSizes {
        block: 10,
        output_width: 1.5,
        stage3_blocks: 12,
        final_conv: Some(1024),
        ..Self::H1
    };
    /// HaloNet-H4.
    pub const H4: Self = PaperSizes {
        block: 12,
        halo: 2,
        value_width: 1.0,
        output_width: 3.0,
        stage3_blocks: 12,
        final_conv: Some(1280),
    };
    /// HaloNet-H5.
    pub const H5: Self = PaperSizes {
        block: 14,
        halo: 2,
        value_width: 2.5,
        output_width: 2.0,
        stage3_blocks: 23,
        final_conv: Some(1536),
    };
    /// HaloNet-H6.
    pub const H6: Self = PaperSizes {
        block: 8,
        halo: 4,
        value_width: 3.0,
        output_width: 2.75,
        stage3_blocks: 24,
        final_conv: Some(1536),
    };
    /// HaloNet-H7.
    pub const H7: Self = PaperSizes {
        block: 10,
        halo: 3,
        value_width: 4.0,
        output_width: 3.5,
        stage3_blocks: 26,
        final_conv: Some(2048),
    };
}

impl Config {
    /// One of the paper's H0 to H7 by its own hyper-parameters. Queries and keys keep H1's width, values do not.
    pub fn paper(sizes: PaperSizes) -> Self {
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
