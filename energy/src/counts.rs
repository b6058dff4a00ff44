//! What a network did, as numbers: the input of every estimate.

use serde::Serialize;

/// Kinds of products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Activations with a convolution's weight.
    Convolution,
    /// Activations with a matrix of weights.
    Linear,
    /// Activations with activations.
    MatMul,
}

/// What kind of values an operand held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// Only 0 and 1.
    Spikes,
    /// Whole numbers from 0: sums of spikes.
    Counts,
    /// Anything else.
    Real,
}

/// One operand of a product.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Operand {
    /// Share of the elements that are not zero.
    pub nonzero: f64,
    /// Mean of the elements.
    pub mean: f64,
    /// Their kind.
    pub values: Values,
}

impl Operand {
    /// Numbers of an ordinary network.
    pub const REAL: Operand = Operand {
        nonzero: 1.0,
        mean: 0.0,
        values: Values::Real,
    };

    /// Spikes at this rate.
    pub fn spikes(rate: f64) -> Operand {
        Operand {
            nonzero: rate,
            mean: rate,
            values: Values::Spikes,
        }
    }

    pub(crate) fn fires(&self) -> bool {
        self.values != Values::Real
    }
}

/// One product of activations with weights or with other activations, for one image.
///
/// Counts are those of one time step (a mean where images or steps differ); `steps` says how many there are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contraction {
    /// Path of the module, e.g. `block.0.attn.q_linear`.
    pub module: String,
    /// What kind of product.
    pub op: Op,
    /// Multiply-accumulates of the dense product.
    pub macs: f64,
    /// Time steps; 1 where no time passes, as in a classifier behind the mean over time.
    pub steps: u64,
    /// Weights, without biases.
    pub weights: u64,
    /// Biases.
    pub biases: u64,
    /// Elements of the result.
    pub outputs: f64,
    /// The left operand: the activations that weights multiply.
    pub input: Operand,
    /// The right operand, where it is no weight.
    pub other: Option<Operand>,
    /// Rows, inner size and columns of each matrix product, where both operands are activations.
    pub matrices: Option<[u64; 3]>,
}

impl Contraction {
    /// MACs of all steps.
    pub fn total(&self) -> f64 {
        self.macs * self.steps as f64
    }

    /// Whether neither operand is made of spikes, so that it takes multiplications.
    pub fn analog(&self) -> bool {
        !self.input.fires() && !self.other.is_some_and(|o| o.fires())
    }
}

/// A layer of neurons, for one image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Neurons {
    /// Path of the layer.
    pub module: String,
    /// Neurons: updates of one step.
    pub elements: f64,
    /// Time steps.
    pub steps: u64,
    /// Mean of what was fired, over neurons, steps and images.
    pub rate: f64,
    /// Share of the updates that fired.
    pub nonzero: f64,
}

/// All of a network, in the order of the forward pass.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Products.
    pub contractions: Vec<Contraction>,
    /// Layers of neurons; none in an ordinary network.
    pub neurons: Vec<Neurons>,
}

impl Counts {
    /// Whether there are neurons.
    pub fn spiking(&self) -> bool {
        !self.neurons.is_empty()
    }

    /// Time steps of the network: the largest of its layers.
    pub fn steps(&self) -> u64 {
        let steps = self.neurons.iter().map(|n| n.steps);
        steps.max().unwrap_or(1)
    }

    /// MACs of one step: what an ordinary network of the same layers computes.
    pub fn macs(&self) -> f64 {
        total(self.contractions.iter().map(|c| c.macs))
    }

    /// MACs of all steps.
    pub fn dense_macs(&self) -> f64 {
        total(self.contractions.iter().map(Contraction::total))
    }

    /// Neurons times steps.
    pub fn updates(&self) -> f64 {
        total(self.neurons.iter().map(|n| n.elements * n.steps as f64))
    }

    /// Mean of everything that neurons fired: STEP's firing rate. `None` without neurons.
    pub fn firing_rate(&self) -> Option<f64> {
        let fired = |n: &Neurons| n.rate * n.elements * n.steps as f64;
        let fired = total(self.neurons.iter().map(fired));
        (self.updates() > 0.0).then(|| fired / self.updates())
    }

    /// Weights and biases, each module's once however often it is called.
    pub fn parameters(&self) -> f64 {
        self.sum_of_modules(|c| c.weights + c.biases)
    }

    pub(crate) fn sum_of_modules(&self, of: impl Fn(&Contraction) -> u64) -> f64 {
        let mut seen = std::collections::BTreeSet::new();
        let once = self
            .contractions
            .iter()
            .filter(|c| c.weights > 0 && seen.insert(c.module.as_str()));
        total(once.map(|c| of(c) as f64))
    }
}

/// Their sum, in order. `Iterator::sum` makes -0.0 of nothing, and a report would show the sign.
pub(crate) fn total(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}
