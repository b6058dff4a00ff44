//! The variants as data.

use super::network::{Network, OverTime};
use super::parts::{Embedding, Projection};
use super::qkformer::{self, QkFormer};
use super::sdt::{self, Sdt};
use super::spikformer::{self, Spikformer};
use super::spikingformer::{self, Spikingformer};
use super::time::Neurons;
use crate::variant::IMAGENET;
use crate::{
    Backbone, BuildOptions, CIFAR_10, Interpolation, Preprocessing, Reported, Variant, WeightFile,
};
use tch::nn;
use zoo_ops::spiking::{NeuronConfig, NeuronKind};

/// Time steps of every configuration for images.
const STEPS: i64 = 4;

/// The neurons of a network whose published ones are `published`, for `steps` unless the caller wants others.
pub(super) fn neurons(published: NeuronKind, steps: i64, options: &BuildOptions) -> Neurons {
    let kind = options.spiking.neuron.unwrap_or(published);
    let steps = options.spiking.steps.unwrap_or(steps);
    // Whatever a neuron's own default, STEP's configurations say threshold 1.
    Neurons(NeuronConfig::new(kind).threshold(1.0).steps(steps))
}

/// STEP's evaluation transform for CIFAR: the images as they are.
pub(super) const CIFAR: Preprocessing = Preprocessing {
    size: (32, 32),
    crop_pct: 1.0,
    interpolation: Interpolation::Bicubic,
    mean: [0.4914, 0.4822, 0.4465],
    std: [0.2470, 0.2435, 0.2616],
    source: "Fancyssc/STEP cls/configs/*/cifar10.yml",
};

/// STEP's evaluation transform for ImageNet: the whole image is cropped to its centre.
pub(super) const IMAGENET_224: Preprocessing = Preprocessing {
    size: (224, 224),
    crop_pct: 1.0,
    interpolation: Interpolation::Bicubic,
    mean: IMAGENET.0,
    std: IMAGENET.1,
    source: "Fancyssc/STEP cls/configs/*/imgnet.yml",
};

/// Rows of the CIFAR image one after another.
pub(super) const SEQUENCE: Preprocessing = Preprocessing {
    size: (1, 1024),
    source: "Fancyssc/STEP cls/configs/*/scifar10.yml",
    ..CIFAR
};

/// A figure of STEP's own reproduction on CIFAR-10, in percent.
pub(super) const fn reproduced(top1: f64) -> Reported {
    Reported::new(
        top1,
        None,
        "Fancyssc/STEP Results.md (T = 4, 400 epochs, batch 128)",
    )
    .on(CIFAR_10)
}

/// CIFAR-10 as a sequence of pixels.
const SEQUENTIAL_CIFAR_10: &str = "sequential CIFAR-10";

/// Checkpoints of all of STEP's runs; the folder of each names its model, data set, neuron and seed.
pub(super) const WEIGHTS: &[WeightFile] = &[WeightFile {
    url: "https://huggingface.co/Fancysean/STEP",
    names: "official",
    licence: "not stated",
}];

/// What variants have in common, for CIFAR-10 images.
pub(super) const CIFAR_VARIANT: Variant = Variant {
    name: "",
    aliases: &[],
    family: "step",
    classes: 10,
    params: 0,
    preprocessing: CIFAR,
    reported: &[],
    weights: WEIGHTS,
    key_maps: &[],
    build: |_, _| unreachable!("a variant names its own"),
};

/// The same for ImageNet images; STEP published no accuracy.
pub(super) const IMAGENET_VARIANT: Variant = Variant {
    classes: 1000,
    preprocessing: IMAGENET_224,
    ..CIFAR_VARIANT
};

/// A network with STEP's LIF neurons over its four steps, unless the caller wants others.
pub(super) fn network<N: Network + 'static>(
    options: &BuildOptions,
    build: impl FnOnce(&Neurons) -> N,
) -> Box<dyn Backbone> {
    network_of((NeuronKind::Lif, STEPS), options, build)
}

/// A network with these neurons over these steps, unless the caller wants others.
pub(super) fn network_of<N: Network + 'static>(
    (published, steps): (NeuronKind, i64),
    options: &BuildOptions,
    build: impl FnOnce(&Neurons) -> N,
) -> Box<dyn Backbone> {
    over_time(&neurons(published, steps, options), options, build)
}

/// A network with exactly these neurons.
pub(super) fn over_time<N: Network + 'static>(
    neurons: &Neurons,
    options: &BuildOptions,
    build: impl FnOnce(&Neurons) -> N,
) -> Box<dyn Backbone> {
    Box::new(OverTime::new(build(neurons), &neurons.0, options))
}

fn spikformer(p: &nn::Path, config: spikformer::Config, o: &BuildOptions) -> Box<dyn Backbone> {
    let sizes = (o.classes, o.size[1]);
    network(o, |neurons| Spikformer::new(p, config, sizes, neurons))
}

fn sdt(p: &nn::Path, config: sdt::Config, o: &BuildOptions) -> Box<dyn Backbone> {
    let sizes = (o.classes, o.size[1]);
    network(o, |neurons| Sdt::new(p, config, sizes, neurons))
}

fn qkformer(p: &nn::Path, config: qkformer::Config, o: &BuildOptions) -> Box<dyn Backbone> {
    network(o, |neurons| QkFormer::new(p, config, o.classes, neurons))
}

fn spikingformer(
    p: &nn::Path,
    config: spikingformer::Config,
    o: &BuildOptions,
) -> Box<dyn Backbone> {
    network(o, |neurons| {
        Spikingformer::new(p, config, o.classes, neurons)
    })
}

