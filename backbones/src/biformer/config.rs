//! Sizes of BiFormer's variants.

use tch::nn;
use zoo_ops::Linear;

/// The three official networks that share the idea.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Overlapping convolutions between stages, depthwise convolutions as position embedding.
    Pyramid,
    /// Swin-T's layout: patches, batch norm before the merging convolution.
    Stl,
    /// The same on 1x1 convolutions; pads queries, keys and values instead of their input.
    StlNchw,
}

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Macro design.
    pub form: Form,
    /// Blocks of each stage.
    pub depth: [usize; 4],
    /// Channels of each stage.
    pub embed_dim: [i64; 4],
    /// Hidden channels of the feed-forward, as a multiple of the stage's.
    pub mlp_ratio: i64,
    /// Regions along each side (the official `n_win`).
    pub regions: i64,
    /// For dense prediction: a norm on each stage's output instead of a head.
    pub dense: bool,
}

impl Config {
    /// BiFormer-T.
    pub fn tiny() -> Self {
        Self::pyramid([2, 2, 8, 2], 64)
    }

    /// BiFormer-S.
    pub fn small() -> Self {
        Self::pyramid([4, 4, 18, 4], 64)
    }

    /// BiFormer-B.
    pub fn base() -> Self {
        Self::pyramid([4, 4, 18, 4], 96)
    }

    /// BiFormer-STL.
    pub fn stl() -> Self {
        Config {
            form: Form::Stl,
            mlp_ratio: 4,
            ..Self::pyramid([2, 2, 6, 2], 96)
        }
    }

    /// BiFormer-STL, the later implementation: another network, not another layout of the same.
    pub fn stl_nchw() -> Self {
        Config {
            form: Form::StlNchw,
            ..Self::stl()
        }
    }

    /// The same without head, for detection (16 `regions` per side) and segmentation (8).
    pub fn dense(self, regions: i64) -> Self {
        Config {
            regions,
            dense: true,
            ..self
        }
    }

    fn pyramid(depth: [usize; 4], width: i64) -> Self {
        Config {
            form: Form::Pyramid,
            depth,
            embed_dim: [1, 2, 4, 8].map(|n| n * width),
            mlp_ratio: 3,
            regions: 7,
            dense: false,
        }
    }
}

impl Form {
    /// A linear layer over the last axis; the later implementation stores it as a 1x1 convolution.
    pub(super) fn linear(self, p: nn::Path, inputs: i64, out: i64, bias: bool) -> Linear {
        match self {
            Form::Pyramid | Form::Stl => Linear::new(p, inputs, out, bias),
            Form::StlNchw => Linear::pointwise(p, inputs, out, bias),
        }
    }

    /// Height or width of the four maps of an image of `size` pixels.
    pub(super) fn map_sizes(self, size: i64) -> [i64; 4] {
        let ceil_half = |n: i64| (n + 1) / 2;
        let (first, half): (i64, fn(i64) -> i64) = match self {
            Form::Pyramid => (ceil_half(ceil_half(size)), |n| (n + 1) / 2),
            Form::Stl | Form::StlNchw => (size / 4, |n| n / 2),
        };
        let second = half(first);
        let third = half(second);
        [first, second, third, half(third)]
    }
}
