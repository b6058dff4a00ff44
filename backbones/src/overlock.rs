//! OverLoCK: a short deep branch looks at the whole image first; its coarse map then guides a second deep branch, as
//! further channels and as the source of convolution kernels that differ from place to place.
//!
//! Paper: "OverLoCK: An Overview-first-Look-Closely-next ConvNet with Context-Mixing Dynamic Kernels", CVPR 2025,
//! arXiv 2502.20087. Official code: LMMMEng/OverLoCK, `models/overlock.py`; dense tasks `detection/models/overlock.py` and
//! `segmentation/models/overlock.py`. Maps are NCHW throughout; any input size works.
//!
//! Checkpoints come in two forms, as trained and merged (`_reparam`); each has variants of its own, whose names are those
//! of the file. The auxiliary head of training is in both and never runs.
//!
//! Work claimed and executed at 224x224, in GMACs: the authors' 2.6, 5.5, 9.7 and 16.7 are those of the merged form;
//! as trained the official code executes 2.86, 5.99, 10.44 and 17.96. Ours merges in `fuse()`, projects the 49 keys of a
//! dynamic kernel instead of every query (2.65 times fewer for XT's third stage) and applies dynamic
//! kernels over tiles: 196 products for the 169 claimed of a 13x13 kernel, and 196 for the 25 of a 5x5 one, about
//! 0.06 GMACs of XT's 2.70.

mod blocks;
mod contmix;
mod variants;

pub use variants::VARIANTS;

use crate::{Backbone, Stage};
use blocks::{FocusStage, LayerScale, RepConvBlock, conv_bn, downsample};
use tch::{Kind, Tensor, nn};
use zoo_ops::taps;
use zoo_ops::{Activation, BatchNorm, Branches, Conv2d, ConvBn, ConvConfig, LayerNorm};

const EPS: f64 = 1e-6;
/// Channels between the last map and the classifier.
const PROJECTION: i64 = 1024;

/// What the network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Logits.
    Classification,
    /// Normed maps; the last has the projected overview added.
    Detection,
    /// Normed maps.
    Segmentation,
}

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Blocks of the base and overview stages.
    pub depth: [usize; 4],
    /// Blocks of the focus stages.
    pub focus_depth: [usize; 2],
    /// Channels of each stage; a quarter of the last is the context's width.
    pub embed_dim: [i64; 4],
    /// Heads of the dynamic kernels in the focus stages (twice the official `sub_num_heads`).
    pub heads: [i64; 2],
    /// Form of the large kernels.
    pub branches: Branches,
    /// Outputs.
    pub task: Task,
}

impl Config {
    /// OverLoCK-XT.
    pub fn xt() -> Self {
        Self::trained([2, 2, 3, 2], [6, 2], [56, 112, 256, 336], [8, 12])
    }

    /// OverLoCK-T.
    pub fn tiny() -> Self {
        Self::trained([4, 4, 6, 2], [12, 2], [64, 128, 256, 512], [8, 16])
    }

    /// OverLoCK-S.
    pub fn small() -> Self {
        Self::trained([6, 6, 8, 3], [16, 3], [64, 128, 320, 512], [16, 32])
    }

    /// OverLoCK-B.
    pub fn base() -> Self {
        Self::trained([8, 8, 10, 4], [20, 4], [80, 160, 384, 576], [12, 18])
    }

    /// The same, stored with merged kernels.
    pub fn merged(self) -> Self {
        Config {
            branches: Branches::Merged,
            ..self
        }
    }

    /// The same for another task.
    pub fn for_task(self, task: Task) -> Self {
        Config { task, ..self }
    }

    fn trained(
        depth: [usize; 4],
        focus_depth: [usize; 2],
        embed_dim: [i64; 4],
        heads: [i64; 2],
    ) -> Self {
        Config {
            depth,
            focus_depth,
            embed_dim,
            heads,
            branches: Branches::Separate,
            task: Task::Classification,
        }
    }

    fn context(&self) -> i64 {
        self.embed_dim[3] / 4
    }
}