/// Every variant.
pub static VARIANTS: &[Variant] = &[
    Variant {
        name: "step-spikformer-cifar",
        aliases: &["spikformer_cifar", "spikformer-4-384"],
        params: 9_324_796,
        reported: &[reproduced(95.12)],
        build: |p, o| spikformer(p, spikformer::Config::cifar(), o),
        ..CIFAR_VARIANT
    },
    Variant {
        name: "step-spikformer-imagenet",
        aliases: &["spikformer_imagenet", "spikformer-8-512"],
        params: 29_701_794,
        build: |p, o| spikformer(p, spikformer::Config::imagenet(), o),
        ..IMAGENET_VARIANT
    },
    Variant {
        name: "step-sdt-cifar",
        aliases: &["sdt_cifar", "sdt-2-512"],
        params: 10_233_590,
        reported: &[reproduced(95.79)],
        build: |p, o| sdt(p, sdt::Config::cifar(), o),
        ..CIFAR_VARIANT
    },
    Variant {
        name: "step-sdt-imagenet",
        aliases: &["std_imagenet", "sdt_imagenet"],
        params: 29_690_036,
        build: |p, o| sdt(p, sdt::Config::imagenet(), o),
        ..IMAGENET_VARIANT
    },
    Variant {
        name: "step-qkformer-cifar",
        aliases: &["qkformer_cifar", "qkformer-4-384"],
        params: 6_706_304,
        reported: &[reproduced(96.24)],
        build: |p, o| qkformer(p, qkformer::Config::cifar(), o),
        ..CIFAR_VARIANT
    },
    Variant {
        name: "step-qkformer-imagenet",
        aliases: &["qkformer_imagenet"],
        params: 16_064_102,
        build: |p, o| qkformer(p, qkformer::Config::imagenet(), o),
        ..IMAGENET_VARIANT
    },
    Variant {
        name: "step-qkformer-imagenet-h6",
        aliases: &["qkformer_imagenet_h6"],
        params: 16_064_102,
        build: |p, o| {
            let config = qkformer::Config {
                heads: 6,
                ..qkformer::Config::imagenet()
            };
            qkformer(p, config, o)
        },
        ..IMAGENET_VARIANT
    },
    Variant {
        name: "step-qkformer-imagenet-512",
        aliases: &["qkformer_imagenet_512"],
        params: 28_352_950,
        build: |p, o| {
            let config = qkformer::Config {
                width: 512,
                ..qkformer::Config::imagenet()
            };
            qkformer(p, config, o)
        },
        ..IMAGENET_VARIANT
    },
    Variant {
        name: "step-spikingformer-cifar",
        aliases: &["spikingformer_cifar", "spikingformer-4-384"],
        params: 9_318_650,
        reported: &[reproduced(95.53)],
        build: |p, o| spikingformer(p, spikingformer::Config::cifar(), o),
        ..CIFAR_VARIANT
    },
    Variant {
        name: "step-spikformer-cifar-repconv",
        aliases: &["spikformer_repconv", "spikformer_cifar_repconv"],
        params: 11_745_532,
        reported: &[reproduced(95.57)],
        build: |p, o| {
            let config = spikformer::Config {
                projection: Projection::RepConv,
                ..spikformer::Config::cifar()
            };
            spikformer(p, config, o)
        },
        ..CIFAR_VARIANT
    },
    Variant {
        name: "step-spikformer-cifar-conv2",
        aliases: &["spikformer_conv2", "spikformer_cifar_conv2"],
        params: 8_786_472,
        reported: &[reproduced(91.92)],
        build: |p, o| {
            let config = spikformer::Config {
                embedding: Embedding::TwoConvs,
                ..spikformer::Config::cifar()
            };
            spikformer(p, config, o)
        },
        ..CIFAR_VARIANT
    },
    Variant {
        name: "step-spikformer-scifar",
        aliases: &["spikformer_scifar", "spikformer_cifar_scifar"],
        params: 8_053_514,
        reported: &[reproduced(84.26).on(SEQUENTIAL_CIFAR_10)],
        preprocessing: SEQUENCE,
        build: |p, o| {
            let config = spikformer::Config {
                embedding: Embedding::Sequence,
                ..spikformer::Config::cifar()
            };
            spikformer(p, config, o)
        },
        ..CIFAR_VARIANT
    },
    Variant {
        name: "step-sdt-cifar-repconv",
        aliases: &["sdt_repconv", "sdt_cifar_repconv"],
        params: 12_374_774,
        reported: &[reproduced(96.48)],
        build: |p, o| {
            let config = sdt::Config {
                projection: Projection::RepConv,
                ..sdt::Config::cifar()
            };
            sdt(p, config, o)
        },
        ..CIFAR_VARIANT
    },
    Variant {
        name: "step-sdt-cifar-conv2",
        aliases: &["sdt_conv2", "sdt_cifar_conv2"],
        params: 9_276_210,
        reported: &[reproduced(93.03)],
        build: |p, o| {
            let config = sdt::Config {
                embedding: Embedding::TwoConvs,
                ..sdt::Config::cifar()
            };
            sdt(p, config, o)
        },
        ..CIFAR_VARIANT
    },
    Variant {
        name: "step-sdt-scifar",
        aliases: &["sdt_scifar", "sdt_cifar_scifar"],
        params: 7_973_300,
        reported: &[reproduced(82.31).on(SEQUENTIAL_CIFAR_10)],
        preprocessing: SEQUENCE,
        build: |p, o| {
            let config = sdt::Config {
                embedding: Embedding::Sequence,
                ..sdt::Config::cifar()
            };
            sdt(p, config, o)
        },
        ..CIFAR_VARIANT
    },
];
