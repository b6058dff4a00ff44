//! SHViT: single-head attention on part of the channels, in a memory-efficient macro design.
//!
//! Paper: "SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design", CVPR 2024, arXiv 2401.16456.
//! Official code: ysj9909/SHViT, `model/shvit.py`. Maps are NCHW throughout; any input size works.
//!
//! Where paper and code differ the code is followed: GroupNorm with one group instead of LayerNorm before attention,
//! and a ReLU before the output projection of the attention.

mod variants;

use crate::{Backbone, Stage};
use tch::{Kind, Tensor, nn};
use zoo_ops::taps::{self, Tap};
use zoo_ops::work;
use zoo_ops::{
    Activation, BatchNormLinear, ConvBn, ConvConfig, GroupNorm, SqueezeExcite, round_channels,
};

pub use variants::VARIANTS;

/// Width of queries and keys in every variant.
const QK_DIM: i64 = 16;

/// Sizes of a variant. Stage 1 has no attention.
#[derive(Debug, Clone)]
pub struct Config {
    /// Channels of each stage.
    pub embed_dim: [i64; 3],
    /// Blocks of each stage.
    pub depth: [usize; 3],
    /// Channels that attention sees, in stages 2 and 3.
    pub partial_dim: [i64; 2],
    /// A second head whose logits are averaged with the first's (DeiT distillation).
    pub distilled: bool,
}

impl Config {
    /// SHViT-S1.
    pub fn s1() -> Self {
        Self::plain([128, 224, 320], [2, 4, 5], [48, 68])
    }

    /// SHViT-S2.
    pub fn s2() -> Self {
        Self::plain([128, 308, 448], [2, 4, 5], [66, 96])
    }

    /// SHViT-S3.
    pub fn s3() -> Self {
        Self::plain([192, 352, 448], [3, 5, 5], [75, 96])
    }

    /// SHViT-S4.
    pub fn s4() -> Self {
        Self::plain([224, 336, 448], [4, 7, 6], [72, 96])
    }

    /// The same network with a distillation head.
    pub fn distilled(self) -> Self {
        Config {
            distilled: true,
            ..self
        }
    }

    fn plain(embed_dim: [i64; 3], depth: [usize; 3], partial_dim: [i64; 2]) -> Self {
        Config {
            embed_dim,
            depth,
            partial_dim,
            distilled: false,
        }
    }
}

/// Official `Conv2d_BN`: names `c` and `bn`.
fn conv_bn(p: &nn::Path, inputs: i64, out: i64, config: ConvConfig) -> ConvBn {
    ConvBn::new(p / "c", p / "bn", inputs, out, config)
}

/// x + depthwise 3x3.
#[derive(Debug)]
struct Depthwise {
    conv: ConvBn,
    residual_folded: bool,
}

impl Depthwise {
    fn new(p: &nn::Path, channels: i64) -> Self {
        let config = ConvConfig::same(3).with_groups(channels);
        Depthwise {
            conv: conv_bn(&(p / "m"), channels, channels, config),
            residual_folded: false,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        if self.residual_folded {
            self.conv.forward(x)
        } else {
            self.conv
                .forward_add(x, x.shallow_clone(), Activation::None)
        }
    }

    fn fuse(&mut self) {
        self.conv.fuse();
        self.conv.conv_mut().fold_identity();
        self.residual_folded = true;
    }
}

/// x + pw2(relu(pw1(x))), ratio 2.
#[derive(Debug)]
struct FeedForward {
    pw1: ConvBn,
    pw2: ConvBn,
}

impl FeedForward {
    fn new(p: &nn::Path, channels: i64) -> Self {
        let p = p / "m";
        let hidden = 2 * channels;
        FeedForward {
            pw1: conv_bn(&(&p / "pw1"), channels, hidden, ConvConfig::pointwise()),
            pw2: conv_bn(&(&p / "pw2"), hidden, channels, ConvConfig::pointwise()),
        }
    }

    fn forward(&self, x: Tensor) -> Tensor {
        let hidden = self.pw1.forward_then(&x, Activation::Relu);
        self.pw2.forward_add(&hidden, x, Activation::None)
    }

    fn fuse(&mut self) {
        self.pw1.fuse();
        self.pw2.fuse();
    }
}

/// Single-head self-attention on the first `partial` channels; the others pass by, un-normalised (section 3.2).
#[derive(Debug)]
struct SingleHeadAttention {
    pre_norm: GroupNorm,
    qkv: ConvBn,
    proj: ConvBn,
    channels: i64,
    partial: i64,
    attn: Tap,
    attn_out: Tap,
    out: Tap,
}

impl SingleHeadAttention {
    fn new(p: &nn::Path, channels: i64, partial: i64) -> Self {
        let p = p / "m";
        let qkv = 2 * QK_DIM + partial;
        SingleHeadAttention {
            pre_norm: GroupNorm::new(&p / "pre_norm", 1, partial, 1e-5),
            qkv: conv_bn(&(&p / "qkv"), partial, qkv, ConvConfig::pointwise()),
            proj: conv_bn(
                &(&p / "proj" / 1),
                channels,
                channels,
                ConvConfig::pointwise(),
            ),
            channels,
            partial,
            attn: Tap::new(&p, "attn"),
            attn_out: Tap::new(&p, "attn_out"),
            out: Tap::new(&p, "out"),
        }
    }

