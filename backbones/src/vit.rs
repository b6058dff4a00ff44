//! ViT and DeiT: one architecture, told apart by their weights and by the input statistics that go with them; and the
//! same with mixture-of-head attention (`moh-deit-*`).
//!
//! Papers: "An Image is Worth 16x16 Words", ICLR 2021, arXiv 2010.11929; "Training data-efficient image transformers &
//! distillation through attention", ICML 2021, arXiv 2012.12877 (the models without distillation token); weights of
//! "How to train your ViT?", TMLR 2022. Reference code: timm `models/vision_transformer.py`, whose names these are.
//!
//! Any multiples of 16 are taken as input size; positions are then resampled as timm's `dynamic_img_size` does it.
//! There is one stage: the patch tokens behind the last block, before the final norm.
//!
//! Only the class token reaches the head. After [`Backbone::fuse`] the last block therefore computes that token alone,
//! without making keys or values: 2.7 M multiply-adds instead of 378 M in DeiT-S.
//!
//! The mixture of heads is that of "MoH: Multi-Head Attention as Mixture-of-Head Attention", arXiv 2410.11842, put on DeiT as
//! its section 3 puts it on any ViT: the official names with `wg`, `wg_0`, `wg_1` beside `qkv` ([`HeadRouter`]). The paper's own
//! vision models are `moh-transnext-*`; nobody published weights for these.

use crate::variant::IMAGENET;
use crate::{Backbone, BuildOptions, Interpolation, Preprocessing, Reported, Stage, Variant};
use tch::{Tensor, nn};
use zoo_ops::taps::{self, Tap};
use zoo_ops::{
    Conv2d, ConvConfig, HeadRouter, HeadRouting, LayerNorm, Linear, Mlp, SelfAttention,
    TokenEmbedding, patch_map,
};

/// Side of a patch in pixels.
const PATCH: i64 = 16;
/// Every norm's epsilon.
const EPS: f64 = 1e-6;

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Channels of a token.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Blocks.
    pub depth: usize,
    /// Height and width in pixels for which `pos_embed` has entries.
    pub image: [i64; 2],
    /// Which heads are on for a token; `None`: all of them, ungated.
    pub routing: Option<HeadRouting>,
}

impl Config {
    /// ViT-Ti/16 and DeiT-Ti.
    pub fn tiny() -> Self {
        Self::of(192)
    }

    /// ViT-S/16 and DeiT-S.
    pub fn small() -> Self {
        Self::of(384)
    }

    /// ViT-B/16 and DeiT-B.
    pub fn base() -> Self {
        Self::of(768)
    }

    /// Mixture-of-head attention: `shared` heads that every token uses, `active` that it chooses among the others.
    pub fn with_routing(self, shared: i64, active: i64) -> Self {
        Config {
            routing: Some(HeadRouting {
                heads: self.heads,
                shared,
                active,
            }),
            ..self
        }
    }

    fn of(width: i64) -> Self {
        Config {
            width,
            heads: width / 64,
            depth: 12,
            image: [224; 2],
            routing: None,
        }
    }
}

/// x + attention(norm1 x), then x + mlp(norm2 x).
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: SelfAttention,
    router: Option<HeadRouter>,
    norm2: LayerNorm,
    mlp: Mlp,
    attn_out: Tap,
}

impl Block {
    fn new(p: &nn::Path, index: usize, config: &Config) -> Self {
        let width = config.width;
        Block {
            norm1: LayerNorm::new(p / "norm1", width, EPS),
            attn: SelfAttention::new(&(p / "attn"), width, config.heads, true),
            router: config
                .routing
                .map(|routing| HeadRouter::new(&(p / "attn"), width, routing)),
            norm2: LayerNorm::new(p / "norm2", width, EPS),
            mlp: Mlp::new(&(p / "mlp"), width, 4 * width),
            attn_out: Tap::named(format!("block{index}.attn_out")),
        }
    }

    /// Tokens [B, N, C] to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        let normed = self.norm1.forward(x);
        let mixed = match &self.router {
            None => self.attn.mix(&normed),
            Some(router) => self.attn.mix_gated(&normed, &router.gates(&normed)),
        };
        if taps::recording() {
            self.attn_out.see(&self.attn.project(&mixed));
        }
        self.finish(&mixed, x)
    }

    /// The first token of [`Block::forward`], [B, 1, C].
    fn first_token(&self, x: &Tensor) -> Tensor {
        let mixed = self.attn.mix_first(&self.norm1.forward(x), 0);
        self.finish(&mixed, &x.narrow(1, 0, 1))
    }

    fn finish(&self, mixed: &Tensor, x: &Tensor) -> Tensor {
        let x = self.attn.project_add(mixed, x);
        self.mlp.forward_add(&self.norm2.forward(&x), &x)
    }

    fn fuse(&mut self) {
        // A router reads the norm's output too.
        if self.router.is_none() {
            self.attn.fold_norm(&mut self.norm1);
        }
        self.attn.fuse();
        self.mlp.fold_norm(&mut self.norm2);
        self.mlp.fuse();
    }
}

/// The network.
#[derive(Debug)]
pub struct Vit {
    patch_embed: Conv2d,
    tokens: TokenEmbedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    width: i64,
    first_token_only: bool,
}

impl Vit {
    /// Builds the network under timm's names.
    pub fn new(p: &nn::Path, config: &Config, classes: i64) -> Self {
        let width = config.width;
        let proj = p / "patch_embed" / "proj";
        let blocks = p / "blocks";
        Vit {
            patch_embed: Conv2d::new(proj, 3, width, ConvConfig::patches(PATCH)),
            tokens: TokenEmbedding::new(p, config.image.map(|n| n / PATCH), width),
            blocks: (0..config.depth)
                .map(|i| Block::new(&(&blocks / i), i, config))
                .collect(),
            norm: LayerNorm::new(p / "norm", width, EPS),
            head: Linear::new(p / "head", width, classes, true),
            width,
            first_token_only: false,
        }
    }

