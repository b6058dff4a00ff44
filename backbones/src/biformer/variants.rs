//! What is known of BiFormer's variants.

use super::{BiFormer, Config};
use crate::variant::IMAGENET;
use crate::{Backbone, BuildOptions, Interpolation, Preprocessing, Reported, Variant, WeightFile};
use tch::nn;

/// Shorter side to 256, bicubic, centre crop: the official evaluation, not the models' `default_cfg`.
const CLASSIFICATION: Preprocessing = Preprocessing {
    size: (224, 224),
    crop_pct: 0.875,
    interpolation: Interpolation::Bicubic,
    mean: IMAGENET.0,
    std: IMAGENET.1,
    source: "rayleizhu/BiFormer main.py",
};

/// The crop size of the ADE20K configurations, whose test runs on whole images.
const SEGMENTATION: Preprocessing = Preprocessing {
    size: (512, 512),
    crop_pct: 1.0,
    interpolation: Interpolation::Bilinear,
    source: "rayleizhu/BiFormer semantic_segmentation/configs",
    ..CLASSIFICATION
};

/// COCO's 1333x800 as padded to multiples of 32.
const DETECTION: Preprocessing = Preprocessing {
    size: (800, 1344),
    crop_pct: 1.0,
    interpolation: Interpolation::Bilinear,
    source: "rayleizhu/BiFormer object_detection/configs",
    ..CLASSIFICATION
};

const fn readme(top1: f64) -> Reported {
    Reported::new(top1, None, "rayleizhu/BiFormer README")
}

const fn official(url: &'static str) -> WeightFile {
    WeightFile {
        url,
        names: "official",
        licence: "not stated for the weights (project: MIT)",
    }
}

const fn variant(name: &'static str, aliases: &'static [&'static str]) -> Variant {
    Variant {
        name,
        aliases,
        family: "biformer",
        classes: 1000,
        params: 0,
        preprocessing: CLASSIFICATION,
        reported: &[],
        weights: &[],
        key_maps: &[],
        build: |p, o| build(p, &Config::tiny(), o),
    }
}

fn build(p: &nn::Path, config: &Config, options: &BuildOptions) -> Box<dyn Backbone> {
    Box::new(BiFormer::new(p, config, options.classes))
}

/// The published variants, and the backbones of the detection and segmentation configurations.
pub static VARIANTS: &[Variant] = &[
    Variant {
        params: 13_142_760,
        reported: &[readme(81.4)],
        weights: &[official(
            "https://api.onedrive.com/v1.0/shares/s!AkBbczdRlZvChHEOoGkgwgQzEDlM/root/content",
        )],
        build: |p, o| build(p, &Config::tiny(), o),
        ..variant("biformer-t", &["biformer_tiny"])
    },
    Variant {
        params: 25_536_232,
        reported: &[
            readme(83.8),
            Reported::new(
                83.754,
                Some(96.638),
                "rayleizhu/BiFormer README, evaluation run",
            ),
        ],
        weights: &[official(
            "https://api.onedrive.com/v1.0/shares/s!AkBbczdRlZvChHDyM-x9KWRBZ832/root/content",
        )],
        build: |p, o| build(p, &Config::small(), o),
        ..variant("biformer-s", &["biformer_small"])
    },
    Variant {
        params: 56_804_968,
        reported: &[readme(84.3)],
        weights: &[official(
            "https://api.onedrive.com/v1.0/shares/s!AkBbczdRlZvChHI_XPhoadjaNxtO/root/content",
        )],
        build: |p, o| build(p, &Config::base(), o),
        ..variant("biformer-b", &["biformer_base"])
    },
    Variant {
        params: 28_372_552,
        reported: &[readme(82.7)],
        weights: &[official(
            "https://api.onedrive.com/v1.0/shares/s!AkBbczdRlZvChSf-m7ujkvx9lIQ1/root/content",
        )],
        build: |p, o| build(p, &Config::stl(), o),
        ..variant("biformer-stl", &[])
    },
    Variant {
        params: 28_372_552,
        reported: &[readme(82.7)],
        weights: &[official(
            "https://api.onedrive.com/v1.0/shares/s!AkBbczdRlZvChWYrKbWbMgqd2Ai0/root/content",
        )],
        build: |p, o| build(p, &Config::stl_nchw(), o),
        ..variant("biformer-stl-nchw", &[])
    },
    Variant {
        params: 25_024_128,
        preprocessing: SEGMENTATION,
        build: |p, o| build(p, &Config::small().dense(8), o),
        ..variant("biformer-s-seg", &["biformer_small_seg"])
    },
    Variant {
        params: 56_037_312,
        preprocessing: SEGMENTATION,
        build: |p, o| build(p, &Config::base().dense(8), o),
        ..variant("biformer-b-seg", &["biformer_base_seg"])
    },
    Variant {
        params: 25_024_128,
        preprocessing: DETECTION,
        build: |p, o| build(p, &Config::small().dense(16), o),
        ..variant("biformer-s-det", &["biformer_small_det"])
    },
    Variant {
        params: 56_037_312,
        preprocessing: DETECTION,
        build: |p, o| build(p, &Config::base().dense(16), o),
        ..variant("biformer-b-det", &["biformer_base_det"])
    },
];
