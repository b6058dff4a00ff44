//! BiFormer: attention in two levels. Regions choose partner regions, tokens attend to the tokens of those.
//!
//! Paper: "BiFormer: Vision Transformer with Bi-Level Routing Attention", CVPR 2023, arXiv 2303.08810.
//! Official code: rayleizhu/BiFormer, `models/biformer.py` (tiny, small, base), `models/biformer_stl.py` and
//! `models/biformer_stl_nchw.py` (the layout of Swin-T), `object_detection/models_mm/biformer_mm.py` (dense tasks).
//!
//! Where paper and code differ the code is followed: the last stage is plain attention with 8 heads, and routed attention
//! scales by the full width, C^-0.5. Work claimed and executed: the authors' 2.2, 4.5 and 9.8 GFLOPs are the 2.22, 4.46
//! and 9.76 GMACs that sparse attention needs at 224x224, and theirs and ours execute: routed keys are gathered,
//! not masked. At sizes that 7 regions per side do not divide, the padding is computed as well: at 256x128 the
//! routed stages hold 2450, 735 and 294 tokens instead of 2048, 512 and 128.

mod variants;

pub use variants::VARIANTS;

use crate::{Backbone, Stage};
use tch::{Kind, Tensor, nn};
use zoo_ops::routing::{region_logits, top_regions};
use zoo_ops::taps::{self, Tap};
use zoo_ops::{
    Activation, BatchNorm, BatchNormLinear, Conv2d, ConvBn, ConvConfig, GroupedAttention,
    LayerNorm, Linear, Regions, crop,
};

/// Regions that a region sees, in the stages with routing; the last stage has none.
const TOPK: [i64; 3] = [1, 4, 16];
/// Heads of the last stage, whatever its width.
const GLOBAL_HEADS: i64 = 8;
const HEAD_DIM: i64 = 32;
const EPS: f64 = 1e-6;

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
    fn linear(self, p: nn::Path, inputs: i64, out: i64, bias: bool) -> Linear {
        match self {
            Form::Pyramid | Form::Stl => Linear::new(p, inputs, out, bias),
            Form::StlNchw => Linear::pointwise(p, inputs, out, bias),
        }
    }

    /// Height or width of the four maps of an image of `size` pixels.
    fn map_sizes(self, size: i64) -> [i64; 4] {
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

/// [B, C, H, W] to a view [B, H, W, C].
fn tokens(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1])
}

/// [B, H, W, C] to a view [B, C, H, W].
fn image(x: &Tensor) -> Tensor {
    x.permute([0, 3, 1, 2])
}

/// Local enhancement (LePE): a depthwise 5x5 convolution added to the attention's output.
#[derive(Debug)]
struct Lepe(Conv2d);

impl Lepe {
    fn new(p: &nn::Path, channels: i64) -> Self {
        let config = ConvConfig::same(5).with_groups(channels).with_bias();
        Lepe(Conv2d::new(p / "lepe", channels, channels, config))
    }

    /// `attended` + conv(`x`), both [B, H, W, C].
    fn add(&self, x: &Tensor, attended: &Tensor) -> Tensor {
        let sum = self
            .0
            .forward_add(&image(x), &image(attended), Activation::None);
        tokens(&sum)
    }
}

/// Bi-level routing attention (section 3.2).
#[derive(Debug)]
struct RoutedAttention {
    qkv: Linear,
    wo: Linear,
    lepe: Lepe,
    form: Form,
    channels: i64,
    topk: i64,
    regions: i64,
    scale: f64,
    fused: bool,
    routing_logits: Tap,
    routing_index: Tap,
}

