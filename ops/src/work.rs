//! What a forward pass does, as it happens: contractions and neurons, for firing rates, synaptic operations and energy.
//!
//! Layers report to a recorder of the thread; without one that costs a look at a thread-local. Counting follows the
//! operands that really were there, so it sees sparsity that no graph shows.

use std::cell::RefCell;
use tch::{Kind, Tensor, nn};

/// One product of activations with weights or with other activations.
#[derive(Debug, Clone, PartialEq)]
pub struct Contraction {
    /// Path of the module, e.g. `block.0.attn.q_linear`.
    pub layer: String,
    /// What kind of product.
    pub op: Op,
    /// Multiply-accumulates of the dense product, all rows (time steps and images) together.
    pub macs: u64,
    /// Weights that took part; `None` where both operands are activations.
    pub weights: Option<u64>,
    /// Share of the left operand's elements that are not zero, before any padding.
    pub in_nonzero: f64,
    /// Mean of the left operand.
    pub in_mean: f64,
    /// The same share of the right operand, where that is an activation too.
    pub rhs_nonzero: Option<f64>,
}

/// Kinds of products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Activations with a convolution's weight.
    Convolution,
    /// Activations with a matrix of weights.
    Linear,
    /// Activations with activations.
    MatMul,
}

/// One call of a layer of neurons.
#[derive(Debug, Clone, PartialEq)]
pub struct NeuronCall {
    /// Path of the layer, e.g. `block.0.mlp.fc1_lif`.
    pub layer: String,
    /// Updates: neurons times steps times images.
    pub elements: u64,
    /// Mean of what was fired.
    pub rate: f64,
    /// Share of the elements that fired.
    pub nonzero: f64,
}

/// What was done, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// Products.
    pub contractions: Vec<Contraction>,
    /// Layers of neurons.
    pub neurons: Vec<NeuronCall>,
}

thread_local! {
    static RECORDING: RefCell<Option<Work>> = const { RefCell::new(None) };
}

/// The place in a model that a product is reported for: a module's path.
#[derive(Debug, Clone)]
pub struct Site(String);

impl Site {
    /// The module at `p`.
    pub fn at(p: &nn::Path) -> Self {
        Site(p.components().collect::<Vec<_>>().join("."))
    }

    /// The module `name` below the one at `p`.
    pub fn below(p: &nn::Path, name: &str) -> Self {
        Site(p.components().chain([name]).collect::<Vec<_>>().join("."))
    }

    /// The path.
    pub fn path(&self) -> &str {
        &self.0
    }

    /// `a` times `b` as [`Tensor::matmul`] has it, both activations: reported where somebody records.
    pub fn matmul(&self, a: &Tensor, b: &Tensor) -> Tensor {
        let y = a.matmul(b);
        if recording() {
            let inner = a.size().last().copied().unwrap_or(1);
            self.report(
                Op::MatMul,
                a,
                Operand::Activation(b),
                y.numel() as u64 * inner as u64,
            );
        }
        y
    }

    /// Reports activations `x` times a matrix of weights [out, in]: `macs` of `x`'s rows.
    pub fn linear(&self, x: &Tensor, weight: &Tensor) {
        if recording() {
            let out = weight.size()[0] as u64;
            self.report(
                Op::Linear,
                x,
                Operand::Weight(weight),
                x.numel() as u64 * out,
            );
        }
    }

    /// Reports a convolution of `x` with `weight` [out, in / groups, ..] whose result is `y`.
    pub fn convolution(&self, x: &Tensor, weight: &Tensor, y: &Tensor) {
        if recording() {
            let each: i64 = weight.size()[1..].iter().product();
            self.report(
                Op::Convolution,
                x,
                Operand::Weight(weight),
                y.numel() as u64 * each as u64,
            );
        }
    }

    fn report(&self, op: Op, x: &Tensor, right: Operand, macs: u64) {
        let contraction = Contraction {
            layer: self.0.clone(),
            op,
            macs,
            weights: match right {
                Operand::Weight(w) => Some(w.numel() as u64),
                Operand::Activation(_) => None,
            },
            in_nonzero: nonzero(x),
            in_mean: mean(x),
            rhs_nonzero: match right {
                Operand::Weight(_) => None,
                Operand::Activation(y) => Some(nonzero(y)),
            },
        };
        with(|work| work.contractions.push(contraction));
    }
}

enum Operand<'a> {
    Weight(&'a Tensor),
    Activation(&'a Tensor),
}

/// Reports what a layer of neurons fired.
pub fn neuron(layer: &str, spikes: &Tensor) {
    if recording() {
        let call = NeuronCall {
            layer: layer.to_owned(),
            elements: spikes.numel() as u64,
            rate: mean(spikes),
            nonzero: nonzero(spikes),
        };
        with(|work| work.neurons.push(call));
    }
}

fn mean(t: &Tensor) -> f64 {
    t.detach().mean(Kind::Double).double_value(&[])
}

fn nonzero(t: &Tensor) -> f64 {
    let count = t.detach().count_nonzero(None::<i64>).int64_value(&[]);
    count as f64 / t.numel().max(1) as f64
}

fn with(f: impl FnOnce(&mut Work)) {
    RECORDING.with_borrow_mut(|work| {
        if let Some(work) = work {
            f(work);
        }
    });
}

/// Whether somebody records on this thread.
pub fn recording() -> bool {
    RECORDING.with_borrow(Option::is_some)
}

/// Runs `f` and returns what it gave and what it did. Not nested; this thread only.
pub fn record<T>(f: impl FnOnce() -> T) -> (T, Work) {
    struct Stop;
    impl Drop for Stop {
        fn drop(&mut self) {
            RECORDING.with_borrow_mut(Option::take);
        }
    }
    RECORDING.with_borrow_mut(|work| *work = Some(Work::default()));
    let _stop = Stop;
    let result = f();
    let work = RECORDING.with_borrow_mut(Option::take).unwrap_or_default();
    (result, work)
}
