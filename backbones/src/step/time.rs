//! The two orders of time: all steps of a layer at once, or one step through all layers.

use std::cell::RefCell;
use std::collections::HashMap;
use tch::{Kind, Tensor, nn};
use zoo_ops::spiking::{Neuron, NeuronConfig, State};

/// How a pass through the network stands in time: what its rows are.
#[derive(Debug)]
pub enum Time {
    /// Rows are [T * B, ..], time slowest; layers begin at rest.
    Folded {
        /// T.
        steps: i64,
    },
    /// Rows are [B, ..], one step; layers go on from the step before.
    Step(RefCell<HashMap<String, State>>),
}

impl Time {
    /// All of `steps` in one pass.
    pub fn folded(steps: i64) -> Self {
        Time::Folded { steps }
    }

    /// One step in each pass, beginning at rest.
    pub fn stepwise() -> Self {
        Time::Step(RefCell::default())
    }

    /// Steps that the rows of one pass hold.
    pub fn steps(&self) -> i64 {
        match self {
            Time::Folded { steps } => *steps,
            Time::Step(_) => 1,
        }
    }

    /// Rows of one step [B, ..], the same in every step, as rows of this pass. Keeps the memory layout.
    pub fn repeat(&self, x: &Tensor) -> Tensor {
        match self {
            Time::Folded { steps } if *steps > 1 => {
                let copies: Vec<&Tensor> = (0..*steps).map(|_| x).collect();
                Tensor::cat(&copies, 0)
            }
            _ => x.shallow_clone(),
        }
    }

    /// What was kept under `key` in the step before; nothing at the first step, or where all are taken at once.
    pub fn recall(&self, key: &str) -> Option<Tensor> {
        match self {
            Time::Folded { .. } => None,
            Time::Step(states) => {
                let states = states.borrow();
                let kept = states.get(key)?.potential.as_ref()?;
                Some(kept.shallow_clone())
            }
        }
    }

    /// Keeps a value for the next step.
    pub fn keep(&self, key: &str, value: &Tensor) {
        if let Time::Step(states) = self {
            let mut states = states.borrow_mut();
            states.entry(key.to_owned()).or_default().potential = Some(value.shallow_clone());
        }
    }

    /// Rows [T * B, ..] averaged over the steps of this pass: [B, ..].
    pub fn mean(&self, x: &Tensor) -> Tensor {
        x.unflatten(0, [self.steps(), -1])
            .mean_dim([0i64].as_slice(), false, None::<Kind>)
    }
}

/// A layer of neurons, in either order of time.
#[derive(Debug)]
pub struct Spikes(Neuron);

impl Spikes {
    /// Currents to spikes, row by row of the pass.
    pub fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        match time {
            Time::Folded { steps } => self.0.forward(x, *steps),
            Time::Step(states) => {
                let mut states = states.borrow_mut();
                let state = states.entry(self.0.name().to_owned()).or_default();
                self.0.step(x, state)
            }
        }
    }

    /// The layer itself, for what is none of [`Spikes::forward`].
    pub fn neuron(&self) -> &Neuron {
        &self.0
    }
}

/// The neurons of a network: all alike, but for the threshold behind attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Neurons(pub NeuronConfig);

/// The threshold of `attn_lif`, whatever that of the others.
const ATTENTION_THRESHOLD: f64 = 0.5;

impl Neurons {
    /// A layer of `channels` at `p`.
    pub fn layer(&self, p: nn::Path, channels: i64) -> Spikes {
        Spikes(Neuron::new(p, &self.0.clone().input_dims(channels)))
    }

    /// The layer behind attention.
    pub fn attention(&self, p: nn::Path, channels: i64) -> Spikes {
        Neurons(self.0.clone().threshold(ATTENTION_THRESHOLD)).layer(p, channels)
    }
}
