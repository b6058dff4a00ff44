//! What a forward pass does, as it happens: contractions and neurons, for firing rates, synaptic operations and energy.
//!
//! Layers report to a recorder of the thread; without one that costs a look at a thread-local. Counting follows the
//! operands that really were there, so it sees sparsity that no graph shows, and the work of the form that really ran:
//! a kernel that skips reports what it multiplied.

use std::cell::RefCell;
use tch::{Kind, Tensor, nn};

/// One product of activations with weights or with other activations, all rows (time steps and images) together.
#[derive(Debug, Clone, PartialEq)]
pub struct Contraction {
    /// Path of the module, e.g. `block.0.attn.q_linear`.
    pub layer: String,
    /// What kind of product.
    pub op: Op,
    /// Multiply-accumulates that were executed; a factor of 0 counts.
    pub macs: u64,
    /// Those of the dense product: more where the form that ran skips some, such as pairs that are not connected.
    pub dense: u64,
    /// Additions that were made in place of `macs`, where a kernel of spikes ran: it reads no weight of a silent input.
    pub additions: Option<u64>,
    /// Time steps that the rows hold; see [`over_steps`].
    pub steps: u64,
    /// Weights that took part, without biases; 0 where both operands are activations.
    pub weights: u64,
    /// Biases of the layer as it is trained: what a folded norm adds is not counted.
    pub biases: u64,
    /// Elements of the result.
    pub outputs: u64,
    /// The left operand, before any padding.
    pub input: Operand,
    /// The right operand, where that is an activation too.
    pub other: Option<Operand>,
    /// Rows, inner size and columns of each matrix product of activations.
    pub matrices: Option<[u64; 3]>,
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

/// The values that an operand held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operand {
    /// Share of the elements that are not zero.
    pub nonzero: f64,
    /// Their mean.
    pub mean: f64,
    /// Their kind.
    pub values: Values,
}

/// Kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Only 0 and 1.
    Spikes,
    /// Whole numbers from 0: sums of spikes.
    Counts,
    /// Anything else.
    Real,
}

impl Operand {
    /// Numbers nobody looked at.
    const REAL: Operand = Operand {
        nonzero: 1.0,
        mean: 0.0,
        values: Values::Real,
    };

    fn of(t: &Tensor) -> Self {
        let t = t.detach();
        Operand {
            nonzero: nonzero(&t),
            mean: mean(&t),
            values: Values::of(&t),
        }
    }
}

impl Values {
    fn of(t: &Tensor) -> Self {
        let holds = |test: Tensor| test.all().int64_value(&[]) != 0;
        if !holds(t.ge(0.0)) || !holds(t.eq_tensor(&t.floor())) {
            Values::Real
        } else if holds(t.le(1.0)) {
            Values::Spikes
        } else {
            Values::Counts
        }
    }
}

/// One call of a layer of neurons.
#[derive(Debug, Clone, PartialEq)]
pub struct NeuronCall {
    /// Path of the layer, e.g. `block.0.mlp.fc1_lif`.
    pub layer: String,
    /// Updates: neurons times steps times images.
    pub elements: u64,
    /// Time steps among them.
    pub steps: u64,
    /// Mean of what was fired.
    pub rate: f64,
    /// Share of the elements that fired.
    pub nonzero: f64,
}

/// One call of a router of heads.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutedHeads {
    /// Path of the module.
    pub layer: String,
    /// Heads.
    pub heads: u64,
    /// Share of the heads that are on, mean over tokens: the work that such a method claims. Heads that are off are
    /// computed all the same where the contractions of the module say so.
    pub on: f64,
}

/// What was done, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// Products.
    pub contractions: Vec<Contraction>,
    /// Layers of neurons.
    pub neurons: Vec<NeuronCall>,
    /// Routers of heads.
    pub routed: Vec<RoutedHeads>,
}

