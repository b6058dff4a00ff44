//! The linear layer.

use crate::Activation;
use crate::batch_norm::Weight;
use crate::onednn::{self, Packs};
use crate::spike_products::{SpikeWeights, Spiked, When};
use crate::start;
use crate::work::{self, Site};
use tch::{Device, Kind, Tensor, nn};

/// y = x W^T + b over the last axis. Names: `weight` [out, in], `bias` `[out]`.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Weight>,
    fused: bool,
    packs: Packs,
    spikes: SpikeWeights,
    parts: Vec<Part>,
}

/// Rows of the weight and the layer that they belong to.
#[derive(Debug, Clone)]
struct Part {
    site: Site,
    rows: i64,
    biased: bool,
}

impl Part {
    fn whole(p: &nn::Path, rows: i64, biased: bool) -> Vec<Part> {
        let site = Site::at(p);
        vec![Part { site, rows, biased }]
    }
}

impl Linear {
    /// [`out`, `inputs`] at path `p`.
    pub fn new(p: nn::Path, inputs: i64, out: i64, bias: bool) -> Self {
        Linear::stored(&p, &[out, inputs], bias)
    }

    /// The same stored as a 1x1 convolution: `weight` [`out`, `inputs`, 1, 1]. Works on tokens, channels last.
    pub fn pointwise(p: nn::Path, inputs: i64, out: i64, bias: bool) -> Self {
        Linear::stored(&p, &[out, inputs, 1, 1], bias)
    }

    /// The same stored as a 1-d convolution of one tap: `weight` [`out`, `inputs`, 1]. Works on tokens, channels last.
    pub fn pointwise_1d(p: nn::Path, inputs: i64, out: i64, bias: bool) -> Self {
        Linear::stored(&p, &[out, inputs, 1], bias)
    }

    /// With a `weight` of this shape, outputs first.
    fn stored(p: &nn::Path, shape: &[i64], bias: bool) -> Self {
        let out = shape[0];
        let weight = start::kaiming(p, "weight", shape);
        Linear {
            weight: Weight::Stored(weight),
            bias: bias.then(|| Weight::Stored(p.zeros("bias", &[out]))),
            fused: false,
            packs: Packs::default(),
            spikes: SpikeWeights::default(),
            parts: Part::whole(p, out, bias),
        }
    }

    /// Layers that read the same input as one new layer, outputs side by side; the layers stay as they are.
    pub fn side_by_side(layers: &[&Linear]) -> Self {
        let (weights, biases): (Vec<_>, Vec<_>) = layers
            .iter()
            .map(|layer| {
                let (weight, bias) = layer.exact();
                let weight = matrix(weight);
                let bias = bias.unwrap_or_else(|| weight.select(1, 0).zeros_like());
                (weight, bias)
            })
            .unzip();
        let kept = &layers[0].weight;
        Linear {
            weight: kept.refolded(Tensor::cat(&weights, 0)),
            bias: Some(kept.refolded(Tensor::cat(&biases, 0))),
            fused: false,
            packs: Packs::default(),
            spikes: SpikeWeights::default(),
            parts: layers.iter().flat_map(|l| l.parts.clone()).collect(),
        }
    }

