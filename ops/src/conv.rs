//! Convolution, alone and with the batch norm that follows it.

use crate::batch_norm::Weight;
use crate::onednn::{self, Geometry, Packs};
use crate::spike_products::{SpikeWeights, When};
use crate::start;
use crate::work::{self, Site};
use crate::{Activation, BatchNorm};
use tch::{Kind, Tensor, nn};

/// Kernel, stride, padding, dilation, groups and bias of a [`Conv2d`]; square unless set otherwise.
#[derive(Debug, Clone, Copy)]
pub struct ConvConfig {
    /// Height and width of the kernel.
    pub kernel: [i64; 2],
    /// Step in height and width.
    pub stride: [i64; 2],
    /// Zeros on each side in height and width.
    pub padding: [i64; 2],
    /// Distance between taps in height and width.
    pub dilation: [i64; 2],
    /// Independent groups of channels.
    pub groups: i64,
    /// Whether there is a `bias`.
    pub bias: bool,
}

impl ConvConfig {
    /// An odd `kernel` with "same" padding, stride 1, no bias.
    pub const fn same(kernel: i64) -> Self {
        ConvConfig {
            kernel: [kernel; 2],
            stride: [1; 2],
            padding: [kernel / 2; 2],
            dilation: [1; 2],
            groups: 1,
            bias: false,
        }
    }

    /// A 1x1 convolution without bias.
    pub const fn pointwise() -> Self {
        Self::same(1)
    }

    /// A `kernel` x `kernel` convolution that steps by its size, with bias: patch embedding.
    pub const fn patches(kernel: i64) -> Self {
        ConvConfig {
            stride: [kernel; 2],
            padding: [0; 2],
            bias: true,
            ..Self::same(kernel)
        }
    }

    /// The same with another stride.
    pub const fn with_stride(self, stride: i64) -> Self {
        ConvConfig {
            stride: [stride; 2],
            ..self
        }
    }

    /// The same with other padding.
    pub const fn with_padding(self, padding: i64) -> Self {
        ConvConfig {
            padding: [padding; 2],
            ..self
        }
    }

    /// The same with dilated taps, padded so that the size stays.
    pub const fn with_dilation(self, dilation: i64) -> Self {
        let [height, width] = self.kernel;
        ConvConfig {
            dilation: [dilation; 2],
            padding: [dilation * (height - 1) / 2, dilation * (width - 1) / 2],
            ..self
        }
    }

    /// The same with groups; `channels` groups make it depthwise.
    pub const fn with_groups(self, groups: i64) -> Self {
        ConvConfig { groups, ..self }
    }

    /// The same with a bias.
    pub const fn with_bias(self) -> Self {
        ConvConfig { bias: true, ..self }
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            padding: self.padding,
            stride: self.stride,
            dilation: self.dilation,
            groups: self.groups,
        }
    }
}

/// A 2-d convolution. Names: `weight` [out, in / groups, kh, kw], `bias` `[out]`.
#[derive(Debug)]
pub struct Conv2d {
    weight: Weight,
    bias: Option<Weight>,
    geometry: Geometry,
    fused: bool,
    packs: Packs,
    spikes: SpikeWeights,
    site: Site,
    biased: bool,
}

impl Conv2d {
    /// `inputs` to `out` channels at path `p`.
    pub fn new(p: nn::Path, inputs: i64, out: i64, config: ConvConfig) -> Self {
        let [height, width] = config.kernel;
        let shape = [out, inputs / config.groups, height, width];
        let weight = start::kaiming(&p, "weight", &shape);
        Conv2d {
            weight: Weight::Stored(weight),
            bias: config.bias.then(|| Weight::Stored(p.zeros("bias", &[out]))),
            geometry: config.geometry(),
            fused: false,
            packs: Packs::default(),
            spikes: SpikeWeights::default(),
            site: Site::at(&p),
            biased: config.bias,
        }
    }

