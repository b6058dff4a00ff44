//! Spikes times weights: sums of the weights that fire.
//!
//! The composed form is the dense product. The fused form packs spikes (0 and 1, or whole numbers up to 31) into lists
//! and adds sums of four weights from tables; it serves linear layers and convolutions of stride 1 for inference on the
//! CPU in f32. It is taken where it is quicker by the number of spikes that are there; anything else runs dense. Both
//! forms give the same sums in another order.

mod cost;
mod kernel;
mod pack;
mod plan;
#[cfg(test)]
mod tests;

use crate::onednn;
use kernel::{Output, Weights};
use pack::{Lists, Rows};
use plan::{Plan, Shape};
use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Activations [.., in] that may be spikes: looked at once, however many layers read them.
#[derive(Debug)]
pub struct Spiked<'a> {
    values: &'a Tensor,
    packed: OnceCell<Option<(Plan, Lists)>>,
}

impl<'a> Spiked<'a> {
    /// These activations; nothing is done yet.
    pub fn new(values: &'a Tensor) -> Self {
        Spiked {
            values,
            packed: OnceCell::new(),
        }
    }

    /// The activations themselves.
    pub fn values(&self) -> &Tensor {
        self.values
    }
}

/// A layer's weights as the kernel reads them, made when it runs first.
#[derive(Debug, Default)]
pub(crate) struct SpikeWeights(RefCell<Option<Arc<Weights>>>);

/// When sums are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Where they are quicker than the dense product.
    Quicker,
    /// Of all spikes.
    Always,
}

/// A product of spikes, and the additions that it took.
pub(crate) type Summed = (Tensor, u64);

impl SpikeWeights {
    /// `x` W^T + bias + residual with W [out, in], and how many additions that took, where
    /// it is quicker than the dense product.
    pub fn linear(
        &self,
        x: &Spiked,
        weight: &Tensor,
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
        when: When,
    ) -> Option<Summed> {
        let size = x.values.size();
        let [outputs, inputs] = [0, 1].map(|i| weight.size()[i] as usize);
        if !applies(x.values) {
            return None;
        }
        let packed = x.packed.get_or_init(|| {
            let rows = x.values.numel() / inputs;
            pack(x.values, Shape::rows(rows), [outputs, inputs], when)
        });
        let (plan, lists) = packed.as_ref()?;
        if when == When::Quicker && !cost::pays(lists, plan, [outputs, inputs]) {
            return None;
        }
        let weights = self.of(weight, [outputs, inputs, 1]);
        let mut shape = size;
        *shape.last_mut()? = outputs as i64;
        let y = Tensor::empty(&shape, (Kind::Float, weight.device()));
        let additions = multiply(&y, lists, plan, &weights, bias, residual);
        Some((y, additions))
    }

    /// The convolution of `x` [B, in, H, W] with a weight [out, in, kh, kw], stride 1, plus bias and residual, where that
    /// is quicker than the dense one. The result is stored channels-last.
    pub fn convolution(
        &self,
        x: &Tensor,
        weight: &Tensor,
        padding: [i64; 2],
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
        when: When,
    ) -> Option<Summed> {
        let (size, kernel) = (x.size(), weight.size());
        let number = |n: i64| n as usize;
        let shape = Shape {
            images: number(size[0]),
            input: [number(size[2]), number(size[3])],
            taps: [number(kernel[2]), number(kernel[3])],
            padding: padding.map(number),
        };
        let margins = (0..2).all(|i| shape.padding[i] < shape.taps[i]);
        if !applies(x) || !margins || size[1] != kernel[1] {
            return None;
        }
        let [outputs, inputs] = [0, 1].map(|i| number(kernel[i]));
        let pixels = x.permute([0, 2, 3, 1]).contiguous();
        let (plan, lists) = pack(&pixels, shape, [outputs, inputs], when)?;
        if when == When::Quicker && !cost::pays(&lists, &plan, [outputs, inputs]) {
            return None;
        }
        let weights = self.of(weight, [outputs, inputs, shape.taps[0] * shape.taps[1]]);
        let [height, width] = plan.output.map(|side| side as i64);
        let y = Tensor::empty(
            [size[0], height, width, kernel[0]],
            (Kind::Float, weight.device()),
        );
        let residual = residual.map(|r| r.permute([0, 2, 3, 1]));
        let additions = multiply(&y, &lists, &plan, &weights, bias, residual.as_ref());
        Some((y.permute([0, 3, 1, 2]), additions))
    }

    fn of(&self, weight: &Tensor, sizes: [usize; 3]) -> Arc<Weights> {
        let mut kept = self.0.borrow_mut();
        let weights = kept.get_or_insert_with(|| {
            let weight = weight.detach().contiguous();
            Arc::new(Weights::new(floats(&weight), sizes))
        });
        weights.clone()
    }
}

/// CPU, f32, nothing to differentiate and nothing traced.
fn applies(x: &Tensor) -> bool {
    onednn::applies(x) && x.kind() == Kind::Float && x.numel() > 0
}

/// The lists of rows `x` [.., in], where they are spikes and few rows do not make them pointless.
fn pack(
    x: &Tensor,
    shape: Shape,
    [outputs, inputs]: [usize; 2],
    when: When,
) -> Option<(Plan, Lists)> {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    let panels = outputs.div_ceil(kernel::PANEL);
    let plan = Plan::new(shape, shape.output()?, panels, threads);
    if when == When::Quicker && cost::hopeless(&plan, [outputs, inputs]) {
        return None;
    }
    let x = x.contiguous();
    let rows = Rows {
        values: floats(&x),
        width: inputs,
    };
    let lists = pack::pack(rows, &plan, threads > 1)?;
    Some((plan, lists))
}

/// Fills `y`, which is contiguous and nobody else's, and says by how many additions.
fn multiply(
    y: &Tensor,
    lists: &Lists,
    plan: &Plan,
    weights: &Weights,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
) -> u64 {
    let [bias, residual] = [bias, residual].map(|t| t.map(Tensor::contiguous));
    let output = Output {
        values: y.data_ptr() as *mut f32,
        bias: bias.as_ref().map(floats),
        residual: residual.as_ref().map(floats),
    };
    kernel::multiply(lists, plan, weights, &output, tch::get_num_threads() > 1);
    kernel::additions(lists, plan, weights)
}

/// The values of a contiguous f32 tensor on the CPU.
fn floats(t: &Tensor) -> &[f32] {
    assert!(t.is_contiguous() && t.kind() == Kind::Float);
    // SAFETY: a contiguous tensor of f32 has that many of them behind its pointer, as long as it lives.
    unsafe { std::slice::from_raw_parts(t.data_ptr() as *const f32, t.numel()) }
}
