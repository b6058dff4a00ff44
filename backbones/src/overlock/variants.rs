//! What is known of OverLoCK's variants.

use super::{Config, Overlock, Task};
use crate::variant::IMAGENET;
use crate::{Backbone, BuildOptions, Interpolation, Preprocessing, Reported, Variant, WeightFile};
use tch::nn;

/// floor(224 / crop) on the shorter side, bicubic, centre crop.
const fn classification(crop_pct: f64) -> Preprocessing {
    Preprocessing {
        size: (224, 224),
        crop_pct,
        interpolation: Interpolation::Bicubic,
        mean: IMAGENET.0,
        std: IMAGENET.1,
        source: "LMMMEng/OverLoCK models/overlock.py, default_cfg",
    }
}

/// COCO's 1333x800 as padded to multiples of 32.
const DETECTION: Preprocessing = Preprocessing {
    size: (800, 1344),
    crop_pct: 1.0,
    interpolation: Interpolation::Bilinear,
    mean: IMAGENET.0,
    std: IMAGENET.1,
    source: "LMMMEng/OverLoCK detection/configs",
};

/// The crop size of the ADE20K configurations; tests run on whole images.
const SEGMENTATION: Preprocessing = Preprocessing {
    size: (512, 512),
    interpolation: Interpolation::Bicubic,
    source: "LMMMEng/OverLoCK segmentation/configs",
    ..DETECTION
};

const fn readme(top1: f64) -> Reported {
    Reported::new(top1, None, "LMMMEng/OverLoCK README")
}

const fn official(url: &'static str) -> WeightFile {
    WeightFile {
        url,
        names: "official",
        licence: "not stated for the weights (code: Apache-2.0)",
    }
}

const fn variant(name: &'static str, aliases: &'static [&'static str]) -> Variant {
    Variant {
        name,
        aliases,
        family: "overlock",
        classes: 1000,
        params: 0,
        preprocessing: classification(0.95),
        reported: &[],
        weights: &[],
        key_maps: &[],
        build: |p, o| build(p, &Config::xt(), o),
    }
}

fn build(p: &nn::Path, config: &Config, options: &BuildOptions) -> Box<dyn Backbone> {
    Box::new(Overlock::new(p, config, options.classes))
}

/// The published networks in both forms of their checkpoints, and the backbones of the detection and segmentation
/// configurations.
pub static VARIANTS: &[Variant] = &[
    Variant {
        params: 17_307_272,
        preprocessing: classification(0.925),
        reported: &[readme(82.7)],
        weights: &[official(
            "https://github.com/LMMMEng/OverLoCK/releases/download/v1/overlock_xt_in1k_224.pth",
        )],
        build: |p, o| build(p, &Config::xt(), o),
        ..variant("overlock-xt", &["overlock_xt"])
    },
    Variant {
        params: 34_990_472,
        preprocessing: classification(0.95),
        reported: &[readme(84.2)],
        weights: &[official(
            "https://github.com/LMMMEng/OverLoCK/releases/download/v1/overlock_t_in1k_224.pth",
        )],
        build: |p, o| build(p, &Config::tiny(), o),
        ..variant("overlock-t", &["overlock_t"])
    },
    Variant {
        params: 58_309_772,
        preprocessing: classification(0.95),
        reported: &[readme(84.8)],
        weights: &[official(
            "https://github.com/LMMMEng/OverLoCK/releases/download/v1/overlock_s_in1k_224.pth",
        )],
        build: |p, o| build(p, &Config::small(), o),
        ..variant("overlock-s", &["overlock_s"])
    },
    Variant {
        params: 98_012_968,
        preprocessing: classification(0.975),
        reported: &[readme(85.1)],
        weights: &[official(
            "https://github.com/LMMMEng/OverLoCK/releases/download/v1/overlock_b_in1k_224.pth",
        )],
        build: |p, o| build(p, &Config::base(), o),
        ..variant("overlock-b", &["overlock_b"])
    },
    Variant {
        params: 16_791_384,
        preprocessing: classification(0.925),
        reported: &[readme(82.7)],
        weights: &[official(
            "https://github.com/LMMMEng/OverLoCK/releases/download/v1/overlock_xt_in1k_224_reparam.pth",
        )],
        build: |p, o| build(p, &Config::xt().merged(), o),
        ..variant("overlock-xt-reparam", &["overlock_xt_reparam"])
    },
    Variant {
        params: 33_981_064,
        preprocessing: classification(0.95),
        reported: &[readme(84.2)],
        weights: &[official(
            "https://github.com/LMMMEng/OverLoCK/releases/download/v1/overlock_t_in1k_224_reparam.pth",
        )],
        build: |p, o| build(p, &Config::tiny().merged(), o),
        ..variant("overlock-t-reparam", &["overlock_t_reparam"])
    },
    Variant {
        params: 56_670_476,
        preprocessing: classification(0.95),
        reported: &[readme(84.8)],
        weights: &[official(
            "https://github.com/LMMMEng/OverLoCK/releases/download/v1/overlock_s_in1k_224_reparam.pth",
        )],
        build: |p, o| build(p, &Config::small().merged(), o),
        ..variant("overlock-s-reparam", &["overlock_s_reparam"])
    },
    Variant {
        params: 95_520_680,
        preprocessing: classification(0.975),
        reported: &[readme(85.1)],
        weights: &[official(
            "https://github.com/LMMMEng/OverLoCK/releases/download/v1/overlock_b_in1k_224_reparam.pth",
        )],
        build: |p, o| build(p, &Config::base().merged(), o),
        ..variant("overlock-b-reparam", &["overlock_b_reparam"])
    },
    Variant {
        params: 33_127_096,
        preprocessing: DETECTION,
        build: |p, o| build(p, &Config::tiny().for_task(Task::Detection), o),
        ..variant("overlock-t-det", &["overlock_t_det"])
    },
    Variant {
        params: 56_446_524,
        preprocessing: DETECTION,
        build: |p, o| build(p, &Config::small().for_task(Task::Detection), o),
        ..variant("overlock-s-det", &["overlock_s_det"])
    },
    Variant {
        params: 96_091_496,
        preprocessing: DETECTION,
        build: |p, o| build(p, &Config::base().for_task(Task::Detection), o),
        ..variant("overlock-b-det", &["overlock_b_det"])
    },
    Variant {
        params: 32_796_472,
        preprocessing: SEGMENTATION,
        build: |p, o| build(p, &Config::tiny().for_task(Task::Segmentation), o),
        ..variant("overlock-t-seg", &["overlock_t_seg"])
    },
    Variant {
        params: 56_115_900,
        preprocessing: SEGMENTATION,
        build: |p, o| build(p, &Config::small().for_task(Task::Segmentation), o),
        ..variant("overlock-s-seg", &["overlock_s_seg"])
    },
    Variant {
        params: 95_673_464,
        preprocessing: SEGMENTATION,
        build: |p, o| build(p, &Config::base().for_task(Task::Segmentation), o),
        ..variant("overlock-b-seg", &["overlock_b_seg"])
    },
];