    /// [B, C, H, W] to the same shape.
    fn forward(&self, x: Tensor) -> Tensor {
        let joined = {
            let parts = x.split_with_sizes([self.partial, self.channels - self.partial], 1);
            let attended = self.attend(&parts[0]);
            Tensor::cat(&[&attended, &parts[1]], 1).relu()
        };
        if taps::recording() {
            self.out.see(&self.proj.forward(&joined));
        }
        self.proj.forward_add(&joined, x, Activation::None)
    }

    /// [B, partial, H, W] to the same shape: softmax(q^T k / 4) over the keys, applied to v.
    ///
    /// Tokens come before channels in memory, so that channels-last maps need no copies.
    fn attend(&self, x: &Tensor) -> Tensor {
        let (height, width) = (x.size()[2], x.size()[3]);
        let qkv = self.qkv.forward(&self.pre_norm.forward(x));
        let tokens = qkv.flatten(2, -1).transpose(1, 2);
        let qkv = tokens.split_with_sizes([QK_DIM, QK_DIM, self.partial], 2);
        let scores = work::matmul(&qkv[0], &qkv[1].transpose(1, 2)) * (QK_DIM as f64).powf(-0.5);
        let attn = scores.softmax(-1, None::<Kind>);
        self.attn.see(&attn);
        let out = work::matmul(&attn, &qkv[2])
            .transpose(1, 2)
            .unflatten(2, [height, width]);
        self.attn_out.see(&out);
        out
    }

    fn fuse(&mut self) {
        self.qkv.fuse();
        self.proj.fuse();
    }
}

/// Depthwise convolution, attention (stages 2 and 3), feed-forward.
#[derive(Debug)]
struct Block {
    conv: Depthwise,
    mixer: Option<SingleHeadAttention>,
    ffn: FeedForward,
}

impl Block {
    fn new(p: &nn::Path, channels: i64, partial: Option<i64>) -> Self {
        Block {
            conv: Depthwise::new(&(p / "conv"), channels),
            mixer: partial.map(|n| SingleHeadAttention::new(&(p / "mixer"), channels, n)),
            ffn: FeedForward::new(&(p / "ffn"), channels),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.conv.forward(x);
        match &self.mixer {
            Some(mixer) => self.ffn.forward(mixer.forward(x)),
            None => self.ffn.forward(x),
        }
    }

    fn fuse(&mut self) {
        self.conv.fuse();
        if let Some(mixer) = &mut self.mixer {
            mixer.fuse();
        }
        self.ffn.fuse();
    }
}

/// Inverted bottleneck of stride 2 with squeeze-and-excitation; no residual.
#[derive(Debug)]
struct PatchMerging {
    conv1: ConvBn,
    conv2: ConvBn,
    se: SqueezeExcite,
    conv3: ConvBn,
}

impl PatchMerging {
    fn new(p: &nn::Path, inputs: i64, out: i64) -> Self {
        let hidden = 4 * inputs;
        let strided = ConvConfig::same(3).with_stride(2).with_groups(hidden);
        let reduced = round_channels(hidden as f64 / 4.0, 8);
        PatchMerging {
            conv1: conv_bn(&(p / "conv1"), inputs, hidden, ConvConfig::pointwise()),
            conv2: conv_bn(&(p / "conv2"), hidden, hidden, strided),
            se: SqueezeExcite::new(p / "se", hidden, reduced),
            conv3: conv_bn(&(p / "conv3"), hidden, out, ConvConfig::pointwise()),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.conv1.forward_then(x, Activation::Relu);
        let x = self.conv2.forward_then(&x, Activation::Relu);
        self.conv3.forward(&self.se.forward(&x))
    }

    fn fuse(&mut self) {
        self.conv1.fuse();
        self.conv2.fuse();
        self.se.fuse();
        self.conv3.fuse();
    }
}

/// Between stages: convolution and feed-forward at the old width, merging, the same at the new width.
#[derive(Debug)]
struct Downsample {
    before: (Depthwise, FeedForward),
    merging: PatchMerging,
    after: (Depthwise, FeedForward),
}

impl Downsample {
    fn new(stage: &nn::Path, inputs: i64, out: i64) -> Self {
        let pair = |p: nn::Path, channels| {
            (
                Depthwise::new(&(&p / 0), channels),
                FeedForward::new(&(&p / 1), channels),
            )
        };
        Downsample {
            before: pair(stage / 0, inputs),
            merging: PatchMerging::new(&(stage / 1), inputs, out),
            after: pair(stage / 2, out),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.before.1.forward(self.before.0.forward(x));
        let x = self.merging.forward(&x);
        self.after.1.forward(self.after.0.forward(&x))
    }

    fn fuse(&mut self) {
        for (conv, ffn) in [&mut self.before, &mut self.after] {
            conv.fuse();
            ffn.fuse();
        }
        self.merging.fuse();
    }
}

/// One `blocksI` of the official model.
#[derive(Debug)]
struct StageBlocks {
    downsample: Option<Downsample>,
    blocks: Vec<Block>,
}

impl StageBlocks {
    fn new(p: &nn::Path, config: &Config, stage: usize) -> Self {
        let channels = config.embed_dim[stage];
        let downsample =
            (stage > 0).then(|| Downsample::new(p, config.embed_dim[stage - 1], channels));
        let first = if downsample.is_some() { 3 } else { 0 };
        let partial = (stage > 0).then(|| config.partial_dim[stage - 1]);
        let blocks = (first..first + config.depth[stage])
            .map(|j| Block::new(&(p / j), channels, partial))
            .collect();
        StageBlocks { downsample, blocks }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let start = match &self.downsample {
            Some(d) => d.forward(x),
            None => x.shallow_clone(),
        };
        self.blocks.iter().fold(start, |x, b| b.forward(&x))
    }

