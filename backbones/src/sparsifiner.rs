//! Sparsifiner: every query predicts which keys it needs, and attends to those only.
//!
//! Paper: "Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient Vision Transformers", CVPR 2023,
//! arXiv 2303.13755. Official code: lim142857/Sparsifiner, `src/models/sparsifiner.py` and `sparsifiner_lvvit.py`.
//! No trained weights were published. The number of tokens is in the parameters, so the input size is fixed when the
//! network is built. There is one stage: the patch tokens behind the last block, zero where they were pruned.
//!
//! Where paper and code differ the code is followed: keys and queries are also projected over channels, the predictor
//! scales by heads^-1/2, its basis is made non-negative, and the largest eight coefficients stay.
//!
//! Claimed against executed: the paper counts the products inside attention only, and only those of connected pairs
//! (DeiT-S at 0.1: 111 M multiply-adds, dense 358 M). The official code computes every pair and masks, 4.78 G for a
//! whole image, more than DeiT-S (4.60 G). Here, what is composed computes every pair of *live* tokens: pruned tokens are
//! gathered out, not zeroed. After [`Backbone::fuse`] the predictor is folded, and a DeiT trunk's last block computes
//! its class token alone, which is connected with everything and needs no predictor.

use crate::variant::IMAGENET;
use crate::{Backbone, BuildOptions, Interpolation, Preprocessing, Reported, Stage, Variant};
use tch::{Kind, Tensor, nn};
use zoo_ops::connectivity::{Connectivity, ConnectivityPredictor};
use zoo_ops::taps::{self, Tap};
use zoo_ops::work;
use zoo_ops::{
    Activation, Conv2d, ConvBn, ConvConfig, LayerNorm, Linear, Mlp, SelfAttention, TokenEmbedding,
    merge_heads, patch_map,
};

mod config;
mod trace;
mod variants;
use config::STRIDE;
pub use config::{Config, Connections, Trunk};
use trace::{Sparsity, at_all_positions};
pub use variants::VARIANTS;

/// Tokens on their way through the blocks.
#[derive(Debug)]
struct Tokens {
    /// [B, 1 + L, C], the class token first.
    x: Tensor,
    /// Positions among all tokens [B, 1 + L], once some were pruned.
    live: Option<Tensor>,
}

impl Tokens {
    /// Keeps the class token and the `count` patch tokens with the highest `score` [B, L].
    fn keep(self, score: &Tensor, count: i64) -> Self {
        let (_, best) = score.topk(count, 1, true, false);
        let class = best.narrow(1, 0, 1).zeros_like();
        let kept = Tensor::cat(&[class, best + 1], 1);
        let width = self.x.size()[2];
        let x = self
            .x
            .gather(1, &kept.unsqueeze(2).expand([-1, -1, width], true), false);
        let live = match &self.live {
            Some(live) => live.gather(1, &kept, false),
            None => kept,
        };
        Tokens {
            x,
            live: Some(live),
        }
    }
}

/// x + attention(norm1 x), pruning, then x + mlp(norm2 x).
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: SelfAttention,
    predictor: ConnectivityPredictor,
    norm2: LayerNorm,
    mlp: Mlp,
    tokens: i64,
    pruned_to: Option<i64>,
    /// Both residual branches are divided by this, until that is folded.
    skip: f64,
    fused: bool,
    taps: [Tap; 4],
}

impl Block {
    fn new(p: &nn::Path, index: usize, config: &Config) -> Self {
        let (width, eps) = (config.width, config.eps());
        let (qkv_bias, ratio, skip) = match config.trunk {
            Trunk::Deit => (true, 4, 1.0),
            Trunk::LvVit => (false, 3, 2.0),
        };
        let attn = p / "attn";
        let names = [
            "basis_coef",
            "connectivity_score",
            "attn_mask",
            "masked_attn",
        ];
        Block {
            norm1: LayerNorm::new(p / "norm1", width, eps),
            attn: SelfAttention::new(&attn, width, config.heads(), qkv_bias),
            predictor: ConnectivityPredictor::new(
                &(&attn / "mask_predictor"),
                config.connectivity(),
            ),
            norm2: LayerNorm::new(p / "norm2", width, eps),
            mlp: Mlp::new(&(p / "mlp"), width, ratio * width),
            tokens: config.tokens(),
            pruned_to: config.pruned_to(index),
            skip,
            fused: false,
            taps: names.map(|name| Tap::named(format!("block{index}.{name}"))),
        }
    }

