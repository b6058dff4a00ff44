//! ResNet-50: the convolutional network that the others are compared with.
//!
//! Paper: "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385. Code: timm `models/resnet.py` and
//! torchvision, whose names agree. The stride is on the 3x3 convolution ("v1.5"). Any input size works.

use crate::variant::IMAGENET;
use crate::{
    Backbone, BuildOptions, Interpolation, Preprocessing, Reported, Stage, Variant, WeightFile,
};
use tch::{Kind, Tensor, nn};
use zoo_ops::taps::{self, Tap};
use zoo_ops::{Activation, ConvBn, ConvConfig, Linear};

/// Output channels of a bottleneck for each channel inside.
const EXPANSION: i64 = 4;

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bottlenecks of each layer.
    pub depth: [usize; 4],
    /// Channels inside of the bottlenecks of each layer.
    pub width: [i64; 4],
}

impl Config {
    /// ResNet-50.
    pub fn resnet50() -> Self {
        Config {
            depth: [3, 4, 6, 3],
            width: [64, 128, 256, 512],
        }
    }
}

/// relu(shortcut(x) + 1x1(relu(3x3(relu(1x1(x)))))).
#[derive(Debug)]
struct Bottleneck {
    conv1: ConvBn,
    conv2: ConvBn,
    conv3: ConvBn,
    downsample: Option<ConvBn>,
    out: Tap,
}

impl Bottleneck {
    fn new(p: &nn::Path, inputs: i64, width: i64, stride: i64) -> Self {
        let out = EXPANSION * width;
        let pair = |i: usize, inputs, out, config| {
            ConvBn::new(
                p / format!("conv{i}"),
                p / format!("bn{i}"),
                inputs,
                out,
                config,
            )
        };
        let strided = |kernel| ConvConfig::same(kernel).with_stride(stride);
        let downsample = (inputs != out || stride != 1).then(|| {
            let p = p / "downsample";
            ConvBn::new(&p / 0, &p / 1, inputs, out, strided(1))
        });
        Bottleneck {
            conv1: pair(1, inputs, width, ConvConfig::pointwise()),
            conv2: pair(2, width, width, strided(3)),
            conv3: pair(3, width, out, ConvConfig::pointwise()),
            downsample,
            out: Tap::at(p),
        }
    }

    fn forward(&self, x: Tensor) -> Tensor {
        let inside = self.conv1.forward_then(&x, Activation::Relu);
        let inside = self.conv2.forward_then(&inside, Activation::Relu);
        let residual = match &self.downsample {
            Some(conv) => conv.forward(&x),
            None => x,
        };
        let y = self.conv3.forward_add(&inside, residual, Activation::Relu);
        self.out.see(&y);
        y
    }

    fn fuse(&mut self) {
        let convs = [&mut self.conv1, &mut self.conv2, &mut self.conv3];
        convs
            .into_iter()
            .chain(self.downsample.as_mut())
            .for_each(ConvBn::fuse);
    }
}

/// The network.
#[derive(Debug)]
pub struct Resnet {
    stem: ConvBn,
    layers: Vec<Vec<Bottleneck>>,
    fc: Linear,
    config: Config,
}

impl Resnet {
    /// Builds the network under the names of timm and torchvision.
    pub fn new(p: &nn::Path, config: Config, classes: i64) -> Self {
        let seven = ConvConfig::same(7).with_stride(2);
        let mut inputs = 64;
        let mut layers = Vec::with_capacity(config.depth.len());
        for (i, (&depth, &width)) in config.depth.iter().zip(&config.width).enumerate() {
            let path = p / format!("layer{}", i + 1);
            let mut blocks = Vec::with_capacity(depth);
            for j in 0..depth {
                let stride = if i > 0 && j == 0 { 2 } else { 1 };
                blocks.push(Bottleneck::new(&(&path / j), inputs, width, stride));
                inputs = EXPANSION * width;
            }
            layers.push(blocks);
        }
        Resnet {
            stem: ConvBn::new(p / "conv1", p / "bn1", 3, 64, seven),
            layers,
            fc: Linear::new(p / "fc", inputs, classes, true),
            config,
        }
    }
}