/// What is behind the maps.
#[derive(Debug)]
enum Head {
    Classifier {
        projection: ConvBn,
        classifier: Conv2d,
    },
    /// A norm for each map, and for detection what is added to the last.
    Dense {
        norms: Vec<LayerNorm>,
        overview: Option<OverviewOutput>,
    },
}

/// The overview as part of a detector's last map: norm, 1x1 convolution, layer scale.
#[derive(Debug)]
struct OverviewOutput {
    norm: LayerNorm,
    conv: Conv2d,
    scale: Option<LayerScale>,
}

impl OverviewOutput {
    fn new(p: &nn::Path, config: &Config) -> Self {
        let (inputs, proj) = (config.embed_dim[3], p / "h_proj");
        let out = inputs + config.context();
        let pointwise = ConvConfig::pointwise().with_bias();
        OverviewOutput {
            norm: LayerNorm::new(p / "extra_norm" / 4, inputs, EPS),
            conv: Conv2d::new(&proj / 0, inputs, out, pointwise),
            scale: Some(LayerScale::new(&proj / 1, out)),
        }
    }

    /// `residual` + the projected overview.
    fn add(&self, residual: &Tensor, overview: &Tensor) -> Tensor {
        let normed = self.norm.forward_map(overview);
        match &self.scale {
            Some(scale) => scale.add(residual, &self.conv.forward(&normed)),
            None => {
                let residual = residual.shallow_clone();
                self.conv.forward_add(&normed, residual, Activation::None)
            }
        }
    }

    fn fuse(&mut self) {
        if let Some(scale) = self.scale.take() {
            scale.fold_into(&mut self.conv);
        }
        self.norm.fold_into_conv(&mut self.conv);
        self.conv.fuse();
    }
}

impl Head {
    fn new(p: &nn::Path, config: &Config, classes: i64) -> Self {
        let [first, second, third, last] = config.embed_dim;
        let context = config.context();
        if config.task == Task::Classification {
            let (head, pointwise) = (p / "head", ConvConfig::pointwise());
            return Head::Classifier {
                projection: conv_bn(&head, 0, last + context, PROJECTION, pointwise),
                classifier: Conv2d::new(&head / 4, PROJECTION, classes, pointwise.with_bias()),
            };
        }
        let widths = [first, second, third + context, last + context];
        let norm = |(i, width)| LayerNorm::new(p / "extra_norm" / i, width, EPS);
        Head::Dense {
            norms: widths.into_iter().enumerate().map(norm).collect(),
            overview: (config.task == Task::Detection).then(|| OverviewOutput::new(p, config)),
        }
    }

    /// The map of a stage as dense prediction sees it; as it is for classification.
    fn output(&self, stage: usize, x: &Tensor) -> Tensor {
        match self {
            Head::Classifier { .. } => x.shallow_clone(),
            Head::Dense { norms, .. } => norms[stage].forward_map(x),
        }
    }

    fn last_output(&self, x: &Tensor, overview: &Tensor) -> Tensor {
        let normed = self.output(3, x);
        match self {
            Head::Dense {
                overview: Some(output),
                ..
            } => output.add(&normed, overview),
            _ => normed,
        }
    }

    fn fuse(&mut self) {
        match self {
            Head::Classifier {
                projection,
                classifier,
            } => {
                projection.fuse();
                classifier.fuse();
            }
            Head::Dense { overview, .. } => overview.iter_mut().for_each(OverviewOutput::fuse),
        }
    }
}

/// What lies between the overview and the focus stages.
#[derive(Debug)]
struct Guidance {
    high_level_proj: Conv2d,
    x_proj: ConvBn,
    h_proj: ConvBn,
}

impl Guidance {
    fn new(p: &nn::Path, config: &Config) -> Self {
        let ([_, _, third, last], context) = (config.embed_dim, config.context());
        let (proj, embed) = (p / "high_level_proj", p / "patch_embedx");
        let pointwise = ConvConfig::pointwise().with_bias();
        Guidance {
            high_level_proj: Conv2d::new(proj, last, context, pointwise),
            x_proj: downsample(&(&embed / "x_proj"), third, last),
            h_proj: downsample(&(&embed / "h_proj"), context, context),
        }
    }

