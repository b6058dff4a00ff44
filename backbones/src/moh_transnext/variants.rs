//! What is known of MoH-ViT's variants.

use super::{Config, MohTransnext};
use crate::variant::IMAGENET;
use crate::{Backbone, BuildOptions, Interpolation, Preprocessing, Reported, Variant, WeightFile};
use tch::nn;

/// Shorter side to 256, bicubic, centre crop.
const PREPROCESSING: Preprocessing = Preprocessing {
    size: (224, 224),
    crop_pct: 0.875,
    interpolation: Interpolation::Bicubic,
    mean: IMAGENET.0,
    std: IMAGENET.1,
    source: "SkyworkAI/MoH MoH-ViT/datasets.py",
};

const fn paper(top1: f64) -> Reported {
    Reported::new(top1, None, "MoH, arXiv 2410.11842, figure of the README")
}

const fn official(url: &'static str) -> WeightFile {
    WeightFile {
        url,
        names: "official",
        licence: "Apache-2.0",
    }
}

const fn variant(name: &'static str, aliases: &'static [&'static str]) -> Variant {
    Variant {
        name,
        aliases,
        family: "moh-transnext",
        classes: 1000,
        params: 0,
        preprocessing: PREPROCESSING,
        reported: &[],
        weights: &[],
        key_maps: &[],
        build: |p, o| build(p, &Config::small_75(), o),
    }
}

fn build(p: &nn::Path, config: &Config, options: &BuildOptions) -> Box<dyn Backbone> {
    Box::new(MohTransnext::new(p, config, options.classes))
}

/// The published variants; the number is the share of active heads in percent. Their files are training checkpoints, with
/// the weights under `model`.
pub static VARIANTS: &[Variant] = &[
    Variant {
        params: 49_910_548,
        reported: &[paper(84.6)],
        weights: &[official(
            "https://huggingface.co/Chat-UniVi/MoH-ViT-S-75/resolve/main/moh_transnext_small_75.pth",
        )],
        build: |p, o| build(p, &Config::small_75(), o),
        ..variant(
            "moh-transnext-s-75",
            &["moh_transnext_small_75", "moh-vit-s-75"],
        )
    },
    Variant {
        params: 49_910_548,
        reported: &[paper(84.7)],
        weights: &[official(
            "https://huggingface.co/Chat-UniVi/MoH-ViT-S-80/resolve/main/moh_transnext_small_80.pth",
        )],
        build: |p, o| build(p, &Config::small_80(), o),
        ..variant(
            "moh-transnext-s-80",
            &["moh_transnext_small_80", "moh-vit-s-80"],
        )
    },
    Variant {
        params: 90_023_512,
        reported: &[paper(84.7)],
        weights: &[official(
            "https://huggingface.co/Chat-UniVi/MoH-ViT-B-50/resolve/main/moh_transnext_base_50.pth",
        )],
        build: |p, o| build(p, &Config::base_50(), o),
        ..variant(
            "moh-transnext-b-50",
            &["moh_transnext_base_50", "moh-vit-b-50"],
        )
    },
    Variant {
        params: 90_020_632,
        reported: &[paper(84.9)],
        weights: &[official(
            "https://huggingface.co/Chat-UniVi/MoH-ViT-B-75/resolve/main/moh_transnext_base_75.pth",
        )],
        build: |p, o| build(p, &Config::base_75(), o),
        ..variant(
            "moh-transnext-b-75",
            &["moh_transnext_base_75", "moh-vit-b-75"],
        )
    },
];
