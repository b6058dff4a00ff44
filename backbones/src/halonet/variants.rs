//! The variants as data.

use super::{Config, PaperSizes, build};
use crate::variant::IMAGENET;
use crate::{Interpolation, Preprocessing, Reported, Variant, WeightFile};

const HALF: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

const fn preprocessing(size: usize, crop_pct: f64, norm: ([f32; 3], [f32; 3])) -> Preprocessing {
    Preprocessing {
        size: (size, size),
        crop_pct,
        interpolation: Interpolation::Bicubic,
        mean: norm.0,
        std: norm.1,
        source: "timm byoanet.py default_cfgs",
    }
}

const fn timm(top1: f64, top5: f64) -> Reported {
    Reported::new(top1, Some(top5), "timm results-imagenet.csv")
}

const fn release(url: &'static str) -> WeightFile {
    WeightFile {
        url,
        names: "official",
        licence: "apache-2.0",
    }
}

const fn variant(name: &'static str, aliases: &'static [&'static str]) -> Variant {
    Variant {
        name,
        aliases,
        family: "halonet",
        params: 0,
        preprocessing: preprocessing(256, 0.94, IMAGENET),
        reported: &[],
        weights: &[],
        key_maps: &[],
        build: |p, o| build(p, Config::h1(), o),
    }
}

/// A variant of the paper: nobody published weights, evaluation transform or names, so the latter two are timm's.
const fn paper(name: &'static str, size: usize) -> Variant {
    Variant {
        preprocessing: Preprocessing {
            source: "size: the paper; the rest was not published and is timm's for halonet_h1",
            ..preprocessing(size, 0.94, IMAGENET)
        },
        ..variant(name, &[])
    }
}

/// timm's models, then the paper's family as far as it is known.
pub static VARIANTS: &[Variant] = &[
    Variant {
        params: 8_100_056,
        build: |p, o| build(p, Config::h1(), o),
        ..variant("halonet-h1", &[])
    },
    Variant {
        params: 12_480_288,
        preprocessing: preprocessing(256, 0.95, IMAGENET),
        reported: &[timm(79.134, 94.340)],
        weights: &[release(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-attn-weights/halonet26t_a1h_256-3083328c.pth",
        )],
        build: |p, o| build(p, Config::halonet26t(), o),
        ..variant("halonet-26t", &["halonet26t", "halonet26t.a1h_in1k"])
    },
    Variant {
        params: 22_733_280,
        reported: &[timm(81.640, 95.612)],
        weights: &[release(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-attn-weights/halonet50ts_a1h2_256-f3a3daee.pth",
        )],
        build: |p, o| build(p, Config::halonet50ts(), o),
        ..variant("halonet-50ts", &["halonet50ts", "halonet50ts.a1h_in1k"])
    },
    Variant {
        params: 13_691_712,
        reported: &[timm(80.976, 95.272)],
        weights: &[release(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-attn-weights/sehalonet33ts_256-87e053f9.pth",
        )],
        build: |p, o| build(p, Config::sehalonet33ts(), o),
        ..variant(
            "sehalonet-33ts",
            &["sehalonet33ts", "sehalonet33ts.ra2_in1k"],
        )
    },
    Variant {
        params: 10_756_885,
        reported: &[timm(79.518, 94.582)],
        weights: &[release(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-attn-weights/eca_halonext26ts_c_256-06906299.pth",
        )],
        build: |p, o| build(p, Config::eca_halonext26ts(), o),
        ..variant(
            "eca-halonext-26ts",
            &["eca_halonext26ts", "eca_halonext26ts.c1_in1k"],
        )
    },
    Variant {
        params: 11_680_072,
        preprocessing: preprocessing(224, 0.94, HALF),
        reported: &[timm(81.058, 95.196)],
        weights: &[release(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-attn-weights/haloregnetz_c_raa_256-c8ad7616.pth",
        )],
        build: |p, o| build(p, Config::haloregnetz_b(), o),
        ..variant("haloregnetz-b", &["haloregnetz_b.ra3_in1k"])
    },
    Variant {
        params: 22_635_360,
        preprocessing: preprocessing(256, 0.95, IMAGENET),
        reported: &[timm(82.084, 95.658)],
        weights: &[release(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-attn-weights/halo2botnet50ts_a1h2_256-fd9c11a3.pth",
        )],
        build: |p, o| build(p, Config::halo2botnet50ts([256; 2]), o),
        ..variant(
            "halo2botnet-50ts",
            &["halo2botnet50ts_256", "halo2botnet50ts_256.a1h_in1k"],
        )
    },
    Variant {
        params: 22_569_824,
        preprocessing: preprocessing(256, 0.95, IMAGENET),
        reported: &[timm(81.552, 95.510)],
        weights: &[release(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-attn-weights/lamhalobotnet50ts_a1h2_256-fe3d9445.pth",
        )],
        build: |p, o| build(p, Config::lamhalobotnet50ts([256; 2]), o),
        ..variant(
            "lamhalobotnet-50ts",
            &["lamhalobotnet50ts_256", "lamhalobotnet50ts_256.a1h_in1k"],
        )
    },
    Variant {
        params: 5_502_248,
        build: |p, o| build(p, Config::paper(PaperSizes::H0), o),
        ..paper("halonet-h0-paper", 256)
    },
    Variant {
        params: 8_101_352,
        build: |p, o| build(p, Config::paper(PaperSizes::H1), o),
        ..paper("halonet-h1-paper", 256)
    },
    Variant {
        params: 9_405_608,
        build: |p, o| build(p, Config::paper(PaperSizes::H2), o),
        ..paper("halonet-h2-paper", 256)
    },
    Variant {
        params: 11_842_792,
        build: |p, o| build(p, Config::paper(PaperSizes::H3), o),
        ..paper("halonet-h3-paper", 320)
    },
    Variant {
        params: 19_103_464,
        build: |p, o| build(p, Config::paper(PaperSizes::H4), o),
        ..paper("halonet-h4-paper", 384)
    },
    Variant {
        params: 30_718_952,
        build: |p, o| build(p, Config::paper(PaperSizes::H5), o),
        ..paper("halonet-h5-paper", 448)
    },
    Variant {
        params: 43_458_280,
        build: |p, o| build(p, Config::paper(PaperSizes::H6), o),
        ..paper("halonet-h6-paper", 512)
    },
    // The paper's 600 pixels are not whole blocks of 10: 640 are.
    Variant {
        params: 67_434_728,
        reported: &[Reported::new(
            84.9,
            None,
            "HaloNet, CVPR 2021, at 600 pixels, as quoted by keras_cv_attention_models",
        )],
        build: |p, o| build(p, Config::paper(PaperSizes::H7), o),
        ..paper("halonet-h7-paper", 640)
    },
];
