//! What is known of a variant, as data.

use crate::Backbone;
use std::fmt;
use std::str::FromStr;
use tch::nn;
use zoo_ops::spiking::{Encoding, NeuronKind};

/// How the resize of the evaluation transform interpolates (Pillow's antialiased filters).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// Triangle filter.
    Bilinear,
    /// Cubic filter with a = -0.5.
    Bicubic,
}

/// The evaluation transform with which the reported figures were measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preprocessing {
    /// Height and width of the network's input in pixels.
    pub size: (usize, usize),
    /// The shorter side is resized to floor(size / crop_pct), then the centre is cropped.
    pub crop_pct: f64,
    /// Filter of the resize.
    pub interpolation: Interpolation,
    /// Subtracted from RGB in [0, 1].
    pub mean: [f32; 3],
    /// Divides afterwards.
    pub std: [f32; 3],
    /// Where these figures stand.
    pub source: &'static str,
}

/// ImageNet's channel means and deviations.
pub const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// The data set of most reported figures.
pub const IMAGENET_1K: &str = "ImageNet-1k";

/// The data set of the small models.
pub const CIFAR_10: &str = "CIFAR-10";

/// A figure that somebody published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reported {
    /// Top-1 accuracy in percent.
    pub top1: f64,
    /// Top-5 accuracy, percent, where published.
    pub top5: Option<f64>,
    /// Whose validation or test images: `ImageNet-1k` unless [`Reported::on`] says otherwise.
    pub data: &'static str,
    /// Who published it, and where.
    pub source: &'static str,
}

impl Reported {
    /// A published accuracy on ImageNet-1k, in percent.
    pub const fn new(top1: f64, top5: Option<f64>, source: &'static str) -> Self {
        Reported {
            top1,
            top5,
            data: IMAGENET_1K,
            source,
        }
    }

    /// The same figure for another data set.
    pub const fn on(self, data: &'static str) -> Self {
        Reported { data, ..self }
    }
}

/// Where trained weights are, and under which names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightFile {
    /// Address of the file.
    pub url: &'static str,
    /// The key map of its names; `official` needs none.
    pub names: &'static str,
    /// Licence of the weights as their publisher states it.
    pub licence: &'static str,
}

/// Rules that rename official keys to those of another implementation; `zoo-weights` compiles and inverts them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyMapRules {
    /// Whose names: `timm`.
    pub name: &'static str,
    /// (official pattern, other pattern); the first that matches applies, keys that match none are unchanged.
    pub rules: &'static [(&'static str, &'static str)],
}

/// What a caller may choose when building a variant; [`Variant::build_options`] are the published choices.
#[derive(Debug, Clone, Copy)]
pub struct BuildOptions {
    /// Width of the head.
    pub classes: i64,
    /// Height and width of the input in pixels, for networks whose parameters depend on it. Others ignore it.
    pub size: [i64; 2],
    /// What spiking networks are made of; others ignore it.
    pub spiking: SpikingOptions,
}

/// What a caller may choose of a spiking network: by default, what was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpikingOptions {
    /// Another neuron, with the published threshold and time constant.
    pub neuron: Option<NeuronKind>,
    /// Another number of time steps.
    pub steps: Option<i64>,
    /// In which order the time steps are taken.
    pub time: TimeForm,
    /// How an image becomes a sequence over time; networks of recorded sequences ignore it.
    pub encoding: Encoding,
}

/// The order in which a spiking network takes its time steps; both give the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeForm {
    /// [`TimeForm::Folded`], the faster one, unless the input is large.
    #[default]
    Auto,
    /// Layer by layer, with all steps of a layer in one batch.
    Folded,
    /// Step by step through all layers: memory does not grow with the number of steps.
    Stepwise,
}

impl fmt::Display for TimeForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeForm::Auto => "auto",
            TimeForm::Folded => "folded",
            TimeForm::Stepwise => "stepwise",
        })
    }
}

/// A text that names no [`TimeForm`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no order of time `{0}`; there are auto, folded, stepwise")]
pub struct UnknownTimeForm(String);

impl FromStr for TimeForm {
    type Err = UnknownTimeForm;

    fn from_str(text: &str) -> Result<Self, UnknownTimeForm> {
        match text {
            "auto" => Ok(TimeForm::Auto),
            "folded" => Ok(TimeForm::Folded),
            "stepwise" => Ok(TimeForm::Stepwise),
            _ => Err(UnknownTimeForm(text.to_owned())),
        }
    }
}

/// One model of the zoo.
pub struct Variant {
    /// Canonical name, `family-size`.
    pub name: &'static str,
    /// Official and timm names.
    pub aliases: &'static [&'static str],
    /// Name of the family.
    pub family: &'static str,
    /// Width of the published head.
    pub classes: i64,
    /// Parameters of the training form with that many classes.
    pub params: u64,
    /// The evaluation transform.
    pub preprocessing: Preprocessing,
    /// Published accuracies, the authors' own first.
    pub reported: &'static [Reported],
    /// Published weights.
    pub weights: &'static [WeightFile],
    /// Other implementations' names for the tensors.
    pub key_maps: &'static [KeyMapRules],
    /// Builds the network below a path, with names equal to the official state_dict.
    pub build: fn(&nn::Path, &BuildOptions) -> Box<dyn Backbone>,
}

impl Variant {
    /// The head's width and the input size as published.
    pub fn build_options(&self) -> BuildOptions {
        let (height, width) = self.preprocessing.size;
        BuildOptions {
            classes: self.classes,
            size: [height as i64, width as i64],
            spiking: SpikingOptions::default(),
        }
    }
}
