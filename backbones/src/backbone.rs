//! What every model of the zoo can do.

use std::fmt;
use tch::Tensor;

/// One feature map of [`Backbone::stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// Channels of the map.
    pub channels: i64,
    /// Input pixels per map pixel along each side.
    pub stride: i64,
}

/// The form of a model's input, whose sizes [`Backbone::check_input`] judges as a height and a width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputForm {
    /// Images [B, channels, H, W].
    #[default]
    Images,
    /// Frames of events [B, T, channels, H, W].
    Frames {
        /// T.
        steps: i64,
    },
    /// Frames of events, channels before time [B, channels, T, H, W].
    Clips {
        /// T.
        steps: i64,
    },
    /// Pixels as a sequence [B, channels, L]: height 1, width L.
    Sequence,
    /// Point clouds [B, N, channels]: height 1, width N.
    Points,
}

impl InputForm {
    /// The shape of a batch of inputs of this form.
    pub fn shape(self, batch: i64, channels: i64, [height, width]: [i64; 2]) -> Vec<i64> {
        match self {
            InputForm::Images => vec![batch, channels, height, width],
            InputForm::Frames { steps } => vec![batch, steps, channels, height, width],
            InputForm::Clips { steps } => vec![batch, channels, steps, height, width],
            InputForm::Sequence => vec![batch, channels, width],
            InputForm::Points => vec![batch, width, channels],
        }
    }

    /// Height and width of a batch of this form and of so many channels; `None` where its shape is another.
    pub fn size(self, shape: &[i64], channels: i64) -> Option<[i64; 2]> {
        let size = match (self, shape) {
            (InputForm::Images, [_, _, height, width]) => [*height, *width],
            (InputForm::Frames { .. } | InputForm::Clips { .. }, [_, _, _, height, width]) => {
                [*height, *width]
            }
            (InputForm::Sequence, [_, _, length]) => [1, *length],
            (InputForm::Points, [_, points, _]) => [1, *points],
            _ => return None,
        };
        (shape[0] > 0 && self.shape(shape[0], channels, size) == shape).then_some(size)
    }
}

impl fmt::Display for InputForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InputForm::Images => f.write_str("[batch, channels, height, width]"),
            InputForm::Frames { steps } => {
                write!(f, "[batch, {steps} steps, channels, height, width]")
            }
            InputForm::Clips { steps } => {
                write!(f, "[batch, channels, {steps} steps, height, width]")
            }
            InputForm::Sequence => f.write_str("[batch, channels, length]"),
            InputForm::Points => f.write_str("[batch, points, channels]"),
        }
    }
}

/// A vision backbone with a classification head.
///
/// Inputs are [B, channels, H, W] unless [`Backbone::input_form`] says otherwise, preprocessed as the variant says. The tensors' kind and device are the store's.
pub trait Backbone: Send {
    /// One map [B, C, H / stride, W / stride] per stage, finest first, for dense prediction.
    fn stages(&self, x: &Tensor) -> Vec<Tensor>;

    /// What [`Backbone::stages`] returns, without running it.
    fn stage_info(&self) -> Vec<Stage>;

    /// The pooled features that the head sees, [B, C].
    fn features(&self, x: &Tensor) -> Tensor;

    /// The head: features [B, C] to logits [B, classes].
    fn classify(&self, features: &Tensor) -> Tensor;

    /// Logits [B, classes].
    fn logits(&self, x: &Tensor) -> Tensor {
        self.classify(&self.features(x))
    }

    /// Folds norms, merges reparameterised branches and declares the weights final: same outputs, less work.
    ///
    /// For inference; call it after the weights are loaded and before the store changes kind or device.
    fn fuse(&mut self);

    /// Channels of the input: 3, RGB, unless the model says otherwise.
    fn input_channels(&self) -> i64 {
        3
    }

    /// The form of the input: images, unless the model says otherwise.
    fn input_form(&self) -> InputForm {
        InputForm::Images
    }

    /// How far float32 logits may be from float64 ones, relative to the largest: more than rounding where it flips
    /// decisions inside (which keys, which regions).
    fn float32_tolerance(&self) -> f64 {
        1e-4
    }

    /// Whether the model runs on `height` x `width` inputs; the error says which sizes it takes.
    fn check_input(&self, height: i64, width: i64) -> Result<(), String>;
}
