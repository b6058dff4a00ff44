//! KArAt: Kolmogorov-Arnold attention, a learnable map of the scores in the place of the softmax.
//!
//! Paper: "Kolmogorov-Arnold Attention: Is Learnable Attention Better For Vision Transformers?", arXiv 2503.10632 (v3).
//! **No official code or weights are public** (MaitySubhajit/KArAt is a project page): this is an independent reading of
//! the paper, held to another independent reading, not to the authors' code. Where the paper is silent: the class token
//! is one of the N keys; frequencies are 1..G without a constant; W has no bias and is shared in universal mode; the l1
//! projection acts on the r sums; the Mexican hat has the sign of v3, (z^2 - 1). The published operator sizes have 2 N r
//! numbers per head more than the published equations; the equations are followed.
//!
//! The shell is a plain ViT under timm's names. N is in the operator's parameters: another input size is another model.
//!
//! After [`Backbone::fuse`] the activated attention sigma = W phi is never made: sigma V = phi (W^T V). The last block
//! then computes the class token alone, which is all that the head reads.

use crate::variant::IMAGENET;
use crate::{Backbone, BuildOptions, Interpolation, Preprocessing, Stage};
use tch::{Tensor, nn};
use zoo_ops::kolmogorov::{Base, Basis, ScoreMap, ScoreMapConfig};
use zoo_ops::taps::{self, Tap};
use zoo_ops::work;
use zoo_ops::{
    Conv2d, ConvConfig, LayerNorm, Linear, Mlp, SelfAttention, TokenEmbedding, merge_heads,
    patch_map,
};

mod variants;
pub use variants::VARIANTS;

/// Side of a patch in pixels.
const PATCH: i64 = 16;
/// Every norm's epsilon.
const EPS: f64 = 1e-6;
/// Blocks.
const DEPTH: usize = 12;
/// Learned sums per row of scores, r.
const RANK: i64 = 12;

/// What tells the variants apart.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Channels of a token; heads have 64.
    pub width: i64,
    /// The units' functions.
    pub basis: Basis,
    /// What every unit has besides.
    pub base: Base,
    /// Project the sums of a row on the probability simplex.
    pub l1: bool,
    /// One operator shared by all blocks, instead of one each.
    pub universal: bool,
}

impl Config {
    /// On ViT-Tiny.
    pub const fn tiny(basis: Basis) -> Self {
        Self::of(192, basis)
    }

    /// On ViT-Small.
    pub const fn small(basis: Basis) -> Self {
        Self::of(384, basis)
    }

    /// On ViT-Base.
    pub const fn base(basis: Basis) -> Self {
        Self::of(768, basis)
    }

    /// The same with one operator for all blocks.
    pub const fn universal(self) -> Self {
        Config {
            universal: true,
            ..self
        }
    }

    /// The same with a base function.
    pub const fn with_base(self, base: Base) -> Self {
        Config { base, ..self }
    }

    /// The same with the l1 projection.
    pub const fn with_l1(self) -> Self {
        Config { l1: true, ..self }
    }

    const fn of(width: i64, basis: Basis) -> Self {
        Config {
            width,
            basis,
            base: Base::Zero,
            l1: false,
            universal: false,
        }
    }

    fn heads(&self) -> i64 {
        self.width / 64
    }

    fn map(&self, tokens: i64) -> ScoreMapConfig {
        ScoreMapConfig {
            heads: self.heads(),
            tokens,
            rank: RANK,
            basis: self.basis,
            base: self.base,
            simplex: self.l1,
        }
    }
}

/// x + attention(norm1 x), then x + mlp(norm2 x). The score map is the caller's: blocks may share one.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: SelfAttention,
    norm2: LayerNorm,
    mlp: Mlp,
    fused: bool,
    scores: Tap,
    phi: Tap,
    sigma: Tap,
}