#[derive(Debug)]
struct Recording {
    work: Work,
    steps: u64,
}

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
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
            let [rows, inner] = last_two(a);
            let columns = last_two(b)[1];
            let macs = y.numel() as u64 * inner;
            report(Contraction {
                macs,
                dense: macs,
                other: Some(Operand::of(b)),
                matrices: Some([rows, inner, columns]),
                ..self.contraction(Op::MatMul, a, y.numel())
            });
        }
        y
    }

    /// Reports activations `x` times a matrix of weights [out, in], and biases.
    pub fn linear(&self, x: &Tensor, weight: &[i64], biases: bool) {
        if recording() {
            let (out, inputs) = (weight[0] as u64, product(&weight[1..]));
            let rows = x.numel() as u64 / inputs.max(1);
            let macs = rows * inputs * out;
            report(Contraction {
                macs,
                dense: macs,
                weights: product(weight),
                biases: if biases { out } else { 0 },
                ..self.contraction(Op::Linear, x, (rows * out) as usize)
            });
        }
    }

    /// Reports a convolution of `x` with a weight [out, in / groups, ..], and biases, whose result is `y`.
    pub fn convolution(&self, x: &Tensor, weight: &[i64], biases: bool, y: &Tensor) {
        if recording() {
            let macs = y.numel() as u64 * product(&weight[1..]);
            report(Contraction {
                macs,
                dense: macs,
                weights: product(weight),
                biases: if biases { weight[0] as u64 } else { 0 },
                ..self.contraction(Op::Convolution, x, y.numel())
            });
        }
    }

    fn contraction(&self, op: Op, x: &Tensor, outputs: usize) -> Contraction {
        Contraction {
            layer: self.0.clone(),
            op,
            macs: 0,
            dense: 0,
            additions: None,
            steps: 1,
            weights: 0,
            biases: 0,
            outputs: outputs as u64,
            input: Operand::of(x),
            other: None,
            matrices: None,
        }
    }
}

/// [`Site::matmul`] of an operator that knows no path: it counts for the module whose layer ran before.
pub fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    if recording() {
        module_before().matmul(a, b)
    } else {
        a.matmul(b)
    }
}

/// [`Site::convolution`] of an operator that knows no path: it counts for the module whose layer ran before.
pub fn convolution(x: &Tensor, weight: &Tensor, biases: bool, y: &Tensor) {
    if recording() {
        module_before().convolution(x, &weight.size(), biases, y);
    }
}

/// The two products of an attention that keeps no map, of queries [.., D] and values [.., E]: `pairs` of a query and a key
/// were computed, of `dense` that there are, all heads and images together.
pub fn attention(q: &Tensor, v: &Tensor, pairs: u64, dense: u64) {
    if recording() {
        let site = module_before();
        let (inner, columns) = (last_two(q)[1], last_two(v)[1]);
        let rows = q.numel() as u64 / inner.max(1);
        report(Contraction {
            macs: pairs * inner,
            dense: dense * inner,
            other: Some(Operand::REAL),
            ..site.contraction(Op::MatMul, q, pairs as usize)
        });
        report(Contraction {
            macs: pairs * columns,
            dense: dense * columns,
            input: Operand::REAL,
            other: Some(Operand::of(v)),
            ..site.contraction(Op::MatMul, q, (rows * columns) as usize)
        });
    }
}

/// Products made one by one rather than as matrices: so many multiply-accumulates of `a` and `b` to so many results.
pub fn elementwise(a: &Tensor, b: &Tensor, macs: i64, outputs: i64) {
    products(a, b, [macs as u64; 2], outputs);
}

/// The same where only the first so many were executed, of the second so many that a dense form has.
pub(crate) fn products(a: &Tensor, b: &Tensor, [macs, dense]: [u64; 2], outputs: i64) {
    if recording() {
        report(Contraction {
            macs,
            dense,
            other: Some(Operand::of(b)),
            ..module_before().contraction(Op::MatMul, a, outputs as usize)
        });
    }
}

