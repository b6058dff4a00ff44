//! The variants, as data. All have random weights only: none were published.

use super::{Config, IMAGENET, Interpolation, Preprocessing, Reported, Variant, build};

/// int(224 / 0.875), bicubic, centre crop: official `src/datasets`.
const PREPROCESSING: Preprocessing = Preprocessing {
    size: (224, 224),
    crop_pct: 0.875,
    interpolation: Interpolation::Bicubic,
    mean: IMAGENET.0,
    std: IMAGENET.1,
    source: "lim142857/Sparsifiner src/main.py",
};

const fn paper(top1: f64, source: &'static str) -> Reported {
    Reported::new(top1, None, source)
}

const RATES: &str = "Sparsifiner project page, DeiT-S keep rates";
const TOKENS: &str = "Sparsifiner project page, token and attention keep rates";
const LVVIT: &str = "Sparsifiner project page, LV-ViT";
const PLOT: &str = "Sparsifiner project page, read off its plot";

const fn variant(name: &'static str, aliases: &'static [&'static str], params: u64) -> Variant {
    Variant {
        name,
        aliases,
        family: "sparsifiner",
        classes: 1000,
        params,
        preprocessing: PREPROCESSING,
        reported: &[],
        weights: &[],
        key_maps: &[],
        build: |p, o| build(p, &Config::small(), o),
    }
}

const TINY: u64 = 5_918_632;
const SMALL: u64 = 22_251_880;
const LVVIT_SMALL: u64 = 26_420_112;

/// `keepN`: N % of keys; `tokN`: N % of tokens at each pruning; `thr`: thresholds 0.05 and 0.2. Keys 25 % otherwise.
pub static VARIANTS: &[Variant] = &[
    Variant {
        build: |p, o| build(p, &Config::tiny(), o),
        ..variant("sparsifiner-t", &["sparsifiner_tiny"], TINY)
    },
    Variant {
        build: |p, o| build(p, &Config::tiny().thresholds(0.05, 0.2), o),
        ..variant("sparsifiner-t-thr", &["sparsifiner_tiny_thr"], TINY)
    },
    variant("sparsifiner-s", &["sparsifiner_small"], SMALL),
    Variant {
        reported: &[paper(79.42, RATES)],
        build: |p, o| build(p, &Config::small().keeping(0.1), o),
        ..variant("sparsifiner-s-keep10", &["sparsifiner_small_keep10"], SMALL)
    },
    Variant {
        reported: &[paper(79.94, RATES)],
        build: |p, o| build(p, &Config::small().keeping(0.5), o),
        ..variant("sparsifiner-s-keep50", &["sparsifiner_small_keep50"], SMALL)
    },
    Variant {
        reported: &[paper(79.3, TOKENS)],
        build: |p, o| build(p, &Config::small().pruning(0.7), o),
        ..variant("sparsifiner-s-tok70", &["sparsifiner_small_tok70"], SMALL)
    },
    Variant {
        reported: &[paper(78.4, TOKENS)],
        build: |p, o| build(p, &Config::small().pruning(0.5), o),
        ..variant("sparsifiner-s-tok50", &["sparsifiner_small_tok50"], SMALL)
    },
    Variant {
        build: |p, o| build(p, &Config::base(), o),
        ..variant("sparsifiner-b", &["sparsifiner_base"], 86_768_872)
    },
    Variant {
        reported: &[paper(83.3, LVVIT)],
        build: |p, o| build(p, &Config::lvvit_small(), o),
        ..variant(
            "sparsifiner-lvvit-s",
            &["sparsifiner_lvvit_small"],
            LVVIT_SMALL,
        )
    },
    Variant {
        reported: &[paper(82.8, LVVIT)],
        build: |p, o| build(p, &Config::lvvit_small().keeping(0.1), o),
        ..variant(
            "sparsifiner-lvvit-s-keep10",
            &["sparsifiner_lvvit_small_keep10"],
            LVVIT_SMALL,
        )
    },
    Variant {
        reported: &[paper(83.83, PLOT)],
        build: |p, o| build(p, &Config::lvvit_medium(), o),
        ..variant(
            "sparsifiner-lvvit-m",
            &["sparsifiner_lvvit_medium"],
            56_165_904,
        )
    },
];
