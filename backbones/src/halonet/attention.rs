//! A block's attention module, of whichever kind, with the norm and activation behind it.

use super::Attention;
use tch::{Tensor, nn};
use zoo_ops::taps::{self, Tap};
use zoo_ops::{
    Activation, BatchNorm, BottleneckAttention, Derived, HaloAttention, HaloConfig, LambdaConfig,
    LambdaLayer,
};

/// The attention module of a block, by its kind.
#[derive(Debug)]
enum SelfAttention {
    Halo(Box<HaloAttention>),
    Bottleneck(Box<BottleneckAttention>),
    Lambda(Box<LambdaLayer>),
}

impl SelfAttention {
    fn new(p: nn::Path, width: i64, stride: i64, kind: Attention, map: [i64; 2]) -> Self {
        match kind {
            Attention::Halo {
                block,
                halo,
                heads,
                queries,
                values: _,
            } => {
                let config = HaloConfig {
                    block,
                    halo,
                    heads,
                    qk_dim: queries.per_head(width, heads),
                    v_dim: kind.output_width(width) / heads,
                    stride,
                };
                SelfAttention::Halo(Box::new(HaloAttention::new(p, width, config)))
            }
            Attention::Bottleneck => {
                SelfAttention::Bottleneck(Box::new(BottleneckAttention::new(p, width, 4, map)))
            }
            Attention::Lambda => {
                let config = LambdaConfig {
                    heads: 4,
                    qk_dim: 16,
                    receptive: 13,
                };
                SelfAttention::Lambda(Box::new(LambdaLayer::new(p, width, config)))
            }
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            SelfAttention::Halo(attention) => attention.forward(x),
            SelfAttention::Bottleneck(attention) => attention.forward(x),
            SelfAttention::Lambda(attention) => attention.forward(x),
        }
    }

    /// Whether the values took the scale: a lambda layer's heads share their values, so they can not.
    fn fold_output_scale(&mut self, scale: &Tensor) -> bool {
        match self {
            SelfAttention::Halo(attention) => attention.fold_output_scale(scale),
            SelfAttention::Bottleneck(attention) => attention.fold_output_scale(scale),
            SelfAttention::Lambda(_) => return false,
        }
        true
    }

    fn fuse(&mut self) {
        match self {
            SelfAttention::Halo(attention) => attention.fuse(),
            SelfAttention::Bottleneck(attention) => attention.fuse(),
            SelfAttention::Lambda(attention) => attention.fuse(),
        }
    }
}

/// An attention module with the batch norm and activation behind it.
#[derive(Debug)]
pub(super) struct AttentionLayer {
    attention: SelfAttention,
    norm: PostAttention,
    out: Tap,
}

#[derive(Debug)]
enum PostAttention {
    Norm(BatchNorm),
    /// The values took the scale; zero keys keep them from taking the shift.
    Folded {
        scale: Derived,
        shift: Derived,
    },
}

impl AttentionLayer {
    pub(super) fn new(
        p: &nn::Path,
        width: i64,
        stride: i64,
        kind: Attention,
        map: [i64; 2],
    ) -> Self {
        AttentionLayer {
            attention: SelfAttention::new(p / "self_attn", width, stride, kind, map),
            norm: PostAttention::Norm(BatchNorm::new(
                p / "post_attn",
                kind.output_width(width),
                1e-5,
            )),
            out: Tap::new(p, "self_attn"),
        }
    }

    pub(super) fn forward(&self, x: &Tensor, activation: Activation) -> Tensor {
        let attended = self.attention.forward(x);
        match &self.norm {
            PostAttention::Norm(norm) => {
                self.out.see(&attended);
                activation.apply(norm.forward(&attended))
            }
            PostAttention::Folded { scale, shift } => {
                if taps::recording() {
                    self.out.see(&(&attended / scale.like(x)));
                }
                activation.apply(attended + shift.like(x))
            }
        }
    }

    pub(super) fn fuse(&mut self) {
        if let PostAttention::Norm(norm) = &self.norm {
            let (scale, shift) = norm.scale_shift();
            let column = |t: &Tensor| Derived::new(t.reshape([1, -1, 1, 1]));
            if self.attention.fold_output_scale(&scale) {
                self.norm = PostAttention::Folded {
                    scale: column(&scale),
                    shift: column(&shift),
                };
            }
        }
        self.attention.fuse();
    }
}