impl RoutedAttention {
    fn new(p: &nn::Path, config: &Config, stage: usize) -> Self {
        let (form, channels) = (config.form, config.embed_dim[stage]);
        let (qkv, wo) = match form {
            Form::Pyramid | Form::Stl => (p / "qkv" / "qkv", p / "wo"),
            Form::StlNchw => (p / "qkv_linear", p / "output_linear"),
        };
        RoutedAttention {
            qkv: form.linear(qkv, channels, 3 * channels, true),
            wo: form.linear(wo, channels, channels, true),
            lepe: Lepe::new(p, channels),
            form,
            channels,
            topk: TOPK[stage],
            regions: config.regions,
            scale: (channels as f64).powf(-0.5),
            fused: false,
            routing_logits: Tap::new(p, "routing_logits"),
            routing_index: Tap::new(p, "routing_index"),
        }
    }

    /// [B, H, W, C] to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        let map = [x.size()[1], x.size()[2]];
        let regions = self.regions(map);
        let qkv = match self.form {
            Form::Pyramid | Form::Stl => self.qkv.forward(&regions.pad(x)),
            Form::StlNchw => self.qkv.forward(x),
        };
        let qkv = qkv.chunk(3, -1);
        let index = self.route(&regions, &qkv[0], &qkv[1]);
        let attention = GroupedAttention {
            regions,
            heads: self.channels / HEAD_DIM,
            scale: self.scale,
            fused: self.fused,
        };
        let attended = attention.forward(&qkv[0], &qkv[1], &qkv[2], Some(&index));
        let out = self.lepe.add(&qkv[2], &attended);
        self.wo.forward(&crop(&out, map))
    }

    /// A fixed number of regions; the later implementation fixes their size instead where 7 does not divide the map.
    fn regions(&self, map: [i64; 2]) -> Regions {
        match self.form {
            Form::Pyramid | Form::Stl => Regions::of_count(map, [self.regions; 2]),
            Form::StlNchw => Regions::of_size(map, map.map(|n| n / self.regions)),
        }
    }

    /// The regions that each region sees, [B, regions, topk].
    fn route(&self, regions: &Regions, q: &Tensor, k: &Tensor) -> Tensor {
        let logits = region_logits(&(regions.mean(q) * self.scale), &regions.mean(k));
        self.routing_logits.see(&logits);
        let index = top_regions(&logits, self.topk);
        self.routing_index.see(&index);
        index
    }

    fn fuse(&mut self) {
        let kind = (Kind::Double, self.qkv.device());
        let scale = Tensor::full([self.channels], self.scale, kind);
        let ones = Tensor::ones([2 * self.channels], kind);
        self.qkv.fold_output(&Tensor::cat(&[scale, ones], 0));
        self.scale = 1.0;
        self.fused = true;
        self.qkv.fuse();
        self.wo.fuse();
        self.lepe.0.fuse();
    }
}

/// Attention of the last stage: every token sees every token.
#[derive(Debug)]
struct GlobalAttention {
    qkv: Linear,
    proj: Linear,
    lepe: Lepe,
    form: Form,
    scale: f64,
    fused: bool,
}

impl GlobalAttention {
    fn new(p: &nn::Path, form: Form, channels: i64) -> Self {
        GlobalAttention {
            qkv: form.linear(p / "qkv", channels, 3 * channels, false),
            proj: form.linear(p / "proj", channels, channels, true),
            lepe: Lepe::new(p, channels),
            form,
            scale: ((channels / GLOBAL_HEADS) as f64).powf(-0.5),
            fused: false,
        }
    }

    /// [B, H, W, C] to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        let qkv = self.qkv.forward(x).chunk(3, -1);
        let attention = GroupedAttention {
            regions: Regions::whole([x.size()[1], x.size()[2]]),
            heads: GLOBAL_HEADS,
            scale: self.scale,
            fused: self.fused,
        };
        let attended = attention.forward(&qkv[0], &qkv[1], &qkv[2], None);
        let enhanced = match self.form {
            Form::Pyramid | Form::Stl => x,
            Form::StlNchw => &qkv[2],
        };
        self.proj.forward(&self.lepe.add(enhanced, &attended))
    }

    fn fuse(&mut self) {
        self.fused = true;
        self.qkv.fuse();
        self.proj.fuse();
        self.lepe.0.fuse();
    }
}

