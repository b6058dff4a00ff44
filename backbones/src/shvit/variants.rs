//! SHViT's variants: names, sizes, preprocessing, reported figures, weights.

use super::{Config, Shvit};
use crate::variant::IMAGENET;
use crate::{
    Backbone, BuildOptions, Interpolation, KeyMapRules, Preprocessing, Reported, Variant,
    WeightFile,
};
use tch::nn;

/// timm's names (`timm.models.shvit`); it has no distillation head.
const TIMM: KeyMapRules = KeyMapRules {
    name: "timm",
    rules: &[
        ("blocks1.{j:0..}.{rest}", "stages.0.blocks.{j}.{rest}"),
        (
            "blocks{i:2..3}.0.{a:0..1}.{rest}",
            "stages.{i-1}.downsample.{a}.{rest}",
        ),
        (
            "blocks{i:2..3}.1.{rest}",
            "stages.{i-1}.downsample.2.{rest}",
        ),
        (
            "blocks{i:2..3}.2.{a:0..1}.{rest}",
            "stages.{i-1}.downsample.{a+3}.{rest}",
        ),
        (
            "blocks{i:2..3}.{j:3..}.{rest}",
            "stages.{i-1}.blocks.{j-3}.{rest}",
        ),
    ],
};

/// int(256 / 224 * size), bicubic, centre crop: official `data/datasets.py`.
const fn preprocessing(size: usize) -> Preprocessing {
    Preprocessing {
        size: (size, size),
        crop_pct: 0.875,
        interpolation: Interpolation::Bicubic,
        mean: IMAGENET.0,
        std: IMAGENET.1,
        source: "ysj9909/SHViT data/datasets.py",
    }
}

const fn paper(top1: f64, top5: f64) -> Reported {
    Reported::new(top1, Some(top5), "SHViT, CVPR 2024, table 2")
}

const fn paper_distilled(top1: f64) -> Reported {
    Reported::new(top1, None, "SHViT, CVPR 2024, table 2 (distilled)")
}

const fn timm(top1: f64, top5: f64) -> Reported {
    Reported::new(top1, Some(top5), "timm results-imagenet.csv")
}

const fn official(url: &'static str) -> WeightFile {
    WeightFile {
        url,
        names: "official",
        licence: "not stated (code: MIT)",
    }
}

const fn variant(name: &'static str, aliases: &'static [&'static str], size: usize) -> Variant {
    Variant {
        name,
        aliases,
        family: "shvit",
        classes: 1000,
        params: 0,
        preprocessing: preprocessing(size),
        reported: &[],
        weights: &[],
        key_maps: &[TIMM],
        build: |p, o| build(p, &Config::s1(), o),
    }
}

fn build(p: &nn::Path, config: &Config, options: &BuildOptions) -> Box<dyn Backbone> {
    Box::new(Shvit::new(p, config, options.classes))
}

/// The published variants, and their distilled forms (for which no weights were published).
pub static VARIANTS: &[Variant] = &[
    Variant {
        params: 6_330_808,
        reported: &[paper(72.8, 91.0), timm(72.780, 91.024)],
        weights: &[official(
            "https://github.com/ysj9909/SHViT/releases/download/v1.0/shvit_s1.pth",
        )],
        build: |p, o| build(p, &Config::s1(), o),
        ..variant("shvit-s1", &["shvit_s1"], 224)
    },
    Variant {
        params: 11_483_072,
        reported: &[paper(75.2, 92.4), timm(75.184, 92.316)],
        weights: &[official(
            "https://github.com/ysj9909/SHViT/releases/download/v1.0/shvit_s2.pth",
        )],
        build: |p, o| build(p, &Config::s2(), o),
        ..variant("shvit-s2", &["shvit_s2"], 224)
    },
    Variant {
        params: 14_245_273,
        reported: &[paper(77.4, 93.4), timm(77.356, 93.310)],
        weights: &[official(
            "https://github.com/ysj9909/SHViT/releases/download/v1.0/shvit_s3.pth",
        )],
        build: |p, o| build(p, &Config::s3(), o),
        ..variant("shvit-s3", &["shvit_s3"], 224)
    },
    Variant {
        params: 16_588_484,
        reported: &[paper(79.4, 94.5), timm(79.362, 94.370)],
        weights: &[official(
            "https://github.com/ysj9909/SHViT/releases/download/v1.0/shvit_s4.pth",
        )],
        build: |p, o| build(p, &Config::s4(), o),
        ..variant("shvit-s4", &["shvit_s4"], 256)
    },
    Variant {
        params: 6_652_448,
        reported: &[paper_distilled(74.0)],
        build: |p, o| build(p, &Config::s1().distilled(), o),
        ..variant("shvit-s1-dist", &["shvit_s1_dist"], 224)
    },
    Variant {
        params: 11_932_968,
        reported: &[paper_distilled(76.2)],
        build: |p, o| build(p, &Config::s2().distilled(), o),
        ..variant("shvit-s2-dist", &["shvit_s2_dist"], 224)
    },
    Variant {
        params: 14_695_169,
        reported: &[paper_distilled(78.3)],
        build: |p, o| build(p, &Config::s3().distilled(), o),
        ..variant("shvit-s3-dist", &["shvit_s3_dist"], 224)
    },
    Variant {
        params: 17_038_380,
        reported: &[paper_distilled(80.2)],
        build: |p, o| build(p, &Config::s4().distilled(), o),
        ..variant("shvit-s4-dist", &["shvit_s4_dist"], 256)
    },
];
