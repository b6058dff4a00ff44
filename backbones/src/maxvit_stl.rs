//! MaxViT-STL: the baseline of BiFormer's ablation, MaxViT's window and grid attention in Swin-T's layout.
//!
//! Attention: "MaxViT: Multi-Axis Vision Transformer", ECCV 2022, arXiv 2204.01697. The network: "BiFormer", CVPR 2023,
//! arXiv 2303.08810; official code: rayleizhu/BiFormer, `models/maxvit_stl.py` over timm's `Attention2d`.
//!
//! Maps whose sides are no multiple of 7 are padded with zeros after the norm (the official `auto_pad`); the padding
//! takes part in the attention.

use crate::biformer::{image, tokens};
use crate::variant::IMAGENET;
use crate::{Backbone, BuildOptions, Interpolation, Preprocessing, Stage, Variant};
use tch::{Kind, Tensor, nn};
use zoo_ops::taps::{self, Tap};
use zoo_ops::{
    Activation, Conv2d, ConvConfig, Derived, GroupedAttention, LayerNorm, Linear, Regions, crop,
};

/// Side of a window, and of a grid.
const WINDOW: i64 = 7;
const HEAD_DIM: i64 = 32;
const DEPTH: [usize; 4] = [2, 2, 6, 2];
const EMBED_DIM: [i64; 4] = [96, 192, 384, 768];
const MLP_RATIO: i64 = 4;

/// Attention inside of 7x7 windows (even blocks) or of 7x7 grids spread over the map (odd blocks).
#[derive(Debug)]
struct PartitionAttention {
    qkv: Linear,
    proj: Linear,
    /// [heads, 13, 13]: one value per distance from query to key.
    table: Tensor,
    /// The table for each pair of tokens, once the weights are final.
    bias: Option<Derived>,
    heads: i64,
    spread: bool,
    out: Tap,
}

impl PartitionAttention {
    /// At `block`.attn.
    fn new(block: &nn::Path, channels: i64, spread: bool) -> Self {
        let p = block / "attn";
        let heads = channels / HEAD_DIM;
        let distances = 2 * WINDOW - 1;
        let shape = [heads, distances, distances];
        let position = &p / "rel_pos";
        PartitionAttention {
            qkv: Linear::pointwise(&p / "qkv", channels, 3 * channels, true),
            proj: Linear::pointwise(&p / "proj", channels, channels, true),
            table: position.zeros("relative_position_bias_table", &shape),
            bias: None,
            heads,
            spread,
            out: Tap::new(block, "attn"),
        }
    }

    /// [B, H, W, C] to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        let map = [x.size()[1], x.size()[2]];
        let regions = Regions::of_size(map, [WINDOW; 2]);
        let regions = if self.spread {
            regions.spread()
        } else {
            regions
        };
        let qkv = self.qkv.forward(&regions.pad(x)).chunk(3, -1);
        let attention = GroupedAttention {
            regions,
            heads: self.heads,
            scale: (HEAD_DIM as f64).powf(-0.5),
            fused: self.bias.is_some(),
        };
        let bias = match &self.bias {
            Some(bias) => bias.like(x),
            None => self.pairwise(),
        };
        let out = attention.forward_biased(&qkv[0], &qkv[1], &qkv[2], &bias);
        if taps::recording() {
            let windows = regions.partition(&self.proj.forward(&out));
            let windows = windows.flatten(0, 1).unflatten(1, [WINDOW; 2]);
            self.out.see(&image(&windows));
        }
        self.proj.forward(&crop(&out, map))
    }

    /// The bias of each pair, [heads, queries, keys]: the entry at key - query + 6 on each axis.
    fn pairwise(&self) -> Tensor {
        let from_query = self.table.unfold(1, WINDOW, 1).unfold(2, WINDOW, 1);
        from_query.flip([1, 2]).flatten(3, 4).flatten(1, 2)
    }

    fn fuse(&mut self) {
        let queries_inside = self.pairwise().transpose(1, 2).contiguous();
        self.bias = Some(Derived::new(queries_inside.transpose(1, 2)));
        self.qkv.fuse();
        self.proj.fuse();
    }
}