#[derive(Debug)]
enum Attention {
    Routed(RoutedAttention),
    Global(GlobalAttention),
}

impl Attention {
    fn new(p: &nn::Path, config: &Config, stage: usize) -> Self {
        if stage < TOPK.len() {
            Attention::Routed(RoutedAttention::new(p, config, stage))
        } else {
            Attention::Global(GlobalAttention::new(
                p,
                config.form,
                config.embed_dim[stage],
            ))
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Attention::Routed(a) => a.forward(x),
            Attention::Global(a) => a.forward(x),
        }
    }

    fn fuse(&mut self) {
        match self {
            Attention::Routed(a) => a.fuse(),
            Attention::Global(a) => a.fuse(),
        }
    }
}

/// x + depthwise 3x3: the position embedding.
#[derive(Debug)]
struct PositionConv {
    conv: Conv2d,
    residual_folded: bool,
}

impl PositionConv {
    fn new(p: nn::Path, channels: i64) -> Self {
        let config = ConvConfig::same(3).with_groups(channels).with_bias();
        PositionConv {
            conv: Conv2d::new(p, channels, channels, config),
            residual_folded: false,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        if self.residual_folded {
            self.conv.forward(x)
        } else {
            self.conv.forward_add(x, x, Activation::None)
        }
    }

    fn fuse(&mut self) {
        self.conv.fold_identity();
        self.conv.fuse();
        self.residual_folded = true;
    }
}

/// Position embedding (pyramid only), attention, feed-forward, all residual.
#[derive(Debug)]
struct Block {
    position: Option<PositionConv>,
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    form: Form,
    attn_out: Tap,
}

impl Block {
    fn new(p: &nn::Path, config: &Config, stage: usize) -> Self {
        let (form, channels) = (config.form, config.embed_dim[stage]);
        let hidden = config.mlp_ratio * channels;
        let pyramid = form == Form::Pyramid;
        let fc2 = p / "mlp" / if pyramid { 3 } else { 2 };
        Block {
            position: pyramid.then(|| PositionConv::new(p / "pos_embed", channels)),
            norm1: LayerNorm::new(p / "norm1", channels, EPS),
            attn: Attention::new(&(p / "attn"), config, stage),
            norm2: LayerNorm::new(p / "norm2", channels, EPS),
            fc1: form.linear(p / "mlp" / 0, channels, hidden, true),
            fc2: form.linear(fc2, hidden, channels, true),
            form,
            attn_out: Tap::new(p, "attn"),
        }
    }

    /// [B, C, H, W] to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = match &self.position {
            Some(position) => tokens(&position.forward(x)),
            None => tokens(x),
        };
        let attended = self.attn.forward(&self.norm1.forward(&x));
        match self.form {
            Form::Pyramid | Form::Stl => self.attn_out.see(&attended),
            Form::StlNchw => self.attn_out.see(&image(&attended)),
        }
        let x = x + attended;
        let hidden = self
            .fc1
            .forward_then(&self.norm2.forward(&x), Activation::Gelu);
        image(&(&x + self.fc2.forward(&hidden)))
    }

    fn fuse(&mut self) {
        if let Some(position) = &mut self.position {
            position.fuse();
        }
        self.attn.fuse();
        self.fc1.fuse();
        self.fc2.fuse();
    }
}

/// A batch norm in front of a merging convolution.
#[derive(Debug)]
struct NormConv {
    norm: Option<BatchNorm>,
    conv: Conv2d,
}

