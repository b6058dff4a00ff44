//! The blocks of both branches.

use super::contmix::ContMix;
use super::{Config, EPS};
use tch::{Kind, Tensor, nn};
use zoo_ops::taps::Tap;
use zoo_ops::{
    Activation, Conv2d, ConvBn, ConvConfig, DilatedReparam, GlobalResponseNorm, LayerNorm,
    NormConv, ResidualConv, SqueezeExcite,
};

/// Large kernels of the four stages.
const KERNELS: [i64; 4] = [17, 15, 13, 7];
/// Hidden channels of the feed-forwards in the first and the second branch, as multiples of the width.
const MLP_RATIO: i64 = 4;
const FOCUS_MLP_RATIO: i64 = 3;

pub(super) fn conv_bn(
    p: &nn::Path,
    at: usize,
    inputs: i64,
    out: i64,
    config: ConvConfig,
) -> ConvBn {
    ConvBn::new(p / at, p / (at + 1), inputs, out, config)
}

/// 3x3 of stride 2 and its norm.
pub(super) fn downsample(p: &nn::Path, inputs: i64, out: i64) -> ConvBn {
    conv_bn(p, 0, inputs, out, ConvConfig::same(3).with_stride(2))
}

fn squeeze_excite(p: nn::Path, channels: i64) -> SqueezeExcite {
    let (fc1, fc2) = (&p / "proj" / 1, &p / "proj" / 3);
    let widths = [channels, (channels / 8).max(16)];
    SqueezeExcite::with_names(fc1, fc2, widths, Activation::Gelu)
}
/// x * weight + bias for each channel, both learnt. Names: `weight` [C, 1, 1, 1], `bias` [C].
#[derive(Debug)]
pub(super) struct LayerScale {
    weight: Tensor,
    bias: Tensor,
    bias_folded: bool,
}

impl LayerScale {
    pub(super) fn new(p: nn::Path, channels: i64) -> Self {
        LayerScale {
            weight: p.ones("weight", &[channels, 1, 1, 1]),
            bias: p.zeros("bias", &[channels]),
            bias_folded: false,
        }
    }

    fn weight(&self) -> Tensor {
        self.weight.transpose(0, 1)
    }

    /// `y` + the scaled `x`.
    pub(super) fn add(&self, y: &Tensor, x: &Tensor) -> Tensor {
        let sum = y.addcmul(x, &self.weight());
        if self.bias_folded {
            sum
        } else {
            sum + self.bias.reshape([1, -1, 1, 1])
        }
    }

    /// Moves all of it into the convolution in front.
    pub(super) fn fold_into(self, conv: &mut Conv2d) {
        let double = |t: &Tensor| t.detach().to_kind(Kind::Double).flatten(0, -1);
        conv.fold_output(&double(&self.weight), &double(&self.bias));
    }

    /// Moves the bias into the convolution whose output is added.
    fn fold_bias_into(&mut self, conv: &mut Conv2d) {
        let bias = self.bias.detach().to_kind(Kind::Double);
        conv.fold_output(&bias.ones_like(), &bias);
        self.bias_folded = true;
    }
}

/// 1x1, GELU, residual 3x3, global response norm, 1x1.
#[derive(Debug)]
struct FeedForward {
    expand: Conv2d,
    conv: ResidualConv,
    norm: GlobalResponseNorm,
    reduce: Conv2d,
}

impl FeedForward {
    /// Its layers have the numbers `first`, + 2, + 3 and + 4 below `p`.
    fn new(p: &nn::Path, first: usize, [inputs, hidden, out]: [i64; 3]) -> Self {
        let pointwise = ConvConfig::pointwise().with_bias();
        FeedForward {
            expand: Conv2d::new(p / first, inputs, hidden, pointwise),
            conv: ResidualConv::new(p / (first + 2), hidden, 3),
            norm: GlobalResponseNorm::new(p / (first + 3), hidden),
            reduce: Conv2d::new(p / (first + 4), hidden, out, pointwise),
        }
    }

    fn forward_add(&self, x: &Tensor, residual: Tensor) -> Tensor {
        self.reduce
            .forward_add(&self.hidden(x), residual, Activation::None)
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.reduce.forward(&self.hidden(x))
    }

    fn hidden(&self, x: &Tensor) -> Tensor {
        let hidden = self.expand.forward_then(x, Activation::Gelu);
        self.norm.forward(&self.conv.forward(&hidden))
    }