impl Block {
    fn new(p: &nn::Path, index: usize, config: &Config) -> Self {
        let width = config.width;
        let tap = |name| Tap::named(format!("block{index}.{name}"));
        Block {
            norm1: LayerNorm::new(p / "norm1", width, EPS),
            attn: SelfAttention::new(&(p / "attn"), width, config.heads(), true),
            norm2: LayerNorm::new(p / "norm2", width, EPS),
            mlp: Mlp::new(&(p / "mlp"), width, 4 * width),
            fused: false,
            scores: tap("scores"),
            phi: tap("phi"),
            sigma: tap("sigma"),
        }
    }

    /// Tokens [B, N, C] to the same shape.
    fn forward(&self, x: &Tensor, map: &ScoreMap) -> Tensor {
        let [q, k, v] = self.attn.heads_of(&self.norm1.forward(x));
        let scores = self.attn.scores(&q, &k);
        self.scores.see(&scores);
        let phi = map.phi(&scores);
        self.phi.see(&phi);
        let mixed = if self.fused {
            if taps::recording() {
                self.sigma.see(&map.sigma(&phi));
            }
            map.gather(&phi, &v)
        } else {
            let sigma = map.sigma(&phi);
            self.sigma.see(&sigma);
            work::matmul(&sigma, &v)
        };
        self.finish(&merge_heads(&mixed), x)
    }

    /// The first token of [`Block::forward`], [B, 1, C].
    fn first_token(&self, x: &Tensor, map: &ScoreMap) -> Tensor {
        let weigh = |scores: &Tensor| map.sigma(&map.phi(scores));
        let mixed = self.attn.mix_first_with(&self.norm1.forward(x), weigh);
        self.finish(&mixed, &x.narrow(1, 0, 1))
    }

    fn finish(&self, mixed: &Tensor, x: &Tensor) -> Tensor {
        let x = self.attn.project_add(mixed, x);
        self.mlp.forward_add(&self.norm2.forward(&x), &x)
    }

    fn fuse(&mut self) {
        self.attn.fold_norm(&mut self.norm1);
        self.attn.fuse();
        self.mlp.fold_norm(&mut self.norm2);
        self.mlp.fuse();
        self.fused = true;
    }
}

/// The network.
#[derive(Debug)]
pub struct Karat {
    patch_embed: Conv2d,
    tokens: TokenEmbedding,
    blocks: Vec<Block>,
    /// One for each block, or one for all.
    maps: Vec<ScoreMap>,
    norm: LayerNorm,
    head: Linear,
    width: i64,
    size: [i64; 2],
    first_token_only: bool,
}

impl Karat {
    /// Builds the network; the operator is at `blocks.I.attn.karat`, or at `karat` where it is universal.
    pub fn new(p: &nn::Path, config: &Config, options: &BuildOptions) -> Self {
        let width = config.width;
        let grid = options.size.map(|n| n / PATCH);
        let map = config.map(1 + grid[0] * grid[1]);
        let blocks = p / "blocks";
        let maps = if config.universal {
            vec![ScoreMap::new(&(p / "karat"), &map)]
        } else {
            (0..DEPTH)
                .map(|i| ScoreMap::new(&(&blocks / i / "attn" / "karat"), &map))
                .collect()
        };
        let proj = p / "patch_embed" / "proj";
        Karat {
            patch_embed: Conv2d::new(proj, 3, width, ConvConfig::patches(PATCH)),
            tokens: TokenEmbedding::new(p, grid, width),
            blocks: (0..DEPTH)
                .map(|i| Block::new(&(&blocks / i), i, config))
                .collect(),
            maps,
            norm: LayerNorm::new(p / "norm", width, EPS),
            head: Linear::new(p / "head", width, options.classes, true),
            width,
            size: options.size,
            first_token_only: false,
        }
    }

    /// Every block with its score map.
    fn blocks(&self) -> impl DoubleEndedIterator<Item = (usize, &Block, &ScoreMap)> {
        let last = self.maps.len() - 1;
        let with_map = move |(i, block)| (i, block, &self.maps[last.min(i)]);
        self.blocks.iter().enumerate().map(with_map)
    }

    fn embed(&self, x: &Tensor) -> Tensor {
        let tokens = self.tokens.forward(&self.patch_embed.forward(x));
        taps::see("embed", &tokens);
        tokens
    }