impl NormConv {
    fn new(p: &nn::Path, inputs: i64, out: i64) -> Self {
        NormConv {
            norm: Some(BatchNorm::new(p / 0, inputs, 1e-5)),
            conv: Conv2d::new(p / 1, inputs, out, ConvConfig::patches(2)),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match &self.norm {
            Some(norm) => self.conv.forward(&norm.forward(x)),
            None => self.conv.forward(x),
        }
    }

    fn fuse(&mut self) {
        if let Some(norm) = self.norm.take() {
            let (scale, shift) = norm.scale_shift();
            self.conv.fold_input(&scale, &shift);
        }
        self.conv.fuse();
    }
}

/// What is before a stage.
#[derive(Debug)]
enum Downsample {
    /// One convolution with its norm, or two with GELU between them.
    Convs(Vec<ConvBn>),
    Merge(Box<NormConv>),
}

impl Downsample {
    fn new(p: &nn::Path, config: &Config, stage: usize) -> Self {
        let widths = config.embed_dim;
        let out = widths[stage];
        let strided = ConvConfig::same(3).with_stride(2).with_bias();
        let conv =
            |at: i64, inputs, out, config| ConvBn::new(p / at, p / (at + 1), inputs, out, config);
        match (config.form, stage) {
            (Form::Pyramid, 0) => Downsample::Convs(vec![
                conv(0, 3, out / 2, strided),
                conv(3, out / 2, out, strided),
            ]),
            (Form::Pyramid, _) => Downsample::Convs(vec![conv(0, widths[stage - 1], out, strided)]),
            (Form::Stl | Form::StlNchw, 0) => {
                Downsample::Convs(vec![conv(0, 3, out, ConvConfig::patches(4))])
            }
            (Form::Stl | Form::StlNchw, _) => {
                Downsample::Merge(Box::new(NormConv::new(p, widths[stage - 1], out)))
            }
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Downsample::Convs(convs) => {
                let (last, first) = convs.split_last().expect("a convolution");
                let x = first.iter().fold(x.shallow_clone(), |x, conv| {
                    conv.forward_then(&x, Activation::Gelu)
                });
                last.forward(&x)
            }
            Downsample::Merge(merge) => merge.forward(x),
        }
    }

    fn fuse(&mut self) {
        match self {
            Downsample::Convs(convs) => convs.iter_mut().for_each(ConvBn::fuse),
            Downsample::Merge(merge) => merge.fuse(),
        }
    }
}

/// What is behind the stages.
#[derive(Debug)]
enum Head {
    /// Batch norm and linear layer; the norm commutes with the pooling before it.
    Classifier(BatchNormLinear),
    /// A norm for each stage's map.
    Dense(Vec<LayerNorm>),
}

/// The network.
#[derive(Debug)]
pub struct BiFormer {
    stages: Vec<(Downsample, Vec<Block>)>,
    head: Head,
    config: Config,
}

impl BiFormer {
    /// Builds the network under official names; `classes` does not matter to dense forms.
    pub fn new(p: &nn::Path, config: &Config, classes: i64) -> Self {
        let stage = |i: usize| {
            let blocks = match config.form {
                Form::Pyramid => p / "stages" / i,
                Form::Stl | Form::StlNchw => p / "stages" / i / "blocks",
            };
            let downsample = Downsample::new(&(p / "downsample_layers" / i), config, i);
            let blocks = (0..config.depth[i]).map(|j| Block::new(&(&blocks / j), config, i));
            (downsample, blocks.collect())
        };
        let [.., width] = config.embed_dim;
        let head = if config.dense {
            let norm = |i| LayerNorm::new(p / "extra_norms" / i, config.embed_dim[i], EPS);
            Head::Dense((0..4).map(norm).collect())
        } else {
            Head::Classifier(BatchNormLinear::new(p / "norm", p / "head", width, classes))
        };
        BiFormer {
            stages: (0..4).map(stage).collect(),
            head,
            config: config.clone(),
        }
    }