    fn fuse(&mut self) {
        self.high_level_proj.fuse();
        self.x_proj.fuse();
        self.h_proj.fuse();
    }
}

/// The network.
#[derive(Debug)]
pub struct Overlock {
    stem: Vec<ConvBn>,
    /// `patch_embed2` to `patch_embed4`.
    downsamples: Vec<ConvBn>,
    /// `blocks1` to `blocks4`; the last are the overview.
    blocks: Vec<Vec<RepConvBlock>>,
    guidance: Guidance,
    focus: [FocusStage; 2],
    head: Head,
    config: Config,
}

impl Overlock {
    /// Builds the network under official names; `classes` does not matter to dense forms.
    pub fn new(p: &nn::Path, config: &Config, classes: i64) -> Self {
        let widths = config.embed_dim;
        let stage = |i: usize| {
            let path = p / format!("blocks{}", i + 1);
            let blocks = 0..config.depth[i];
            blocks
                .map(|j| RepConvBlock::new(&(&path / j), config, i))
                .collect()
        };
        if config.task == Task::Classification {
            register_aux_head(&(p / "aux_head"), widths[3], classes);
        }
        Overlock {
            stem: stem(&(p / "patch_embed1"), widths[0]),
            downsamples: (1..4)
                .map(|i| {
                    downsample(
                        &(p / format!("patch_embed{}", i + 1)),
                        widths[i - 1],
                        widths[i],
                    )
                })
                .collect(),
            blocks: (0..4).map(stage).collect(),
            guidance: Guidance::new(p, config),
            focus: [0, 1]
                .map(|i| FocusStage::new(&(p / format!("sub_blocks{}", i + 3)), config, i)),
            head: Head::new(p, config, classes),
            config: config.clone(),
        }
    }

    fn run_stage(&self, stage: usize, x: &Tensor) -> Tensor {
        let x = self.blocks[stage]
            .iter()
            .fold(x.shallow_clone(), |x, block| block.forward(&x));
        taps::see(&format!("stages.{stage}"), &x);
        x
    }

    /// Both focus stages: [B, e2 + c, H/16, W/16] and [B, e3 + c, H/32, W/32].
    fn run_focus(&self, x: &Tensor, overview: &Tensor) -> [Tensor; 2] {
        let coarse = self.guidance.high_level_proj.forward(overview);
        let size = [x.size()[2], x.size()[3]];
        let fine = coarse.upsample_bilinear2d(size, false, None, None);
        let third = self.focus[0].forward(x, &fine, &fine);
        let [x, context] = self.focus[0].split(&third);
        taps::see("focus.0", &x);
        taps::see("focus.0.ctx", &context);
        let x = self.guidance.x_proj.forward(&x);
        let context = self.guidance.h_proj.forward(&context);
        let last = self.focus[1].forward(&x, &context, &coarse);
        taps::see("focus.1", &last);
        [third, last]
    }
}

/// Four 3x3 convolutions, the first and the third of stride 2, GELU between them.
fn stem(p: &nn::Path, width: i64) -> Vec<ConvBn> {
    let half = width / 2;
    let sizes = [
        (3, half, 2),
        (half, half, 1),
        (half, width, 2),
        (width, width, 1),
    ];
    let conv = |(i, (inputs, out, stride)): (usize, _)| {
        conv_bn(
            p,
            3 * i,
            inputs,
            out,
            ConvConfig::same(3).with_stride(stride),
        )
    };
    (0usize..).zip(sizes).map(conv).collect()
}

/// The head of the training loss has names in every classification checkpoint and no part in inference.
fn register_aux_head(p: &nn::Path, width: i64, classes: i64) {
    BatchNorm::new(p / 0, width, 1e-5);
    Conv2d::new(p / 2, width, classes, ConvConfig::pointwise().with_bias());
}