/// Reports how many heads are on: gates [.., heads].
pub fn heads(layer: &Site, gates: &Tensor) {
    if recording() {
        let call = RoutedHeads {
            layer: layer.0.clone(),
            heads: last_two(gates)[1],
            on: nonzero(&gates.detach()),
        };
        with(|recording| recording.work.routed.push(call));
    }
}

/// Says of the product that was reported last that sums took its place.
pub(crate) fn summed(additions: u64) {
    with(|recording| {
        if let Some(last) = recording.work.contractions.last_mut() {
            last.additions = Some(additions);
        }
    });
}

/// The module that holds the layer which reported last.
fn module_before() -> Site {
    let mut module = String::new();
    with(|recording| {
        if let Some(last) = recording.work.contractions.last() {
            module = match (last.op, last.layer.rsplit_once('.')) {
                (Op::MatMul, _) => last.layer.clone(),
                (_, Some((module, _))) => module.to_owned(),
                (_, None) => String::new(),
            };
        }
    });
    Site(module)
}

fn last_two(t: &Tensor) -> [u64; 2] {
    match t.size().as_slice() {
        [.., rows, columns] => [*rows as u64, *columns as u64],
        [columns] => [1, *columns as u64],
        [] => [1, 1],
    }
}

fn product(shape: &[i64]) -> u64 {
    shape.iter().product::<i64>() as u64
}

/// Reports what a layer of neurons fired in so many steps.
pub fn neuron(layer: &str, spikes: &Tensor, steps: i64) {
    if recording() {
        let spikes = spikes.detach();
        let call = NeuronCall {
            layer: layer.to_owned(),
            elements: spikes.numel() as u64,
            steps: steps as u64,
            rate: mean(&spikes),
            nonzero: nonzero(&spikes),
        };
        with(|recording| recording.work.neurons.push(call));
    }
}

fn mean(t: &Tensor) -> f64 {
    t.mean(Kind::Double).double_value(&[])
}

fn nonzero(t: &Tensor) -> f64 {
    let count = t.count_nonzero(None::<i64>).int64_value(&[]);
    count as f64 / t.numel().max(1) as f64
}

fn report(contraction: Contraction) {
    with(|recording| {
        recording.work.contractions.push(Contraction {
            steps: recording.steps,
            ..contraction
        });
    });
}

fn with(f: impl FnOnce(&mut Recording)) {
    RECORDING.with_borrow_mut(|recording| {
        if let Some(recording) = recording {
            f(recording);
        }
    });
}

/// Whether somebody records on this thread.
pub fn recording() -> bool {
    RECORDING.with_borrow(Option::is_some)
}

/// Runs `f`, whose reports do not count.
pub(crate) fn aside<T>(f: impl FnOnce() -> T) -> T {
    let mut before = Work::default();
    with(|recording| before = std::mem::take(&mut recording.work));
    let result = f();
    with(|recording| recording.work = before);
    result
}

/// Runs `f`, whose rows hold so many time steps, so that what it reports says so.
pub fn over_steps<T>(steps: i64, f: impl FnOnce() -> T) -> T {
    let mut before = 1;
    with(|recording| before = std::mem::replace(&mut recording.steps, steps as u64));
    let result = f();
    with(|recording| recording.steps = before);
    result
}

/// Runs `f` and returns what it gave and what it did. Not nested; this thread only.
pub fn record<T>(f: impl FnOnce() -> T) -> (T, Work) {
    struct Stop;
    impl Drop for Stop {
        fn drop(&mut self) {
            RECORDING.with_borrow_mut(Option::take);
        }
    }
    let fresh = Recording {
        work: Work::default(),
        steps: 1,
    };
    RECORDING.with_borrow_mut(|recording| *recording = Some(fresh));
    let _stop = Stop;
    let result = f();
    let recorded = RECORDING.with_borrow_mut(Option::take);
    (result, recorded.map(|r| r.work).unwrap_or_default())
}

#[cfg(test)]
mod tests;
