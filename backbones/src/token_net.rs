//! The shell that NiNformer, its siblings and Activator share: patches, blocks over tokens, their mean, a classifier.
//!
//! No positions, no class token, no norm before the head. Names: `patcher`, `model.I` (block I), `classifier`.

use crate::{Backbone, BuildOptions, Interpolation, Preprocessing, Stage};
use std::fmt::Debug;
use tch::{Kind, Tensor, nn};
use zoo_ops::taps;
use zoo_ops::{Conv2d, ConvConfig, LayerNorm, Linear, Mlp};

/// Side of a patch in pixels.
pub const PATCH: i64 = 4;
/// Channels of a token.
pub const WIDTH: i64 = 256;
/// Hidden width of every perceptron and gate.
pub const HIDDEN: i64 = 512;
/// Blocks.
const DEPTH: usize = 4;
/// Every norm's epsilon.
pub const EPS: f64 = 1e-5;

/// One block.
pub trait TokenBlock: Debug + Send {
    /// Tokens [B, N, 256] to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor;

    /// As [`Backbone::fuse`].
    fn fuse(&mut self);
}

/// Linear, GELU, Linear, with a dropout behind each that inference does not have. Names: `net.0`, `net.3`.
pub fn feed_forward(p: &nn::Path, width: i64) -> Mlp {
    let net = p / "net";
    Mlp::at(&net / 0, &net / 3, width, HIDDEN)
}

/// A second use of a block's norm: x + ffn(norm x).
#[derive(Debug)]
pub struct FeedForward {
    ffn: Mlp,
    affine_folded: bool,
}

impl FeedForward {
    /// At path `p`.
    pub fn new(p: &nn::Path) -> Self {
        FeedForward {
            ffn: feed_forward(p, WIDTH),
            affine_folded: false,
        }
    }

    /// Tokens [B, N, 256] to the same shape.
    pub fn forward_add(&self, x: &Tensor, norm: &LayerNorm) -> Tensor {
        let n = if self.affine_folded {
            norm.normalise(x)
        } else {
            norm.forward(x)
        };
        self.ffn.forward_add(&n, x)
    }

    /// Takes a copy of the norm's weight and bias; its first use keeps them.
    pub fn fuse(&mut self, norm: &LayerNorm) {
        self.ffn.copy_norm(norm);
        self.ffn.fuse();
        self.affine_folded = true;
    }
}

/// Input channels and, where the parameters depend on it, the number of tokens.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// 3 for RGB, 1 for grey.
    pub channels: i64,
    /// The one number of patches that the network takes; `None` takes any.
    pub tokens: Option<i64>,
}

/// The number of patches of an input.
pub fn tokens_of([height, width]: [i64; 2]) -> i64 {
    (height / PATCH) * (width / PATCH)
}

/// The network.
#[derive(Debug)]
pub struct TokenNet<B> {
    patcher: Conv2d,
    blocks: Vec<B>,
    classifier: Linear,
    input: Input,
}

impl<B: TokenBlock> TokenNet<B> {
    /// Builds the network under official names; `block` makes block I at its path.
    pub fn new(
        p: &nn::Path,
        input: Input,
        options: &BuildOptions,
        block: impl Fn(&nn::Path, usize) -> B,
    ) -> Self {
        let model = p / "model";
        let patches = ConvConfig::patches(PATCH);
        TokenNet {
            patcher: Conv2d::new(p / "patcher", input.channels, WIDTH, patches),
            blocks: (0..DEPTH).map(|i| block(&(&model / i), i)).collect(),
            classifier: Linear::new(p / "classifier", WIDTH, options.classes, true),
            input,
        }
    }

    /// Tokens [B, N, 256] behind the last block.
    fn tokens(&self, x: &Tensor) -> Tensor {
        let patches = self.patcher.forward(x);
        taps::see("patches", &patches);
        let mut tokens = patches.flatten(2, -1).transpose(1, 2);
        for (i, block) in self.blocks.iter().enumerate() {
            tokens = block.forward(&tokens);
            taps::see(&format!("stages.{i}"), &tokens);
        }
        tokens
    }
}

impl<B: TokenBlock> Backbone for TokenNet<B> {
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let grid = [x.size()[2] / PATCH, x.size()[3] / PATCH];
        vec![self.tokens(x).transpose(1, 2).unflatten(2, grid)]
    }

    fn stage_info(&self) -> Vec<Stage> {
        vec![Stage {
            channels: WIDTH,
            stride: PATCH,
        }]
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let pooled = self.tokens(x).mean_dim(1, false, None::<Kind>);
        taps::see("pooled", &pooled);
        pooled
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.classifier.forward(features)
    }

    fn fuse(&mut self) {
        self.patcher.fuse();
        self.blocks.iter_mut().for_each(B::fuse);
        self.classifier.fuse();
    }

    fn input_channels(&self) -> i64 {
        self.input.channels
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if height < 1 || width < 1 || height % PATCH != 0 || width % PATCH != 0 {
            return Err(format!(
                "this network takes heights and widths that are multiples of {PATCH}, not {height}x{width}"
            ));
        }
        let found = tokens_of([height, width]);
        match self.input.tokens {
            Some(tokens) if tokens != found => Err(format!(
                "this network takes {tokens} patches of {PATCH}x{PATCH}, not {found} ({height}x{width}): the number of tokens is in its parameters; build it for this size"
            )),
            _ => Ok(()),
        }
    }
}

/// Small images as they are, in [-1, 1].
pub const fn preprocessing(size: usize, source: &'static str) -> Preprocessing {
    Preprocessing {
        size: (size, size),
        crop_pct: 1.0,
        interpolation: Interpolation::Bilinear,
        mean: [0.5; 3],
        std: [0.5; 3],
        source,
    }
}