impl Backbone for Overlock {
    /// Base-Net's two finer maps, then both focus stages with their context channels.
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let (last, first) = self.stem.split_last().expect("four convolutions");
        let x = first.iter().fold(x.shallow_clone(), |x, conv| {
            conv.forward_then(&x, Activation::Gelu)
        });
        let x = last.forward(&x);
        taps::see("patch_embed1", &x);
        let first = self.run_stage(0, &x);
        let second = self.run_stage(1, &self.downsamples[0].forward(&first));
        let outputs = [self.head.output(0, &first), self.head.output(1, &second)];
        // In the dense forms the trunk goes on from the normed map, here alone.
        let base = self.run_stage(2, &self.downsamples[1].forward(&outputs[1]));
        let overview = self.run_stage(3, &self.downsamples[2].forward(&base));
        let [third, last] = self.run_focus(&base, &overview);
        let [first, second] = outputs;
        let (third, last) = (
            self.head.output(2, &third),
            self.head.last_output(&last, &overview),
        );
        let maps = vec![first, second, third, last];
        for (i, map) in maps.iter().enumerate() {
            taps::see(&format!("features.{i}"), map);
        }
        maps
    }

    fn stage_info(&self) -> Vec<Stage> {
        let ([first, second, third, last], context) =
            (self.config.embed_dim, self.config.context());
        [first, second, third + context, last + context]
            .into_iter()
            .zip([4, 8, 16, 32])
            .map(|(channels, stride)| Stage { channels, stride })
            .collect()
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let last = self.stages(x).pop().expect("four maps");
        let last = match &self.head {
            Head::Classifier { projection, .. } => projection.forward_then(&last, Activation::Silu),
            Head::Dense { .. } => last,
        };
        last.mean_dim([2i64, 3].as_slice(), false, None::<Kind>)
    }

    /// A dense form has no head: its features come back as they are.
    fn classify(&self, features: &Tensor) -> Tensor {
        match &self.head {
            Head::Classifier { classifier, .. } => {
                let pixel = features.unsqueeze(2).unsqueeze(3);
                classifier.forward(&pixel).flatten(1, 3)
            }
            Head::Dense { .. } => features.shallow_clone(),
        }
    }

    fn fuse(&mut self) {
        self.stem.iter_mut().for_each(ConvBn::fuse);
        self.downsamples.iter_mut().for_each(ConvBn::fuse);
        self.blocks
            .iter_mut()
            .flatten()
            .for_each(RepConvBlock::fuse);
        self.guidance.fuse();
        self.focus.iter_mut().for_each(FocusStage::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if height >= 1 && width >= 1 {
            return Ok(());
        }
        Err(format!(
            "OverLoCK takes any size from 1x1, not {height}x{width}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::VarStore};

    /// Sizes at which both dynamic kernels need enlarged maps, one does, none does, and where tiles are needed.
    #[test]
    fn every_size_runs_and_fusing_changes_nothing() {
        tch::set_num_threads(1);
        let config = Config {
            depth: [1; 4],
            focus_depth: [2, 1],
            embed_dim: [8, 16, 32, 48],
            heads: [2, 2],
            branches: Branches::Separate,
            task: Task::Detection,
        };
        let mut store = VarStore::new(Device::Cpu);
        let mut net = Overlock::new(&store.root(), &config, 10);
        store.double();
        tch::manual_seed(11);
        tch::no_grad(|| {
            for (name, t) in &mut store.variables() {
                let _ = match name.ends_with("running_var") {
                    true => t.uniform_(0.5, 1.5),
                    false => t.normal_(0.0, 0.2),
                };
            }
        });
        let sizes = [[1, 1], [33, 70], [224, 40], [480, 208]];
        let inputs = sizes.map(|[h, w]| Tensor::randn([1, 3, h, w], (Kind::Double, Device::Cpu)));
        let run = |net: &Overlock| tch::no_grad(|| inputs.each_ref().map(|x| net.stages(x)));
        let plain = run(&net);
        net.fuse();
        for ((plain, fused), size) in plain.iter().zip(run(&net)).zip(sizes) {
            for ((map, ours), info) in plain.iter().zip(&fused).zip(net.stage_info()) {
                let [h, w] = size.map(|n: i64| (n + info.stride - 1) / info.stride);
                assert_eq!(map.size(), [1, info.channels, h, w]);
                let error = (map - ours).abs().max().double_value(&[]);
                let scale = map.abs().max().double_value(&[]);
                assert!(error < 1e-12 * scale, "{size:?}: {error} of {scale}");
            }
        }
    }
}
