//! MoH-ViT: TransNeXt, every token of which uses some heads of its attention only.
//!
//! Papers: "MoH: Multi-Head Attention as Mixture-of-Head Attention", arXiv 2410.11842; "TransNeXt: Robust Foveal Visual
//! Perception for Vision Transformers", CVPR 2024, arXiv 2311.17132. Official code: SkyworkAI/MoH, `MoH-ViT/transnext.py` and
//! `attention_native.py`; its CUDA extension computes the same. Tokens [B, N, C] are the map's pixels, row-major.
//!
//! Where paper and code differ the code is followed (`zoo_ops::HeadRouter`). Work claimed and executed at 224x224: the
//! authors name shares of active heads (50, 75, 80 percent) and no operations. All heads are computed, by the official code and
//! here: 10.32 (small) and 18.35 GMACs (base), of which `fuse()` removes 0.31 and 0.39, the network of the position
//! biases, which no image changes.

mod attention;
mod position;
mod variants;

pub use variants::VARIANTS;

use crate::{Backbone, Stage};
use attention::{AggregatedAttention, GlobalAttention};
use tch::{Kind, Tensor, nn};
use zoo_ops::taps;
use zoo_ops::{Activation, Conv2d, ConvConfig, HeadRouting, LayerNorm, Linear};

const EPS: f64 = 1e-6;
/// Eps of the norms after convolutions and pooling.
const EMBED_EPS: f64 = 1e-5;
/// Side length of the pooling windows in the first three stages; the last sees all tokens.
const POOLING: [i64; 3] = [8, 4, 2];
/// Hidden width of the feed-forwards before its gate halves it to two thirds, as multiples of the stage's.
const MLP_RATIO: [i64; 4] = [8, 8, 4, 4];
/// Side of the images of pre-training, which scales position coordinates at every size.
const PRETRAINED_AT: i64 = 224;
const STRIDES: [i64; 4] = [4, 8, 16, 32];

/// Sizes of a variant. Heads are 24 wide.
#[derive(Debug, Clone)]
pub struct Config {
    /// Channels of each stage.
    pub embed_dim: [i64; 4],
    /// Heads of each stage.
    pub heads: [i64; 4],
    /// Blocks of each stage.
    pub depth: [usize; 4],
    /// Heads that every token uses.
    pub shared: [i64; 4],
    /// Heads that a token chooses among the others.
    pub active: [i64; 4],
}

impl Config {
    /// Small, 75 percent of the heads active.
    pub fn small_75() -> Self {
        Self::small([3, 6, 3, 4], [0, 0, 6, 12])
    }

    /// Small, 80 percent of the heads active.
    pub fn small_80() -> Self {
        Self::small([3, 6, 3, 8], [0, 0, 6, 12])
    }

    /// Base, half of the heads active.
    pub fn base_50() -> Self {
        Self::base([2, 2, 2, 4], [2, 4, 6, 8])
    }

    /// Base, 75 percent of the heads active.
    pub fn base_75() -> Self {
        Self::base([4, 8, 4, 5], [0, 0, 8, 16])
    }

    fn small(shared: [i64; 4], active: [i64; 4]) -> Self {
        Config {
            embed_dim: [72, 144, 288, 576],
            heads: [3, 6, 12, 24],
            depth: [5, 5, 22, 5],
            shared,
            active,
        }
    }

    fn base(shared: [i64; 4], active: [i64; 4]) -> Self {
        Config {
            embed_dim: [96, 192, 384, 768],
            heads: [4, 8, 16, 32],
            depth: [5, 5, 23, 5],
            shared,
            active,
        }
    }

    fn routing(&self, stage: usize) -> HeadRouting {
        HeadRouting {
            heads: self.heads[stage],
            shared: self.shared[stage],
            active: self.active[stage],
        }
    }
}

/// Tokens [B, N, C] as a map [B, C, H, W]: a view.
fn map_of(tokens: &Tensor, map: [i64; 2]) -> Tensor {
    tokens.transpose(1, 2).unflatten(2, map)
}

/// A map [B, C, H, W] as tokens [B, N, C]: a view of a channels-last map.
fn tokens_of(map: &Tensor) -> Tensor {
    map.flatten(2, 3).transpose(1, 2)
}