    fn embed(&self, x: &Tensor) -> Tensor {
        let tokens = self.tokens.forward(&self.patch_embed.forward(x));
        taps::see("embed", &tokens);
        tokens
    }

    /// Tokens [B, 1 + HW / 256, C] behind the last block.
    fn all_tokens(&self, x: &Tensor) -> Tensor {
        let mut tokens = self.embed(x);
        for (i, block) in self.blocks.iter().enumerate() {
            tokens = block.forward(&tokens);
            taps::see(&format!("stages.{i}"), &tokens);
        }
        tokens
    }

    /// The class token behind the last block, [B, 1, C].
    fn class_token(&self, x: &Tensor) -> Tensor {
        match self.blocks.split_last() {
            Some((last, blocks)) if self.first_token_only && !taps::recording() => {
                let tokens = blocks.iter().fold(self.embed(x), |x, b| b.forward(&x));
                last.first_token(&tokens)
            }
            _ => self.all_tokens(x).narrow(1, 0, 1),
        }
    }
}

impl Backbone for Vit {
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let grid = [x.size()[2] / PATCH, x.size()[3] / PATCH];
        vec![patch_map(&self.all_tokens(x), grid)]
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.width,
            stride: PATCH,
        }]
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let pooled = self.norm.forward(&self.class_token(x)).squeeze_dim(1);
        taps::see("pooled", &pooled);
        pooled
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn fuse(&mut self) {
        self.patch_embed.fuse();
        self.tokens.fuse();
        self.blocks.iter_mut().for_each(Block::fuse);
        if let Some(last) = self.blocks.last_mut().filter(|b| b.router.is_none()) {
            last.attn.fuse_first_row();
            self.first_token_only = true;
        }
        self.head.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if height > 0 && width > 0 && height % PATCH == 0 && width % PATCH == 0 {
            return Ok(());
        }
        Err(format!(
            "ViT takes heights and widths that are multiples of {PATCH}, not {height}x{width}"
        ))
    }
}

/// timm's evaluation transform: shorter side to floor(224 / 0.9), bicubic, centre crop.
const fn preprocessing((mean, std): ([f32; 3], [f32; 3])) -> Preprocessing {
    Preprocessing {
        size: (224, 224),
        crop_pct: 0.9,
        interpolation: Interpolation::Bicubic,
        mean,
        std,
        source: "timm pretrained configuration",
    }
}

/// Input statistics of the AugReg weights.
const HALF: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

fn build(p: &nn::Path, config: &Config, options: &BuildOptions) -> Box<dyn Backbone> {
    Box::new(Vit::new(p, config, options.classes))
}

mod variants;
pub use variants::VARIANTS;

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn small_network(vs: &nn::VarStore) -> Vit {
        let config = Config {
            depth: 2,
            image: [64, 32],
            ..Config::tiny()
        };
        Vit::new(&vs.root(), &config, 5)
    }

    #[test]
    fn the_first_token_alone_gives_the_logits_of_all_tokens() {
        tch::manual_seed(9);
        let mut vs = nn::VarStore::new(Device::Cpu);
        let mut net = small_network(&vs);
        vs.double();
        let inputs = [[64, 32], [48, 80]]
            .map(|[h, w]| Tensor::randn([2, 3, h, w], (Kind::Double, Device::Cpu)));
        let plain = inputs.each_ref().map(|x| net.logits(x));
        net.fuse();
        for (x, plain) in inputs.iter().zip(&plain) {
            let (recorded, seen) = taps::record(|| net.logits(x));
            assert!(seen.contains_key("stages.1"), "the last block steps aside");
            for fused in [net.logits(x), recorded] {
                let error = (plain - fused).abs().max().double_value(&[]);
                assert!(error < 1e-12, "{error}");
            }
        }
    }

    #[test]
    fn sizes_that_do_not_divide_into_patches_are_refused() {
        let net = small_network(&nn::VarStore::new(Device::Cpu));
        assert!(net.check_input(48, 80).is_ok());
        for (height, width) in [(0, 16), (16, 0), (224, 225), (-16, 16)] {
            let error = net.check_input(height, width).expect_err("refused");
            assert!(error.contains("multiples of 16"), "{error}");
        }
    }

    #[test]
    fn heads_that_are_all_on_and_weigh_one_give_the_plain_network() {
        tch::manual_seed(4);
        let config = Config {
            depth: 2,
            image: [32, 32],
            ..Config::tiny()
        };
        let mut plain_store = nn::VarStore::new(Device::Cpu);
        let plain = Vit::new(&plain_store.root(), &config, 5);
        let mut store = nn::VarStore::new(Device::Cpu);
        let mut routed = Vit::new(&store.root(), &config.clone().with_routing(1, 2), 5);
        plain_store.double();
        store.double();
        let weights = plain_store.variables();
        tch::no_grad(|| {
            for (name, mut variable) in store.variables() {
                match weights.get(&name) {
                    Some(weight) => variable.copy_(weight),
                    None => drop(variable.zero_()),
                }
            }
        });
        let x = Tensor::randn([2, 3, 32, 32], (Kind::Double, Device::Cpu));
        let expected = plain.logits(&x);
        let apart = |logits: Tensor| (logits - &expected).abs().max().double_value(&[]);
        assert!(apart(routed.logits(&x)) < 1e-12);
        routed.fuse();
        assert!(apart(routed.logits(&x)) < 1e-12);
    }
}