    /// [B, in, H, W] to [B, out, H', W'].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_then(x, Activation::None)
    }

    /// `activation(forward(x))`, as one kernel where that exists.
    pub fn forward_then(&self, x: &Tensor, activation: Activation) -> Tensor {
        let weight = self.weight.like(x);
        let bias = self.bias.as_ref().map(|b| b.like(x));
        if self.fused && onednn::applies(x) {
            let packed = self.packs.conv(&weight, &self.geometry, x);
            let y = onednn::conv(x, &packed, bias.as_ref(), &self.geometry, activation);
            return self.reported(x, y);
        }
        activation.apply(self.composed(x, &weight, bias.as_ref()))
    }

    /// `activation(forward(x) + residual)`, as one kernel where that exists; into the residual's memory where nobody else
    /// holds it.
    pub fn forward_add(&self, x: &Tensor, residual: Tensor, activation: Activation) -> Tensor {
        let weight = self.weight.like(x);
        let bias = self.bias.as_ref().map(|b| b.like(x));
        if self.fused && onednn::applies(x) {
            let packed = self.packs.conv(&weight, &self.geometry, x);
            let bias = bias.as_ref();
            let y = onednn::conv_add(x, residual, &packed, bias, &self.geometry, activation);
            return self.reported(x, y);
        }
        activation.apply(residual + self.composed(x, &weight, bias.as_ref()))
    }

    /// [`Conv2d::forward`] of what may be spikes: as sums of the weights that fire, where that is quicker.
    pub fn forward_spikes(&self, x: &Tensor) -> Tensor {
        match self.sums(x, None, When::Quicker) {
            Some(y) => y,
            None => self.forward(x),
        }
    }

    /// `forward(x) + residual` of what may be spikes.
    pub fn forward_spikes_add(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        match self.sums(x, Some(residual), When::Quicker) {
            Some(y) => y,
            None => self.forward_add(x, residual.shallow_clone(), Activation::None),
        }
    }

    /// `forward(x) + residual` as sums, however many spikes there are: for measuring. Nothing where `x` are no spikes, or
    /// where no kernel is.
    pub fn summed(&self, x: &Tensor, residual: Option<&Tensor>) -> Option<Tensor> {
        self.sums(x, residual, When::Always)
    }

    fn sums(&self, x: &Tensor, residual: Option<&Tensor>, when: When) -> Option<Tensor> {
        let g = &self.geometry;
        if !self.fused || g.stride != [1; 2] || g.dilation != [1; 2] || g.groups != 1 {
            return None;
        }
        let weight = self.weight.like(x);
        let bias = self.bias.as_ref().map(|b| b.like(x));
        let sums = self
            .spikes
            .convolution(x, &weight, g.padding, bias.as_ref(), residual, when);
        let (y, additions) = sums?;
        let y = self.reported(x, y);
        work::summed(additions);
        Some(y)
    }

    fn composed(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let g = &self.geometry;
        let y = x.conv2d(weight, bias, g.stride, g.padding, g.dilation, g.groups);
        self.reported(x, y)
    }

    fn reported(&self, x: &Tensor, y: Tensor) -> Tensor {
        self.site
            .convolution(x, &self.weight.size(), self.biased, &y);
        y
    }

    /// Absorbs an affine map of each output channel, y -> scale * y + shift (both `[out]`, float64).
    pub fn fold_output(&mut self, scale: &Tensor, shift: &Tensor) {
        let weight = self.weight.double() * scale.reshape([-1, 1, 1, 1]);
        let bias = match &self.bias {
            Some(b) => b.double() * scale + shift,
            None => shift.shallow_clone(),
        };
        self.set(weight, bias);
    }

    /// Absorbs an affine map of each input channel, x -> scale * x + shift (both `[in]`, float64).
    ///
    /// Exact only where no zero padding is read: convolutions without padding and groups.
    pub fn fold_input(&mut self, scale: &Tensor, shift: &Tensor) {
        let weight = self.weight.double();
        let summed = weight.sum_dim_intlist([2i64, 3].as_slice(), false, None::<Kind>);
        let moved = summed.mv(shift);
        let bias = match &self.bias {
            Some(b) => b.double() + moved,
            None => moved,
        };
        self.set(weight * scale.reshape([1, -1, 1, 1]), bias);
    }

    /// Absorbs the residual around a depthwise convolution of stride 1: adds 1 to every kernel's centre.
    pub fn fold_identity(&mut self) {
        let weight = self.weight.double();
        let size = weight.size();
        let centre = Tensor::zeros(&size[1..], (Kind::Double, weight.device()));
        let _ = centre.get(0).get(size[2] / 2).get(size[3] / 2).fill_(1.0);
        self.weight = self.weight.refolded(weight + centre);
    }

    /// Absorbs a depthwise convolution of stride 1 that runs beside this one on the same input: its taps, spread by its
    /// dilation, are added around the centre of every kernel. It must reach no further than this kernel.
    pub fn absorb_parallel(&mut self, other: &Conv2d) {
        let weight = self.weight.double();
        let taps = other.weight.double();
        let spread = Tensor::zeros(weight.size(), (Kind::Double, weight.device()));
        let along = |t: &Tensor, axis: usize| {
            let (step, last) = (other.geometry.dilation[axis - 2], taps.size()[axis] - 1);
            let first = (t.size()[axis] - 1 - step * last) / 2;
            t.slice(axis as i64, first, first + step * last + 1, step)
        };
        along(&along(&spread, 2), 3).copy_(&taps);
        let bias = |conv: &Conv2d| match &conv.bias {
            Some(b) => b.double(),
            None => weight.select(1, 0).select(1, 0).select(1, 0).zeros_like(),
        };
        let bias = bias(self) + bias(other);
        self.set(weight + spread, bias);
    }

    /// Weight and bias in float64, outside autograd.
    pub fn exact(&self) -> (Tensor, Option<Tensor>) {
        (self.weight.double(), self.bias.as_ref().map(Weight::double))
    }

    /// Declares the weights final: packed kernels may be used from now on.
    pub fn fuse(&mut self) {
        self.fused = true;
    }

    /// The same convolution with weights of its own.
    pub(crate) fn detached(&self) -> Self {
        let copy = |w: &Weight| w.refolded(w.double());
        Conv2d {
            weight: copy(&self.weight),
            bias: self.bias.as_ref().map(copy),
            geometry: self.geometry,
            fused: false,
            packs: Packs::default(),
            spikes: SpikeWeights::default(),
            site: self.site.clone(),
            biased: self.biased,
        }
    }

    fn set(&mut self, weight: Tensor, bias: Tensor) {
        self.bias = Some(self.weight.refolded(bias));
        self.weight = self.weight.refolded(weight);
    }
}