/// fc2(GELU(depthwise 3x3(a)) * v), with a and v the halves of fc1's output.
#[derive(Debug)]
struct ConvGlu {
    fc1: Linear,
    dwconv: Conv2d,
    fc2: Linear,
}

impl ConvGlu {
    fn new(p: &nn::Path, width: i64, ratio: i64) -> Self {
        let hidden = 2 * width * ratio / 3;
        let depthwise = ConvConfig::same(3).with_groups(hidden).with_bias();
        ConvGlu {
            fc1: Linear::new(p / "fc1", width, 2 * hidden, true),
            dwconv: Conv2d::new(p / "dwconv" / "dwconv", hidden, hidden, depthwise),
            fc2: Linear::new(p / "fc2", hidden, width, true),
        }
    }

    /// `residual` + forward(`x`), tokens of a `map`.
    fn forward_add(&self, x: &Tensor, residual: &Tensor, map: [i64; 2]) -> Tensor {
        let halves = self.fc1.forward(x).chunk(2, -1);
        let gate = self
            .dwconv
            .forward_then(&map_of(&halves[0], map), Activation::Gelu);
        self.fc2
            .forward_add(&(tokens_of(&gate) * &halves[1]), residual)
    }

    fn fuse(&mut self, norm: &mut LayerNorm) {
        norm.fold_into(&mut self.fc1);
        self.fc1.fuse();
        self.dwconv.fuse();
        self.fc2.fuse();
    }
}

#[derive(Debug)]
enum Attention {
    Aggregated(Box<AggregatedAttention>),
    Global(Box<GlobalAttention>),
}

/// Attention and feed-forward, both residual.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: ConvGlu,
}

impl Block {
    fn new(p: &nn::Path, config: &Config, stage: usize) -> Self {
        let (width, routing) = (config.embed_dim[stage], config.routing(stage));
        let (attn, side) = (p / "attn", PRETRAINED_AT / STRIDES[stage]);
        let attn = match POOLING.get(stage) {
            Some(pooling) => Attention::Aggregated(Box::new(AggregatedAttention::new(
                &attn, width, routing, *pooling, side,
            ))),
            None => Attention::Global(Box::new(GlobalAttention::new(&attn, width, routing, side))),
        };
        Block {
            norm1: LayerNorm::new(p / "norm1", width, EPS),
            attn,
            norm2: LayerNorm::new(p / "norm2", width, EPS),
            mlp: ConvGlu::new(&(p / "mlp"), width, MLP_RATIO[stage]),
        }
    }

    /// Tokens [B, N, C] of a `map` to the same shape.
    fn forward(&self, x: &Tensor, map: [i64; 2]) -> Tensor {
        let normed = self.norm1.forward(x);
        let x = match &self.attn {
            Attention::Aggregated(a) => a.forward_add(&normed, x, map),
            Attention::Global(a) => a.forward_add(&normed, x, map),
        };
        self.mlp.forward_add(&self.norm2.forward(&x), &x, map)
    }

    fn fuse(&mut self) {
        match &mut self.attn {
            Attention::Aggregated(a) => a.fuse(&mut self.norm1),
            Attention::Global(a) => a.fuse(&mut self.norm1),
        }
        self.mlp.fuse(&mut self.norm2);
    }
}

/// Overlapping patches, blocks, norm.
#[derive(Debug)]
struct StageBlocks {
    proj: Conv2d,
    embed_norm: LayerNorm,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl StageBlocks {
    fn new(p: &nn::Path, config: &Config, stage: usize) -> Self {
        let (number, width) = (stage + 1, config.embed_dim[stage]);
        let (inputs, kernel, stride) = match stage {
            0 => (3, 7, 4),
            _ => (config.embed_dim[stage - 1], 3, 2),
        };
        let embed = p / format!("patch_embed{number}");
        let blocks = p / format!("block{number}");
        let overlapping = ConvConfig::same(kernel).with_stride(stride).with_bias();
        StageBlocks {
            proj: Conv2d::new(&embed / "proj", inputs, width, overlapping),
            embed_norm: LayerNorm::new(&embed / "norm", width, EMBED_EPS),
            blocks: (0..config.depth[stage])
                .map(|j| Block::new(&(&blocks / j), config, stage))
                .collect(),
            norm: LayerNorm::new(p / format!("norm{number}"), width, EPS),
        }
    }

    /// [B, C, H, W] to the stage's normed map.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.proj.forward(x);
        let map = [x.size()[2], x.size()[3]];
        let tokens = self.embed_norm.forward(&tokens_of(&x));
        let tokens = self
            .blocks
            .iter()
            .fold(tokens, |x, block| block.forward(&x, map));
        map_of(&self.norm.forward(&tokens), map)
    }