    fn forward(&self, tokens: Tokens, sparsity: &mut Sparsity) -> Tokens {
        let Tokens { x, live } = tokens;
        let qkv = self.attn.heads_of(&self.norm1.forward(&x));
        let class = self.attn.first_weights(&qkv[0], &qkv[1], self.absent(&x));
        let [q, k, v] = qkv.each_ref();
        let kernel = self
            .predictor
            .attend([q, k, v], live.as_ref(), self.attn.scale());
        let mixed = kernel.unwrap_or_else(|| self.mix(&qkv, &class, live.as_ref(), sparsity));
        let mut tokens = Tokens {
            x: self.add_attention(&mixed, &x),
            live,
        };
        if let Some(count) = self.pruned_to {
            let score = class.mean_dim(1, false, None::<Kind>).squeeze_dim(1);
            tokens = tokens.keep(&score.slice(1, 1, None, 1), count);
        }
        Tokens {
            x: self.add_mlp(&tokens.x),
            live: tokens.live,
        }
    }

    /// What every token gathers, composed: [B, 1 + L, C]. The class token attends to all, with weights `class`.
    fn mix(
        &self,
        [q, k, v]: &[Tensor; 3],
        class: &Tensor,
        live: Option<&Tensor>,
        sparsity: &mut Sparsity,
    ) -> Tensor {
        let (q, scale) = (q.slice(2, 1, None, 1), self.attn.scale());
        let found = self.predictor.predict(&q, k, live);
        if taps::recording() {
            self.see(&found, class, &found.weights(&q, k, scale));
            sparsity.add(&self.predictor, &found, self.tokens);
        }
        let patches = found.attend(&q, k, v, scale, self.fused);
        Tensor::cat(
            &[work::matmul(class, v), patches].map(|t| merge_heads(&t)),
            1,
        )
    }

    /// The class token of [`Block::forward`], [B, 1, C]: it is connected with every token.
    fn class_token(&self, x: &Tensor) -> Tensor {
        let mixed = self.attn.mix_first(&self.norm1.forward(x), self.absent(x));
        self.add_mlp(&self.add_attention(&mixed, &x.narrow(1, 0, 1)))
    }

    /// Pruned tokens, which the class token still sees with key and value zero.
    fn absent(&self, x: &Tensor) -> i64 {
        self.tokens - x.size()[1]
    }

    fn add_attention(&self, mixed: &Tensor, x: &Tensor) -> Tensor {
        if self.skip == 1.0 {
            self.attn.project_add(mixed, x)
        } else {
            x + self.attn.project(mixed) / self.skip
        }
    }

    fn add_mlp(&self, x: &Tensor) -> Tensor {
        let normed = self.norm2.forward(x);
        if self.skip == 1.0 {
            self.mlp.forward_add(&normed, x)
        } else {
            x + self.mlp.forward(&normed) / self.skip
        }
    }

    /// Shows the predictor's work with the class token's row, dense, on top.
    fn see(&self, found: &Connectivity, class: &Tensor, weights: &Tensor) {
        let mask = found.mask.to_kind(class.kind());
        let values = [
            found.coefficients.shallow_clone(),
            found.scores.shallow_clone(),
            Tensor::cat(&[class.ones_like(), mask], 2),
            Tensor::cat(&[class, weights], 2),
        ];
        for (tap, value) in self.taps.iter().zip(&values) {
            tap.see(value);
        }
    }

    fn fuse(&mut self, width: i64) {
        let half = Tensor::full([width], 1.0 / self.skip, (Kind::Double, tch::Device::Cpu));
        self.attn.fold_norm(&mut self.norm1);
        self.attn.fold_output(&half);
        self.attn.fuse();
        self.predictor.fuse();
        self.mlp.fold_norm(&mut self.norm2);
        self.mlp.fold_output(&half);
        self.mlp.fuse();
        self.skip = 1.0;
        self.fused = true;
    }
}

/// Image to a map of patches at stride 16.
#[derive(Debug)]
struct PatchEmbed {
    convs: Vec<ConvBn>,
    proj: Conv2d,
}