    fn fuse(&mut self) {
        self.norm.fold_into_conv(&mut self.reduce);
        self.expand.fuse();
        self.conv.fuse();
        self.reduce.fuse();
    }
}

/// Block of the base and overview stages: a large kernel inside an inverted bottleneck.
#[derive(Debug)]
pub(super) struct RepConvBlock {
    dwconv: ResidualConv,
    norm: LayerNorm,
    large: DilatedReparam,
    se: SqueezeExcite,
    mlp: FeedForward,
    shortcut: Option<LayerScale>,
    out: Tap,
}

impl RepConvBlock {
    pub(super) fn new(p: &nn::Path, config: &Config, stage: usize) -> Self {
        let width = config.embed_dim[stage];
        let proj = p / "proj";
        RepConvBlock {
            dwconv: ResidualConv::new(p / "dwconv", width, 3),
            norm: LayerNorm::new(&proj / 0, width, EPS),
            large: DilatedReparam::new(
                &proj / 1,
                &proj / 2,
                [width, KERNELS[stage]],
                config.branches,
            ),
            se: squeeze_excite(&proj / 3, width),
            mlp: FeedForward::new(&proj, 4, [width, MLP_RATIO * width, width]),
            shortcut: (stage >= 2).then(|| LayerScale::new(p / "ls", width)),
            out: Tap::at(p),
        }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.dwconv.forward(x);
        let y = self.large.forward(&self.norm.forward_map(&x));
        let y = self.se.forward(&y);
        let y = match &self.shortcut {
            Some(scale) => scale.add(&self.mlp.forward(&y), &x),
            None => self.mlp.forward_add(&y, x),
        };
        self.out.see(&y);
        y
    }

    pub(super) fn fuse(&mut self) {
        self.dwconv.fuse();
        self.large.fuse();
        self.se.fuse();
        if let Some(scale) = &mut self.shortcut {
            scale.fold_bias_into(&mut self.mlp.reduce);
        }
        self.mlp.fuse();
    }
}

/// Context of a block after the first: its own and the overview's, each scaled.
#[derive(Debug)]
struct ContextScale {
    own: LayerScale,
    overview: LayerScale,
}

impl ContextScale {
    fn new(p: &nn::Path, channels: i64) -> Self {
        ContextScale {
            own: LayerScale::new(p / "x_scale", channels),
            overview: LayerScale::new(p / "h_scale", channels),
        }
    }

    fn forward(&self, context: &Tensor, overview: &Tensor) -> Tensor {
        let bias = (&self.own.bias + &self.overview.bias).reshape([1, -1, 1, 1]);
        let scaled = bias.addcmul(context, &self.own.weight());
        scaled.addcmul(overview, &self.overview.weight())
    }
}

/// Block of the focus stages.
#[derive(Debug)]
struct DynamicConvBlock {
    context_scale: Option<ContextScale>,
    dwconv1: ResidualConv,
    norm1: LayerNorm,
    fusion_conv: ConvBn,
    fusion_proj: Conv2d,
    fusion_norm: GlobalResponseNorm,
    gate: ConvBn,
    lepe: DilatedReparam,
    mixing: ContMix,
    dyconv_proj: ConvBn,
    se: SqueezeExcite,
    proj: NormConv,
    ls1: LayerScale,
    dwconv2: ResidualConv,
    norm2: LayerNorm,
    mlp: FeedForward,
    ls2: LayerScale,
    taps: [Tap; 2],
}

impl DynamicConvBlock {
    fn new(p: &nn::Path, config: &Config, focus: usize, first: bool) -> Self {
        let (width, context) = (config.embed_dim[2 + focus], config.context());
        let (all, kernel) = (width + context, KERNELS[2 + focus]);
        let fusion = p / "fusion";
        let depthwise = ConvConfig::same(3).with_groups(all).with_bias();
        let (pointwise, biased) = (ConvConfig::pointwise(), ConvConfig::pointwise().with_bias());
        let (lepe, proj) = (p / "lepe", p / "proj");
        let hidden = FOCUS_MLP_RATIO * width;
        DynamicConvBlock {
            context_scale: (!first).then(|| ContextScale::new(p, context)),
            dwconv1: ResidualConv::new(p / "dwconv1", all, 3),
            norm1: LayerNorm::new(p / "norm1", all, EPS),
            fusion_conv: conv_bn(&fusion, 0, all, all, depthwise),
            fusion_proj: Conv2d::new(&fusion / 3, all, width, biased),
            fusion_norm: GlobalResponseNorm::new(&fusion / 4, width),
            gate: conv_bn(&(p / "gate"), 0, width, width, pointwise),
            lepe: DilatedReparam::new(&lepe / 0, &lepe / 1, [width, kernel], config.branches),
            mixing: ContMix::new(p, [width, context], config.heads[focus], kernel),
            dyconv_proj: conv_bn(&(p / "dyconv_proj"), 0, width, width, pointwise),
            se: squeeze_excite(p / "se_layer", width),
            proj: NormConv::new(&proj / 0, &proj / 1, width, all, biased),
            ls1: LayerScale::new(p / "ls1", all),
            dwconv2: ResidualConv::new(p / "dwconv2", all, 3),
            norm2: LayerNorm::new(p / "norm2", all, EPS),
            mlp: FeedForward::new(&(p / "mlp"), 0, [all, hidden, all]),
            ls2: LayerScale::new(p / "ls2", all),
            taps: [Tap::at(p), Tap::new(p, "ctx")],
        }
    }