    fn fuse(&mut self) {
        if let Some(d) = &mut self.downsample {
            d.fuse();
        }
        self.blocks.iter_mut().for_each(Block::fuse);
    }
}

/// The network.
#[derive(Debug)]
pub struct Shvit {
    patch_embed: Vec<ConvBn>,
    stages: Vec<StageBlocks>,
    heads: Vec<BatchNormLinear>,
    embed_dim: [i64; 3],
}

impl Shvit {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: &Config, classes: i64) -> Self {
        let width = config.embed_dim[0];
        let widths = [3, width / 8, width / 4, width / 2, width];
        let strided = ConvConfig::same(3).with_stride(2);
        let embed = p / "patch_embed";
        let heads: &[&str] = if config.distilled {
            &["head", "head_dist"]
        } else {
            &["head"]
        };
        Shvit {
            patch_embed: (0..4)
                .map(|i| conv_bn(&(&embed / (2 * i)), widths[i], widths[i + 1], strided))
                .collect(),
            stages: (0..3)
                .map(|i| StageBlocks::new(&(p / format!("blocks{}", i + 1)), config, i))
                .collect(),
            heads: heads
                .iter()
                .map(|name| {
                    let h = p / *name;
                    BatchNormLinear::new(&h / "bn", &h / "l", config.embed_dim[2], classes)
                })
                .collect(),
            embed_dim: config.embed_dim,
        }
    }

    fn stem(&self, x: &Tensor) -> Tensor {
        let (last, first) = self.patch_embed.split_last().expect("four convolutions");
        let x = first.iter().fold(x.shallow_clone(), |x, conv| {
            conv.forward_then(&x, Activation::Relu)
        });
        last.forward(&x)
    }
}

impl Backbone for Shvit {
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = self.stem(x);
        taps::see("stem", &x);
        let mut maps = Vec::with_capacity(self.stages.len());
        for (i, stage) in self.stages.iter().enumerate() {
            x = stage.forward(&x);
            taps::see(&format!("stages.{i}"), &x);
            maps.push(x.shallow_clone());
        }
        maps
    }

    fn stage_info(&self) -> Vec<Stage> {
        self.embed_dim
            .iter()
            .zip([16, 32, 64])
            .map(|(&channels, stride)| Stage { channels, stride })
            .collect()
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let maps = self.stages(x);
        let last = maps.last().expect("three stages");
        last.mean_dim([2i64, 3].as_slice(), false, None::<Kind>)
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        let logits: Vec<Tensor> = self.heads.iter().map(|h| h.forward(features)).collect();
        match logits.as_slice() {
            [head, dist] => {
                taps::see("head", head);
                taps::see("head_dist", dist);
                (head + dist) / 2.0
            }
            _ => logits.into_iter().next().expect("a head"),
        }
    }

    fn fuse(&mut self) {
        self.patch_embed.iter_mut().for_each(ConvBn::fuse);
        self.stages.iter_mut().for_each(StageBlocks::fuse);
        self.heads.iter_mut().for_each(BatchNormLinear::fuse);
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if height >= 1 && width >= 1 {
            return Ok(());
        }
        Err(format!(
            "SHViT takes any size from 1x1, not {height}x{width}"
        ))
    }
}
