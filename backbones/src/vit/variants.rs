//! The published weights, as data.

use super::{Config, HALF, IMAGENET, Reported, Variant, build, preprocessing};
use crate::WeightFile;

const fn timm(top1: f64, top5: f64, source: &'static str) -> Reported {
    Reported::new(top1, Some(top5), source)
}

const fn file(url: &'static str) -> WeightFile {
    WeightFile {
        url,
        names: "official",
        licence: "Apache-2.0",
    }
}

const fn deit(name: &'static str, aliases: &'static [&'static str]) -> Variant {
    Variant {
        name,
        aliases,
        family: "deit",
        classes: 1000,
        params: 0,
        preprocessing: preprocessing(IMAGENET),
        reported: &[],
        weights: &[],
        key_maps: &[],
        build: |p, o| build(p, &Config::tiny(), o),
    }
}

const fn vit(name: &'static str, aliases: &'static [&'static str]) -> Variant {
    Variant {
        family: "vit",
        classes: 1000,
        preprocessing: preprocessing(HALF),
        ..deit(name, aliases)
    }
}

const FB: &str = "timm results-imagenet.csv (fb_in1k)";
const AUGREG_21K: &str = "timm results-imagenet.csv (augreg_in21k_ft_in1k)";
const AUGREG2_21K: &str = "timm results-imagenet.csv (augreg2_in21k_ft_in1k)";
const AUGREG_1K: &str = "timm results-imagenet.csv (augreg_in1k)";
const ORIGINAL_21K: &str = "timm results-imagenet.csv (orig_in21k_ft_in1k)";

/// A configuration of this zoo: DeiT with a share of the heads active, in percent.
const fn moh(name: &'static str) -> Variant {
    Variant {
        family: "moh-deit",
        ..deit(name, &[])
    }
}

/// Where a variant has several weight files, the figures stand in the same order.
pub static VARIANTS: &[Variant] = &[
    Variant {
        params: 5_717_416,
        reported: &[timm(72.190, 91.100, FB)],
        weights: &[
            file("https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth"),
            file(
                "https://huggingface.co/timm/deit_tiny_patch16_224.fb_in1k/resolve/main/model.safetensors",
            ),
        ],
        ..deit(
            "deit-t",
            &[
                "deit_tiny",
                "deit_tiny_patch16_224",
                "deit_tiny_patch16_224_dyn",
            ],
        )
    },
    Variant {
        params: 22_050_664,
        reported: &[timm(79.856, 95.056, FB)],
        weights: &[
            file("https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth"),
            file(
                "https://huggingface.co/timm/deit_small_patch16_224.fb_in1k/resolve/main/model.safetensors",
            ),
        ],
        build: |p, o| build(p, &Config::small(), o),
        ..deit("deit-s", &["deit_small", "deit_small_patch16_224"])
    },
    Variant {
        params: 86_567_656,
        reported: &[timm(81.980, 95.740, FB)],
        weights: &[
            file("https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth"),
            file(
                "https://huggingface.co/timm/deit_base_patch16_224.fb_in1k/resolve/main/model.safetensors",
            ),
        ],
        build: |p, o| build(p, &Config::base(), o),
        ..deit("deit-b", &["deit_base", "deit_base_patch16_224"])
    },
    Variant {
        params: 5_717_416,
        reported: &[timm(75.452, 92.858, AUGREG_21K)],
        weights: &[file(
            "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors",
        )],
        ..vit("vit-t", &["vit_tiny", "vit_tiny_patch16_224"])
    },
    Variant {
        params: 22_050_664,
        reported: &[
            timm(81.402, 96.150, AUGREG_21K),
            timm(78.842, 94.280, AUGREG_1K),
        ],
        weights: &[
            file(
                "https://huggingface.co/timm/vit_small_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors",
            ),
            file(
                "https://huggingface.co/timm/vit_small_patch16_224.augreg_in1k/resolve/main/model.safetensors",
            ),
        ],
        build: |p, o| build(p, &Config::small(), o),
        ..vit("vit-s", &["vit_small", "vit_small_patch16_224"])
    },
    Variant {
        params: 86_567_656,
        reported: &[
            timm(85.108, 97.530, AUGREG2_21K),
            timm(84.534, 97.300, AUGREG_21K),
            timm(81.782, 96.122, ORIGINAL_21K),
            timm(79.154, 94.108, AUGREG_1K),
        ],
        weights: &[
            file(
                "https://huggingface.co/timm/vit_base_patch16_224.augreg2_in21k_ft_in1k/resolve/main/model.safetensors",
            ),
            file(
                "https://huggingface.co/timm/vit_base_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors",
            ),
            file(
                "https://huggingface.co/timm/vit_base_patch16_224.orig_in21k_ft_in1k/resolve/main/model.safetensors",
            ),
            file(
                "https://huggingface.co/timm/vit_base_patch16_224.augreg_in1k/resolve/main/model.safetensors",
            ),
        ],
        build: |p, o| build(p, &Config::base(), o),
        ..vit("vit-b", &["vit_base", "vit_base_patch16_224"])
    },
    Variant {
        params: 22_087_528,
        build: |p, o| build(p, &Config::small().with_routing(2, 2), o),
        ..moh("moh-deit-s-67")
    },
    Variant {
        params: 86_696_680,
        build: |p, o| build(p, &Config::base().with_routing(3, 6), o),
        ..moh("moh-deit-b-75")
    },
    Variant {
        params: 86_696_680,
        build: |p, o| build(p, &Config::base().with_routing(2, 4), o),
        ..moh("moh-deit-b-50")
    },
];