    /// Features [B, d, H, W], context and overview [B, c, H, W] to [B, d + c, H, W].
    fn forward(&self, x: &Tensor, context: &Tensor, overview: &Tensor) -> Tensor {
        let context = match &self.context_scale {
            Some(scale) => scale.forward(context, overview),
            None => context.shallow_clone(),
        };
        let joined = self.dwconv1.forward(&Tensor::cat(&[x, &context], 1));
        let mixed = self.mix(&self.norm1.forward_map(&joined));
        let x = self.dwconv2.forward(&self.ls1.add(&mixed, &joined));
        let out = self.mlp.forward(&self.norm2.forward_map(&x));
        self.ls2.add(&out, &x)
    }

    /// Gated dynamic and static convolution, [B, d + c, H, W] to the same shape.
    fn mix(&self, f: &Tensor) -> Tensor {
        let x = self.fusion_conv.forward_then(f, Activation::Gelu);
        let x = self.fusion_norm.forward(&self.fusion_proj.forward(&x));
        let gate = self.gate.forward_then(&x, Activation::Silu);
        let lepe = self.lepe.forward(&x);
        let mixed = self.mixing.forward(&x, f);
        let sum = self.dyconv_proj.forward_add(&mixed, lepe, Activation::None);
        self.proj.forward(&(gate * self.se.forward(&sum)))
    }

    fn fuse(&mut self) {
        self.dwconv1.fuse();
        self.fusion_conv.fuse();
        self.fusion_proj.fuse();
        self.gate.fuse();
        self.lepe.fuse();
        self.mixing.fuse();
        self.dyconv_proj.fuse();
        self.se.fuse();
        self.ls1.fold_bias_into(self.proj.conv_mut());
        self.proj.fuse();
        self.dwconv2.fuse();
        self.norm2.fold_into_conv(&mut self.mlp.expand);
        self.ls2.fold_bias_into(&mut self.mlp.reduce);
        self.mlp.fuse();
    }
}

/// The blocks of a focus stage.
#[derive(Debug)]
pub(super) struct FocusStage {
    blocks: Vec<DynamicConvBlock>,
    widths: [i64; 2],
}

impl FocusStage {
    pub(super) fn new(p: &nn::Path, config: &Config, focus: usize) -> Self {
        FocusStage {
            blocks: (0..config.focus_depth[focus])
                .map(|j| DynamicConvBlock::new(&(p / j), config, focus, focus == 0 && j == 0))
                .collect(),
            widths: [config.embed_dim[2 + focus], config.context()],
        }
    }

    /// Features and context of the last block, side by side: [B, d + c, H, W].
    pub(super) fn forward(&self, x: &Tensor, context: &Tensor, overview: &Tensor) -> Tensor {
        let mut parts = [x.shallow_clone(), context.shallow_clone()];
        let mut both = None;
        for block in &self.blocks {
            let out = block.forward(&parts[0], &parts[1], overview);
            parts = self.split(&out);
            block.taps[0].see(&parts[0]);
            block.taps[1].see(&parts[1]);
            both = Some(out);
        }
        both.unwrap_or_else(|| Tensor::cat(&parts, 1))
    }

    /// Features and context of [B, d + c, H, W]: views.
    pub(super) fn split(&self, both: &Tensor) -> [Tensor; 2] {
        let [width, context] = self.widths;
        [both.narrow(1, 0, width), both.narrow(1, width, context)]
    }

    pub(super) fn fuse(&mut self) {
        self.blocks.iter_mut().for_each(DynamicConvBlock::fuse);
    }
}