    /// [.., in] to [.., out].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_then(x, Activation::None)
    }

    /// `activation(forward(x))`, as one kernel where that exists.
    pub fn forward_then(&self, x: &Tensor, activation: Activation) -> Tensor {
        self.report(x);
        let weight = matrix(self.weight.like(x));
        let bias = self.bias.as_ref().map(|b| b.like(x));
        if self.fused && onednn::applies(x) {
            let packed = self.packs.linear(&weight, x);
            return onednn::linear(x, &packed, bias.as_ref(), activation);
        }
        activation.apply(x.linear(&weight, bias.as_ref()))
    }

    /// `forward(x) + residual`, as one kernel where that exists.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        self.report(x);
        let weight = matrix(self.weight.like(x));
        let bias = self.bias.as_ref().map(|b| b.like(x));
        if self.fused && onednn::applies(x) && residual.is_contiguous() {
            let packed = self.packs.linear(&weight, x);
            return onednn::linear_add(x, residual, &packed, bias.as_ref());
        }
        residual + x.linear(&weight, bias.as_ref())
    }

    /// [`Linear::forward`] of what may be spikes: as sums of the weights that fire, where that is quicker.
    pub fn forward_spikes(&self, x: &Spiked) -> Tensor {
        match self.sums(x, None, When::Quicker) {
            Some(y) => y,
            None => self.forward(x.values()),
        }
    }

    /// [`Linear::forward_add`] of what may be spikes.
    pub fn forward_spikes_add(&self, x: &Spiked, residual: &Tensor) -> Tensor {
        match self.sums(x, Some(residual), When::Quicker) {
            Some(y) => y,
            None => self.forward_add(x.values(), residual),
        }
    }

    /// `forward(x) + residual` as sums, however many spikes there are: for measuring. Nothing where `x` are no spikes, or
    /// where no kernel is.
    pub fn summed(&self, x: &Spiked, residual: Option<&Tensor>) -> Option<Tensor> {
        self.sums(x, residual, When::Always)
    }

    fn sums(&self, x: &Spiked, residual: Option<&Tensor>, when: When) -> Option<Tensor> {
        if !self.fused {
            return None;
        }
        let values = x.values();
        let weight = matrix(self.weight.like(values));
        let bias = self.bias.as_ref().map(|b| b.like(values));
        let (y, additions) = self
            .spikes
            .linear(x, &weight, bias.as_ref(), residual, when)?;
        self.report(values);
        work::summed(additions);
        Some(y)
    }

    fn report(&self, x: &Tensor) {
        if work::recording() {
            let inputs = x.size().last().copied().unwrap_or(1);
            for part in &self.parts {
                part.site.linear(x, &[part.rows, inputs], part.biased);
            }
        }
    }

    /// Weight [out, in] and bias `[out]` in float64, outside autograd.
    pub fn exact(&self) -> (Tensor, Option<Tensor>) {
        (self.weight.double(), self.bias.as_ref().map(Weight::double))
    }

    /// Absorbs an affine map of the input, x -> scale * x + shift (both `[in]`, float64).
    pub fn fold_input(&mut self, scale: &Tensor, shift: &Tensor) {
        let weight = matrix(self.weight.double());
        let moved = weight.mv(shift);
        let bias = match &self.bias {
            Some(b) => b.double() + moved,
            None => moved,
        };
        self.bias = Some(self.weight.refolded(bias));
        self.weight = self.weight.refolded(weight * scale);
    }

    /// Absorbs a scale of the output rows (`[out]`, float64): y -> scale * y.
    pub fn fold_output(&mut self, scale: &Tensor) {
        self.weight = self
            .weight
            .refolded(matrix(self.weight.double()) * scale.unsqueeze(1));
        self.bias = self.bias.take().map(|b| b.refolded(b.double() * scale));
    }

    /// Absorbs an affine map of each output, y -> scale * y + shift (both `[out]`, float64).
    pub fn fold_affine(&mut self, scale: &Tensor, shift: &Tensor) {
        self.fold_output(scale);
        let bias = match &self.bias {
            Some(b) => b.double() + shift,
            None => shift.shallow_clone(),
        };
        self.bias = Some(self.weight.refolded(bias));
    }

    /// Outputs.
    pub fn width(&self) -> i64 {
        self.weight.size()[0]
    }

    /// The weights' format.
    pub fn kind(&self) -> Kind {
        self.weight.kind()
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.weight.device()
    }

    /// Declares the weights final: packed kernels may be used from now on.
    pub fn fuse(&mut self) {
        self.fused = true;
    }
}

/// A weight [out, in] or [out, in, 1, 1] as [out, in].
fn matrix(weight: Tensor) -> Tensor {
    if weight.dim() == 2 {
        weight
    } else {
        weight.flatten(1, -1)
    }
}