/// A convolution and the batch norm behind it.
#[derive(Debug)]
pub struct ConvBn {
    conv: Conv2d,
    norm: Option<BatchNorm>,
}

impl ConvBn {
    /// The convolution at `conv`, the norm (eps 1e-5) at `norm`.
    pub fn new(conv: nn::Path, norm: nn::Path, inputs: i64, out: i64, config: ConvConfig) -> Self {
        ConvBn {
            conv: Conv2d::new(conv, inputs, out, config),
            norm: Some(BatchNorm::new(norm, out, 1e-5)),
        }
    }

    /// [B, in, H, W] to [B, out, H', W'].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_then(x, Activation::None)
    }

    /// `activation(forward(x))`.
    pub fn forward_then(&self, x: &Tensor, activation: Activation) -> Tensor {
        match &self.norm {
            Some(norm) => activation.apply(norm.forward(&self.conv.forward(x))),
            None => self.conv.forward_then(x, activation),
        }
    }

    /// `activation(forward(x) + residual)`.
    pub fn forward_add(&self, x: &Tensor, residual: Tensor, activation: Activation) -> Tensor {
        match &self.norm {
            Some(norm) => activation.apply(residual + norm.forward(&self.conv.forward(x))),
            None => self.conv.forward_add(x, residual, activation),
        }
    }

    /// [`ConvBn::forward`] of what may be spikes.
    pub fn forward_spikes(&self, x: &Tensor) -> Tensor {
        match &self.norm {
            Some(_) => self.forward(x),
            None => self.conv.forward_spikes(x),
        }
    }

    /// `forward(x) + residual` of what may be spikes.
    pub fn forward_spikes_add(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        match &self.norm {
            Some(_) => self.forward_add(x, residual.shallow_clone(), Activation::None),
            None => self.conv.forward_spikes_add(x, residual),
        }
    }

    /// Folds the norm into the convolution: w' = w * scale, b' = shift.
    pub fn fuse(&mut self) {
        if let Some(norm) = self.norm.take() {
            let (scale, shift) = norm.scale_shift();
            self.conv.fold_output(&scale, &shift);
        }
        self.conv.fuse();
    }

    /// Convolution and norm as one new convolution; this one stays as it is.
    pub fn folded(&self) -> Conv2d {
        let mut conv = self.conv.detached();
        if let Some(norm) = &self.norm {
            let (scale, shift) = norm.scale_shift();
            conv.fold_output(&scale, &shift);
        }
        conv
    }

    /// The convolution, for further folding after [`ConvBn::fuse`].
    pub fn conv_mut(&mut self) -> &mut Conv2d {
        &mut self.conv
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn a_residual_gives_its_memory_where_it_is_the_last_to_hold_it() {
        let _no_grad = tch::no_grad_guard();
        let vs = nn::VarStore::new(Device::Cpu);
        let mut conv = Conv2d::new(vs.root(), 8, 8, ConvConfig::same(3));
        let map = || crate::channels_last(&Tensor::randn([2, 8, 5, 7], (Kind::Float, Device::Cpu)));
        let (x, residual) = (map(), map());
        let before = residual.copy();
        let expected = conv.forward_add(&x, residual.shallow_clone(), Activation::Relu);
        conv.fuse();
        let kept = conv.forward_add(&x, residual.shallow_clone(), Activation::Relu);
        assert!(
            residual.equal(&before),
            "a residual that is still held was overwritten"
        );
        assert!(kept.allclose(&expected, 1e-5, 1e-5, false));
        let memory = residual.data_ptr();
        let given = conv.forward_add(&x, residual, Activation::Relu);
        assert!(given.equal(&kept));
        assert_eq!(given.data_ptr(), memory);
    }
}