/// Attention and feed-forward, both residual.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: PartitionAttention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(p: &nn::Path, channels: i64, spread: bool) -> Self {
        let hidden = MLP_RATIO * channels;
        Block {
            norm1: LayerNorm::new(p / "norm1", channels, 1e-5),
            attn: PartitionAttention::new(p, channels, spread),
            norm2: LayerNorm::new(p / "norm2", channels, 1e-5),
            fc1: Linear::pointwise(p / "mlp" / "fc1", channels, hidden, true),
            fc2: Linear::pointwise(p / "mlp" / "fc2", hidden, channels, true),
        }
    }

    /// [B, H, W, C] to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attn.forward(&self.norm1.forward(x));
        let hidden = self
            .fc1
            .forward_then(&self.norm2.forward(&x), Activation::Gelu);
        &x + self.fc2.forward(&hidden)
    }

    fn fuse(&mut self) {
        self.attn.fuse();
        self.fc1.fuse();
        self.fc2.fuse();
    }
}

/// A convolution without overlap and a norm: the norm behind the first one, in front of the others.
#[derive(Debug)]
struct Downsample {
    conv: Conv2d,
    norm: LayerNorm,
    norm_first: bool,
}

impl Downsample {
    fn new(p: &nn::Path, stage: usize) -> Self {
        let out = EMBED_DIM[stage];
        if stage == 0 {
            return Downsample {
                conv: Conv2d::new(p / 0, 3, out, ConvConfig::patches(4)),
                norm: LayerNorm::new(p / 1, out, 1e-6),
                norm_first: false,
            };
        }
        let inputs = EMBED_DIM[stage - 1];
        Downsample {
            conv: Conv2d::new(p / 1, inputs, out, ConvConfig::patches(2)),
            norm: LayerNorm::new(p / 0, inputs, 1e-6),
            norm_first: true,
        }
    }

    /// [B, C, H, W] to [B, C', H', W'].
    fn forward(&self, x: &Tensor) -> Tensor {
        let norm = |x: &Tensor| image(&self.norm.forward(&tokens(x)));
        if self.norm_first {
            self.conv.forward(&norm(x))
        } else {
            norm(&self.conv.forward(x))
        }
    }
}

/// The network.
#[derive(Debug)]
pub struct MaxVitStl {
    stages: Vec<(Downsample, Vec<Block>)>,
    norm: LayerNorm,
    head: Linear,
}

impl MaxVitStl {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, classes: i64) -> Self {
        let stage = |i: usize| {
            let blocks = p / "stages" / i / "blocks";
            let block = |j: usize| Block::new(&(&blocks / j), EMBED_DIM[i], j % 2 == 1);
            let downsample = Downsample::new(&(p / "downsample_layers" / i), i);
            (downsample, (0..DEPTH[i]).map(block).collect())
        };
        let [.., width] = EMBED_DIM;
        MaxVitStl {
            stages: (0..4).map(stage).collect(),
            norm: LayerNorm::new(p / "norm", width, 1e-6),
            head: Linear::new(p / "head", width, classes, true),
        }
    }
}

impl Backbone for MaxVitStl {
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = x.shallow_clone();
        let mut maps = Vec::with_capacity(self.stages.len());
        for (i, (downsample, blocks)) in self.stages.iter().enumerate() {
            x = downsample.forward(&x);
            taps::see(&format!("downsample_layers.{i}"), &x);
            let out = blocks.iter().fold(tokens(&x), |x, block| block.forward(&x));
            x = image(&out);
            taps::see(&format!("stages.{i}"), &x);
            maps.push(x.shallow_clone());
        }
        maps
    }

    fn stage_info(&self) -> Vec<Stage> {
        EMBED_DIM
            .iter()
            .zip([4, 8, 16, 32])
            .map(|(&channels, stride)| Stage { channels, stride })
            .collect()
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let maps = self.stages(x);
        let last = maps.last().expect("four stages");
        let normed = self.norm.forward(&tokens(last));
        normed.mean_dim([1i64, 2].as_slice(), false, None::<Kind>)
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn fuse(&mut self) {
        for (downsample, blocks) in &mut self.stages {
            downsample.conv.fuse();
            blocks.iter_mut().for_each(Block::fuse);
        }
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if height >= 32 && width >= 32 {
            return Ok(());
        }
        Err(format!(
            "MaxViT-STL takes any size from 32x32, not {height}x{width}"
        ))
    }
}

/// The baseline; its authors report neither accuracy nor weights.
pub static VARIANTS: &[Variant] = &[Variant {
    name: "maxvit-stl",
    aliases: &[],
    family: "biformer",
    classes: 1000,
    params: 28_285_666,
    preprocessing: Preprocessing {
        size: (224, 224),
        crop_pct: 0.875,
        interpolation: Interpolation::Bicubic,
        mean: IMAGENET.0,
        std: IMAGENET.1,
        source: "rayleizhu/BiFormer main.py",
    },
    reported: &[],
    weights: &[],
    key_maps: &[],
    build: |p: &nn::Path, o: &BuildOptions| Box::new(MaxVitStl::new(p, o.classes)),
}];