impl PatchEmbed {
    fn new(p: &nn::Path, config: &Config) -> Self {
        let patches = |inputs, side| {
            let config_of = ConvConfig::patches(side);
            Conv2d::new(p / "proj", inputs, config.width, config_of)
        };
        if config.trunk == Trunk::Deit {
            return PatchEmbed {
                convs: Vec::new(),
                proj: patches(3, STRIDE),
            };
        }
        let shapes = [
            (3, ConvConfig::same(7).with_stride(2)),
            (64, ConvConfig::same(3)),
            (64, ConvConfig::same(3)),
        ];
        let convs = (1..).zip(shapes).map(|(i, (inputs, shape))| {
            let (conv, norm) = (p / format!("conv{i}"), p / format!("bn{i}"));
            ConvBn::new(conv, norm, inputs, 64, shape)
        });
        PatchEmbed {
            convs: convs.collect(),
            proj: patches(64, STRIDE / 2),
        }
    }

    /// [B, 3, H, W] to [B, C, H / 16, W / 16].
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.convs.iter().fold(x.shallow_clone(), |x, conv| {
            conv.forward_then(&x, Activation::Relu)
        });
        let map = self.proj.forward(&x);
        if self.convs.is_empty() {
            taps::see("patch_embed", &map.flatten(2, -1).transpose(1, 2));
        } else {
            taps::see("patch_embed", &map);
        }
        map
    }

    fn fuse(&mut self) {
        self.convs.iter_mut().for_each(ConvBn::fuse);
        self.proj.fuse();
    }
}

/// The network.
#[derive(Debug)]
pub struct Sparsifiner {
    patch_embed: PatchEmbed,
    embedding: TokenEmbedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    /// LV-ViT's head on the patch tokens.
    aux_head: Option<Linear>,
    config: Config,
    class_token_only: bool,
}

impl Sparsifiner {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: &Config, classes: i64) -> Self {
        let width = config.width;
        let blocks = p / "blocks";
        let head = |name: &str| Linear::new(p / name, width, classes, true);
        Sparsifiner {
            patch_embed: PatchEmbed::new(&(p / "patch_embed"), config),
            embedding: TokenEmbedding::new(p, config.grid(), width),
            blocks: (0..config.depth)
                .map(|i| Block::new(&(&blocks / i), i, config))
                .collect(),
            norm: LayerNorm::new(p / "norm", width, config.eps()),
            head: head("head"),
            aux_head: (config.trunk == Trunk::LvVit).then(|| head("aux_head")),
            config: config.clone(),
            class_token_only: false,
        }
    }

    /// All tokens [B, N, C] behind the last block, zero where they were pruned.
    fn all_tokens(&self, x: &Tensor) -> Tensor {
        let embedded = self.embed(x);
        let tokens = self.run(&self.blocks, &embedded);
        at_all_positions(&tokens.x, tokens.live.as_ref(), &embedded)
    }

    fn embed(&self, x: &Tensor) -> Tensor {
        self.embedding.forward(&self.patch_embed.forward(x))
    }

    fn run(&self, blocks: &[Block], embedded: &Tensor) -> Tokens {
        let mut sparsity = Sparsity::default();
        let mut tokens = Tokens {
            x: embedded.shallow_clone(),
            live: None,
        };
        for (i, block) in blocks.iter().enumerate() {
            tokens = block.forward(tokens, &mut sparsity);
            if taps::recording() {
                trace::see_block(i, &tokens, block.pruned_to.is_some(), embedded);
            }
        }
        sparsity.see();
        tokens
    }

    /// The class token behind the last block, [B, 1, C].
    fn class_token(&self, x: &Tensor) -> Tensor {
        match self.blocks.split_last() {
            Some((last, blocks)) if self.class_token_only && !taps::recording() => {
                last.class_token(&self.run(blocks, &self.embed(x)).x)
            }
            _ => self.run(&self.blocks, &self.embed(x)).x.narrow(1, 0, 1),
        }
    }
}