    fn fuse(&mut self) {
        self.proj.fuse();
        self.blocks.iter_mut().for_each(Block::fuse);
    }
}

/// The network.
#[derive(Debug)]
pub struct MohTransnext {
    stages: Vec<StageBlocks>,
    head: Linear,
    widths: [i64; 4],
}

impl MohTransnext {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: &Config, classes: i64) -> Self {
        MohTransnext {
            stages: (0..4).map(|i| StageBlocks::new(p, config, i)).collect(),
            head: Linear::new(p / "head", config.embed_dim[3], classes, true),
            widths: config.embed_dim,
        }
    }
}

impl Backbone for MohTransnext {
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let mut maps: Vec<Tensor> = Vec::with_capacity(self.stages.len());
        for (i, stage) in self.stages.iter().enumerate() {
            let map = stage.forward(maps.last().unwrap_or(x));
            taps::see(&format!("stages.{i}"), &map);
            maps.push(map);
        }
        maps
    }

    fn stage_info(&self) -> Vec<Stage> {
        self.widths
            .into_iter()
            .zip(STRIDES)
            .map(|(channels, stride)| Stage { channels, stride })
            .collect()
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let last = self.stages(x).pop().expect("four stages");
        last.mean_dim([2i64, 3].as_slice(), false, None::<Kind>)
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn fuse(&mut self) {
        self.stages.iter_mut().for_each(StageBlocks::fuse);
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if height == width && height >= 32 && height % 32 == 0 {
            return Ok(());
        }
        Err(format!(
            "MoH-TransNeXt takes squares whose side is a multiple of 32, not {height}x{width}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::VarStore};

    /// The smallest input, one with a single pooled key beside full windows, and one larger than pre-training's.
    #[test]
    fn every_size_runs_and_fusing_changes_nothing() {
        tch::set_num_threads(1);
        let config = Config {
            embed_dim: [12, 12, 24, 24],
            heads: [2, 3, 4, 4],
            depth: [1; 4],
            shared: [1, 0, 4, 2],
            active: [1, 2, 0, 1],
        };
        let mut store = VarStore::new(Device::Cpu);
        let mut net = MohTransnext::new(&store.root(), &config, 10);
        store.double();
        tch::manual_seed(13);
        tch::no_grad(|| {
            store
                .variables()
                .values_mut()
                .for_each(|t| drop(t.normal_(0.0, 0.3)))
        });
        let sizes = [32, 64, 256];
        let inputs = sizes.map(|n| Tensor::randn([1, 3, n, n], (Kind::Double, Device::Cpu)));
        let run = |net: &MohTransnext| tch::no_grad(|| inputs.each_ref().map(|x| net.stages(x)));
        let plain = run(&net);
        net.fuse();
        for ((plain, fused), size) in plain.iter().zip(run(&net)).zip(sizes) {
            assert!(net.check_input(size, size).is_ok());
            for ((map, ours), info) in plain.iter().zip(&fused).zip(net.stage_info()) {
                let side = size / info.stride;
                assert_eq!(map.size(), [1, info.channels, side, side]);
                let error = (map - ours).abs().max().double_value(&[]);
                let scale = map.abs().max().double_value(&[]);
                assert!(error < 1e-11 * scale, "{size}: {error} of {scale}");
            }
        }
    }

    #[test]
    fn sizes_that_pooling_does_not_divide_are_refused() {
        let store = VarStore::new(Device::Cpu);
        let config = Config {
            depth: [0; 4],
            ..Config::small_75()
        };
        let net = MohTransnext::new(&store.root(), &config, 10);
        for (height, width) in [(0, 0), (240, 240), (256, 128)] {
            let message = net.check_input(height, width).unwrap_err();
            assert!(message.contains(&format!("{height}x{width}")));
        }
    }
}
