//! The two kinds of attention in BiFormer: routed in the first three stages, global in the last.

use super::{Config, Form, image, tokens};
use tch::{Kind, Tensor, nn};
use zoo_ops::routing::{region_logits, top_regions};
use zoo_ops::taps::Tap;
use zoo_ops::{Activation, Conv2d, ConvConfig, GroupedAttention, Linear, Regions, crop};

/// Regions that a region sees, in the stages with routing; the last stage has none.
pub(super) const TOPK: [i64; 3] = [1, 4, 16];
/// Heads of the last stage, whatever its width.
const GLOBAL_HEADS: i64 = 8;
const HEAD_DIM: i64 = 32;

/// Local enhancement (LePE): a depthwise 5x5 convolution added to the attention's output.
#[derive(Debug)]
struct Lepe(Conv2d);

impl Lepe {
    fn new(p: &nn::Path, channels: i64) -> Self {
        let config = ConvConfig::same(5).with_groups(channels).with_bias();
        Lepe(Conv2d::new(p / "lepe", channels, channels, config))
    }

    /// `attended` + conv(`x`), both [B, H, W, C].
    fn add(&self, x: &Tensor, attended: Tensor) -> Tensor {
        let residual = image(&attended);
        drop(attended);
        tokens(&self.0.forward_add(&image(x), residual, Activation::None))
    }
}

/// Bi-level routing attention (section 3.2).
#[derive(Debug)]
pub(super) struct RoutedAttention {
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
        let index = self.route(&regions, &qkv);
        let qkv = qkv.chunk(3, -1);
        let attention = GroupedAttention {
            regions,
            heads: self.channels / HEAD_DIM,
            scale: self.scale,
            fused: self.fused,
        };
        let attended = attention.forward(&qkv[0], &qkv[1], &qkv[2], Some(&index));
        let out = self.lepe.add(&qkv[2], attended);
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
    fn route(&self, regions: &Regions, qkv: &Tensor) -> Tensor {
        let means = regions.mean(&qkv.narrow(-1, 0, 2 * self.channels));
        let means = means.chunk(2, -1);
        let logits = region_logits(&(&means[0] * self.scale), &means[1]);
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
pub(super) struct GlobalAttention {
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
        self.proj.forward(&self.lepe.add(enhanced, attended))
    }

    fn fuse(&mut self) {
        self.fused = true;
        self.qkv.fuse();
        self.proj.fuse();
        self.lepe.0.fuse();
    }
}

/// What a stage attends with.
#[derive(Debug)]
pub(super) enum Attention {
    Routed(RoutedAttention),
    Global(GlobalAttention),
}

impl Attention {
    pub(super) fn new(p: &nn::Path, config: &Config, stage: usize) -> Self {
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

    /// [B, H, W, C] to the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Attention::Routed(a) => a.forward(x),
            Attention::Global(a) => a.forward(x),
        }
    }

    pub(super) fn fuse(&mut self) {
        match self {
            Attention::Routed(a) => a.fuse(),
            Attention::Global(a) => a.fuse(),
        }
    }
}