    /// The map as dense prediction sees it.
    fn output(&self, stage: usize, x: &Tensor) -> Tensor {
        match &self.head {
            Head::Classifier(_) => x.shallow_clone(),
            Head::Dense(norms) => {
                let normed = image(&norms[stage].forward(&tokens(x)));
                taps::see(&format!("features.{stage}"), &normed);
                normed
            }
        }
    }
}

impl Backbone for BiFormer {
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = x.shallow_clone();
        let mut maps = Vec::with_capacity(self.stages.len());
        for (i, (downsample, blocks)) in self.stages.iter().enumerate() {
            x = downsample.forward(&x);
            taps::see(&format!("downsample_layers.{i}"), &x);
            x = blocks.iter().fold(x, |x, block| block.forward(&x));
            taps::see(&format!("stages.{i}"), &x);
            maps.push(self.output(i, &x));
        }
        maps
    }

    fn stage_info(&self) -> Vec<Stage> {
        self.config
            .embed_dim
            .iter()
            .zip([4, 8, 16, 32])
            .map(|(&channels, stride)| Stage { channels, stride })
            .collect()
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let maps = self.stages(x);
        let last = maps.last().expect("four stages");
        last.mean_dim([2i64, 3].as_slice(), false, None::<Kind>)
    }

    /// A dense form has no head: its features come back as they are.
    fn classify(&self, features: &Tensor) -> Tensor {
        match &self.head {
            Head::Classifier(head) => head.forward(features),
            Head::Dense(_) => features.shallow_clone(),
        }
    }

    fn fuse(&mut self) {
        for (downsample, blocks) in &mut self.stages {
            downsample.fuse();
            blocks.iter_mut().for_each(Block::fuse);
        }
        if let Head::Classifier(head) = &mut self.head {
            head.fuse();
        }
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        let form = self.config.form;
        let regions = self.config.regions;
        let routed = |n| form.map_sizes(n).into_iter().take(TOPK.len());
        let (fits, rule) = match form {
            Form::Pyramid => (height >= 1 && width >= 1, "any size from 1x1".to_owned()),
            Form::Stl => (
                [height, width]
                    .into_iter()
                    .all(|n| routed(n).all(|m| m > 0 && m % regions == 0)),
                format!(
                    "sizes whose quarter, eighth and sixteenth (rounded down) are multiples of {regions}, such as {0}x{0}",
                    32 * regions
                ),
            ),
            Form::StlNchw => (
                [height, width]
                    .into_iter()
                    .all(|n| routed(n).all(|m| m >= regions)),
                format!("any size from {0}x{0}", 16 * regions),
            ),
        };
        if fits {
            return Ok(());
        }
        Err(format!("BiFormer takes {rule}, not {height}x{width}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::VarStore};

    fn accepts(config: &Config, height: i64, width: i64) -> bool {
        let store = VarStore::new(Device::Cpu);
        let one_block = Config {
            depth: [1; 4],
            ..config.clone()
        };
        let net = BiFormer::new(&store.root(), &one_block, 10);
        let accepted = net.check_input(height, width).is_ok();
        if accepted {
            let x = Tensor::zeros([1, 3, height, width], (Kind::Float, Device::Cpu));
            let maps = tch::no_grad(|| net.stages(&x));
            for (i, map) in maps.iter().enumerate() {
                let wanted = [height, width].map(|n| config.form.map_sizes(n)[i]);
                assert_eq!(map.size()[2..], wanted, "{height}x{width}, stage {i}");
            }
        }
        accepted
    }

    #[test]
    fn inputs_that_are_accepted_run() {
        tch::set_num_threads(1);
        assert!(accepts(&Config::tiny(), 1, 1));
        assert!(accepts(&Config::tiny(), 67, 130));
        assert!(!accepts(&Config::tiny(), 0, 224));
        assert!(accepts(&Config::small().dense(16), 100, 60));
        assert!(accepts(&Config::stl(), 112, 227));
        assert!(!accepts(&Config::stl(), 112, 256));
        assert!(accepts(&Config::stl_nchw(), 112, 131));
        assert!(accepts(&Config::stl_nchw(), 250, 140));
        assert!(!accepts(&Config::stl_nchw(), 111, 224));
    }
}