impl Backbone for Sparsifiner {
    /// The top-k choices are discontinuous and cascade: the official code's own float32 is 6e-3 off in its tiny form.
    fn float32_tolerance(&self) -> f64 {
        2e-2
    }

    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        vec![patch_map(&self.all_tokens(x), self.config.grid())]
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: self.config.width,
            stride: STRIDE,
        }]
    }

    fn features(&self, x: &Tensor) -> Tensor {
        self.norm.forward(&self.class_token(x)).squeeze_dim(1)
    }

    /// The head on the class token; an LV-ViT trunk's logits also have [`Backbone::logits`]' second head.
    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    /// With an LV-ViT trunk: head(class) + max over patch tokens of aux_head / 2.
    fn logits(&self, x: &Tensor) -> Tensor {
        let Some(aux_head) = &self.aux_head else {
            return self.classify(&self.features(x));
        };
        let tokens = self.norm.forward(&self.all_tokens(x));
        let patches = aux_head.forward(&tokens.slice(1, 1, None, 1));
        let class = self.classify(&tokens.select(1, 0));
        class + patches.amax([1i64].as_slice(), false) * 0.5
    }

    fn fuse(&mut self) {
        self.patch_embed.fuse();
        self.embedding.fuse();
        for block in &mut self.blocks {
            block.fuse(self.config.width);
        }
        if let Some(last) = self.blocks.last_mut() {
            last.attn.fuse_first_row();
        }
        self.head.fuse();
        if let Some(aux_head) = &mut self.aux_head {
            aux_head.fuse();
        }
        self.class_token_only = true;
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if [height, width] == self.config.image {
            return Ok(());
        }
        let [h, w] = self.config.image;
        Err(format!(
            "this Sparsifiner takes {h}x{w}, not {height}x{width}: the number of tokens is in its parameters"
        ))
    }
}

fn build(p: &nn::Path, config: &Config, options: &BuildOptions) -> Box<dyn Backbone> {
    Box::new(Sparsifiner::new(p, config, options.classes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// Few tokens, pruned three times before the last block.
    fn pruned() -> Config {
        Config {
            depth: 11,
            image: [64, 80],
            ..Config::tiny().pruning(0.5)
        }
    }

    fn network(config: &Config) -> (nn::VarStore, Sparsifiner) {
        tch::manual_seed(17);
        let mut vs = nn::VarStore::new(Device::Cpu);
        let net = Sparsifiner::new(&vs.root(), config, 7);
        vs.double();
        let spread = |t: &mut Tensor| drop(t.uniform_(-0.3, 0.3));
        tch::no_grad(|| vs.variables().values_mut().for_each(spread));
        (vs, net)
    }

    #[test]
    fn the_class_token_alone_gives_the_logits_of_all_tokens() {
        let (_vs, mut net) = network(&pruned());
        let x = Tensor::randn([2, 3, 64, 80], (Kind::Double, Device::Cpu));
        let plain = net.logits(&x);
        net.fuse();
        let (recorded, seen) = taps::record(|| net.logits(&x));
        assert!(seen.contains_key("stages.10"), "the last block steps aside");
        for fused in [net.logits(&x), recorded] {
            let error = (&plain - fused).abs().max().double_value(&[]);
            assert!(error < 1e-9, "{error}");
        }
    }

    #[test]
    fn pruned_tokens_stay_pruned_and_are_zero() {
        let (_vs, net) = network(&pruned());
        let x = Tensor::randn([2, 3, 64, 80], (Kind::Double, Device::Cpu));
        let (maps, seen) = taps::record(|| net.stages(&x));
        let mask = |i: i64| seen[&format!("token_mask.{i}")].to_kind(Kind::Int64);
        for (block, live) in [(3, 10), (6, 5), (9, 3)] {
            let counts = mask(block).sum_dim_intlist(1, false, None::<Kind>);
            assert!(counts.eq(live).all().int64_value(&[]) == 1, "block {block}");
        }
        assert_eq!((mask(6) - mask(3)).max().int64_value(&[]), 0);
        let norms = maps[0].abs().sum_dim_intlist(1, false, None::<Kind>);
        let alive = norms.flatten(1, -1).gt(0.0).to_kind(Kind::Int64);
        assert!(alive.equal(&mask(9)));
    }

    #[test]
    fn other_sizes_are_refused() {
        let (_vs, net) = network(&pruned());
        assert!(net.check_input(64, 80).is_ok());
        let error = net.check_input(80, 64).expect_err("refused");
        assert!(error.contains("takes 64x80, not 80x64"), "{error}");
    }
}
