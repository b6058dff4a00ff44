//! What every model of the zoo can do.

use tch::Tensor;

/// One feature map of [`Backbone::stages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// Channels of the map.
    pub channels: i64,
    /// Input pixels per map pixel along each side.
    pub stride: i64,
}

/// A vision backbone with a classification head.
///
/// Inputs are [B, channels, H, W], preprocessed as the variant says. The tensors' kind and device are the store's.
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

    /// How far float32 logits may be from float64 ones, relative to the largest: more than rounding where it flips
    /// decisions inside (which keys, which regions).
    fn float32_tolerance(&self) -> f64 {
        1e-4
    }

    /// Whether the model runs on `height` x `width` inputs; the error says which sizes it takes.
    fn check_input(&self, height: i64, width: i64) -> Result<(), String>;
}
