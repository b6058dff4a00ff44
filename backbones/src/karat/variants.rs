//! The published variants of KArAt as data; accuracies of 100 epochs from scratch at 224x224.

use super::{Config, PREPROCESSING, build};
use crate::{Backbone, BuildOptions, Reported, Variant};
use tch::nn;
use zoo_ops::kolmogorov::{Base, Basis, Wavelet};

const G1: Basis = Basis::Fourier { grid: 1 };
const G3: Basis = Basis::Fourier { grid: 3 };

const fn paper(top1: f64, top5: f64) -> Reported {
    Reported::new(top1, Some(top5), "KArAt, arXiv 2503.10632v3")
}

const fn cifar10(top1: f64) -> Reported {
    Reported::new(top1, None, "KArAt, arXiv 2503.10632v3").on("CIFAR-10")
}

const fn cifar100(top1: f64) -> Reported {
    Reported::new(top1, None, "KArAt, arXiv 2503.10632v3").on("CIFAR-100")
}

fn wavelet(p: &nn::Path, wavelet: Wavelet, options: &BuildOptions) -> Box<dyn Backbone> {
    build(p, Config::tiny(Basis::Wavelet(wavelet)), options)
}

const fn variant(name: &'static str, params: u64) -> Variant {
    Variant {
        name,
        aliases: &[],
        family: "karat",
        classes: 1000,
        params,
        preprocessing: PREPROCESSING,
        reported: &[],
        weights: &[],
        key_maps: &[],
        build: |p, o| build(p, Config::tiny(G3), o),
    }
}

/// Fourier operators blockwise (b) and universal (u), then on ViT-Tiny the base functions, the l1 projection and the
/// other bases.
pub static VARIANTS: &[Variant] = &[
    Variant {
        reported: &[
            paper(59.11, 82.01),
            paper(76.69, 98.57).on("CIFAR-10"),
            paper(46.29, 77.02).on("CIFAR-100"),
        ],
        ..variant("karat-tiny-g3b", 6_313_144)
    },
    Variant {
        reported: &[
            paper(57.97, 81.03),
            paper(75.56, 98.48).on("CIFAR-10"),
            paper(46.75, 76.81).on("CIFAR-100"),
        ],
        build: |p, o| build(p, Config::tiny(G3).universal(), o),
        ..variant("karat-tiny-g3u", 5_767_060)
    },
    Variant {
        reported: &[cifar10(75.75), cifar100(45.77)],
        build: |p, o| build(p, Config::tiny(G1), o),
        ..variant("karat-tiny-g1b", 5_972_728)
    },
    Variant {
        reported: &[
            paper(67.77, 87.51),
            paper(79.78, 98.70).on("CIFAR-10"),
            paper(54.11, 81.02).on("CIFAR-100"),
        ],
        build: |p, o| build(p, Config::small(G3), o),
        ..variant("karat-small-g3b", 23_242_120)
    },
    Variant {
        reported: &[
            paper(67.76, 87.60),
            paper(79.52, 98.85).on("CIFAR-10"),
            paper(53.86, 81.45).on("CIFAR-100"),
        ],
        build: |p, o| build(p, Config::small(G3).universal(), o),
        ..variant("karat-small-g3u", 22_149_952)
    },
    Variant {
        reported: &[
            paper(68.03, 86.41),
            paper(81.81, 99.01).on("CIFAR-10"),
            paper(55.92, 82.04).on("CIFAR-100"),
        ],
        build: |p, o| build(p, Config::base(G1), o),
        ..variant("karat-base-g1b", 87_588_904)
    },
    Variant {
        reported: &[
            paper(68.83, 87.69),
            paper(80.75, 98.76).on("CIFAR-10"),
            paper(57.36, 82.89).on("CIFAR-100"),
        ],
        build: |p, o| build(p, Config::base(G1).universal(), o),
        ..variant("karat-base-g1u", 86_652_760)
    },
    Variant {
        reported: &[cifar10(75.90)],
        build: |p, o| build(p, Config::tiny(G3).with_base(Base::Identity), o),
        ..variant("karat-tiny-g3b-identity", 6_313_144)
    },
    Variant {
        reported: &[cifar10(76.25)],
        build: |p, o| build(p, Config::tiny(G3).with_base(Base::Silu), o),
        ..variant("karat-tiny-g3b-silu", 6_313_144)
    },
    Variant {
        reported: &[cifar10(76.48)],
        build: |p, o| build(p, Config::tiny(G3).with_base(Base::Gelu), o),
        ..variant("karat-tiny-g3b-gelu", 6_313_144)
    },
    Variant {
        reported: &[cifar10(41.99)],
        build: |p, o| build(p, Config::tiny(G3).with_l1(), o),
        ..variant("karat-tiny-g3b-l1", 6_313_144)
    },
    Variant {
        reported: &[cifar10(69.22), cifar100(37.93)],
        build: |p, o| build(p, Config::tiny(Basis::Rational), o),
        ..variant("karat-tiny-rational", 6_653_560)
    },
    Variant {
        reported: &[cifar10(69.62), cifar100(38.92)],
        build: |p, o| wavelet(p, Wavelet::MexicanHat, o),
        ..variant("karat-tiny-mexican-hat", 6_057_832)
    },
    Variant {
        reported: &[cifar10(70.84), cifar100(37.88)],
        build: |p, o| wavelet(p, Wavelet::Morlet, o),
        ..variant("karat-tiny-morlet", 6_057_832)
    },
    Variant {
        reported: &[cifar10(73.89), cifar100(44.23)],
        build: |p, o| wavelet(p, Wavelet::Dog, o),
        ..variant("karat-tiny-dog", 6_057_832)
    },
    Variant {
        reported: &[cifar10(71.13), cifar100(41.65)],
        build: |p, o| wavelet(p, Wavelet::Meyer, o),
        ..variant("karat-tiny-meyer", 6_057_832)
    },
    Variant {
        reported: &[cifar10(71.41), cifar100(39.40)],
        build: |p, o| wavelet(p, Wavelet::Shannon, o),
        ..variant("karat-tiny-shannon", 6_057_832)
    },
    Variant {
        build: |p, o| build(p, Config::tiny(Basis::Spline), o),
        ..variant("karat-tiny-spline", 6_993_976)
    },
];