impl Backbone for Resnet {
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = self
            .stem
            .forward_then(x, Activation::Relu)
            .max_pool2d(3, 2, 1, 1, false);
        taps::see("stem", &x);
        let mut maps = Vec::with_capacity(self.layers.len());
        for (i, blocks) in self.layers.iter().enumerate() {
            x = blocks.iter().fold(x, |x, block| block.forward(x));
            taps::see(&format!("stages.{i}"), &x);
            maps.push(x.shallow_clone());
        }
        maps
    }

    fn stage_info(&self) -> Vec<Stage> {
        self.config
            .width
            .iter()
            .zip([4, 8, 16, 32])
            .map(|(width, stride)| Stage {
                channels: EXPANSION * width,
                stride,
            })
            .collect()
    }

    fn features(&self, x: &Tensor) -> Tensor {
        let last = self.stages(x).pop().expect("four layers");
        let pooled = last.mean_dim([2i64, 3].as_slice(), false, None::<Kind>);
        taps::see("pooled", &pooled);
        pooled
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.fc.forward(features)
    }

    fn fuse(&mut self) {
        self.stem.fuse();
        self.layers.iter_mut().flatten().for_each(Bottleneck::fuse);
        self.fc.fuse();
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        if height >= 1 && width >= 1 {
            return Ok(());
        }
        Err(format!(
            "ResNet takes any size from 1x1, not {height}x{width}"
        ))
    }
}

/// The recipes differ in more than weights: each has its own evaluation transform.
const fn variant(
    name: &'static str,
    aliases: &'static [&'static str],
    crop_pct: f64,
    interpolation: Interpolation,
) -> Variant {
    Variant {
        name,
        aliases,
        family: "resnet",
        classes: 1000,
        params: 25_557_032,
        preprocessing: Preprocessing {
            size: (224, 224),
            crop_pct,
            interpolation,
            mean: IMAGENET.0,
            std: IMAGENET.1,
            source: "timm results-imagenet.csv",
        },
        reported: &[],
        weights: &[],
        key_maps: &[],
        build,
    }
}

fn build(p: &nn::Path, options: &BuildOptions) -> Box<dyn Backbone> {
    Box::new(Resnet::new(p, Config::resnet50(), options.classes))
}

const fn timm(top1: f64, top5: f64) -> Reported {
    Reported::new(top1, Some(top5), "timm results-imagenet.csv, 224 pixels")
}

const fn weights(url: &'static str, licence: &'static str) -> WeightFile {
    WeightFile {
        url,
        names: "official",
        licence,
    }
}

/// ResNet-50 with the weights of three recipes: timm's A1 ("ResNet strikes back"), torchvision's second and first.
pub static VARIANTS: &[Variant] = &[
    Variant {
        reported: &[timm(80.382, 94.598)],
        weights: &[weights(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-rsb-weights/resnet50_a1_0-14fe96d1.pth",
            "apache-2.0",
        )],
        ..variant(
            "resnet-50",
            &["resnet50", "resnet50.a1_in1k"],
            0.95,
            Interpolation::Bicubic,
        )
    },
    Variant {
        reported: &[timm(80.846, 95.430)],
        weights: &[weights(
            "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
            "bsd-3-clause",
        )],
        ..variant(
            "resnet-50-tv2",
            &["resnet50.tv2_in1k"],
            0.965,
            Interpolation::Bilinear,
        )
    },
    Variant {
        reported: &[timm(76.156, 92.866)],
        weights: &[weights(
            "https://download.pytorch.org/models/resnet50-0676ba61.pth",
            "bsd-3-clause",
        )],
        ..variant(
            "resnet-50-tv",
            &["resnet50.tv_in1k"],
            0.875,
            Interpolation::Bilinear,
        )
    },
];