    /// Tokens [B, N, C] behind the last block.
    fn all_tokens(&self, x: &Tensor) -> Tensor {
        self.blocks().fold(self.embed(x), |x, (i, block, map)| {
            let x = block.forward(&x, map);
            taps::see(&format!("stages.{i}"), &x);
            x
        })
    }

    /// The class token behind the last block, [B, 1, C].
    fn class_token(&self, x: &Tensor) -> Tensor {
        let mut blocks = self.blocks();
        match blocks.next_back() {
            Some((_, last, map)) if self.first_token_only && !taps::recording() => {
                let tokens = blocks.fold(self.embed(x), |x, (_, b, map)| b.forward(&x, map));
                last.first_token(&tokens, map)
            }
            _ => self.all_tokens(x).narrow(1, 0, 1),
        }
    }
}

impl Backbone for Karat {
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let grid = self.size.map(|n| n / PATCH);
        vec![patch_map(&self.all_tokens(x), grid)]
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.width,
            stride: PATCH,
        }]
    }

    fn features(&self, x: &Tensor) -> Tensor {
        self.norm.forward(&self.class_token(x)).squeeze_dim(1)
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn fuse(&mut self) {
        self.patch_embed.fuse();
        self.tokens.fuse();
        self.blocks.iter_mut().for_each(Block::fuse);
        self.maps.iter_mut().for_each(ScoreMap::fuse);
        if let Some(last) = self.blocks.last_mut() {
            last.attn.fuse_first_row();
        }
        self.head.fuse();
        self.first_token_only = true;
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if [height, width] == self.size {
            return Ok(());
        }
        let [h, w] = self.size;
        Err(format!(
            "this KArAt takes {h}x{w}, not {height}x{width}: the number of tokens is in its parameters; build it for this size"
        ))
    }
}

/// The training recipe's size and crop; the paper does not state filter and statistics.
const PREPROCESSING: Preprocessing = Preprocessing {
    size: (224, 224),
    crop_pct: 0.9,
    interpolation: Interpolation::Bicubic,
    mean: IMAGENET.0,
    std: IMAGENET.1,
    source: "arXiv 2503.10632 (size, crop); filter and statistics of the DeiT code that it names",
};

fn build(p: &nn::Path, config: Config, options: &BuildOptions) -> Box<dyn Backbone> {
    Box::new(Karat::new(p, &config, options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn network(vs: &mut nn::VarStore, config: Config) -> Karat {
        tch::manual_seed(9);
        let options = BuildOptions {
            classes: 5,
            size: [32, 48],
            spiking: Default::default(),
        };
        let net = Karat::new(&vs.root(), &config, &options);
        vs.double();
        net
    }

    #[test]
    fn the_first_token_alone_gives_the_logits_of_all_tokens() {
        let config = Config::tiny(Basis::Fourier { grid: 2 }).with_base(Base::Identity);
        for config in [config, config.universal(), config.with_l1()] {
            let mut vs = nn::VarStore::new(Device::Cpu);
            let mut net = network(&mut vs, config);
            let x = Tensor::randn([2, 3, 32, 48], (Kind::Double, Device::Cpu));
            let plain = net.logits(&x);
            tch::no_grad(|| net.fuse());
            let (recorded, seen) = taps::record(|| net.logits(&x));
            assert!(seen.contains_key("stages.11"), "the last block steps aside");
            for fused in [net.logits(&x), recorded] {
                let error = (&plain - fused).abs().max() / plain.abs().max();
                assert!(error.double_value(&[]) < 1e-9);
            }
        }
    }

    #[test]
    fn the_input_size_is_that_of_the_parameters() {
        let mut vs = nn::VarStore::new(Device::Cpu);
        let net = network(&mut vs, Config::tiny(Basis::Rational));
        assert!(net.check_input(32, 48).is_ok());
        let error = net.check_input(48, 32).expect_err("other tokens");
        assert!(error.contains("32x48"), "{error}");
    }
}
