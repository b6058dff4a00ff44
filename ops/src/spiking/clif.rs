//! Complementary LIF (<https://arxiv.org/abs/2402.04663>).

use super::neuron::{Dynamics, Fired, State};
use super::{NeuronConfig, Surrogate};
use tch::Tensor;

/// v = v (1 - 1/tau) + x; m = m sigmoid(v / tau); s = (v >= th); m += s; v -= s th; v -= s sigmoid(m).
///
/// Gradients pass through the resets, as in the official code. No parameters: nothing in a state_dict.
#[derive(Debug)]
pub(super) struct Clif {
    tau: f64,
    threshold: f64,
    reset: Option<f64>,
    decay_input: bool,
    surrogate: Surrogate,
}

impl Clif {
    pub(super) fn new(config: &NeuronConfig) -> Self {
        Clif {
            tau: config.tau,
            threshold: config.threshold,
            reset: config.reset,
            decay_input: config.decay_input,
            surrogate: config.surrogate,
        }
    }

    /// The potential that the membrane leaks to, where it is not 0.
    fn rest(&self) -> Option<f64> {
        self.reset.filter(|r| *r != 0.0)
    }

    fn charge(&self, x: &Tensor, v: Option<&Tensor>) -> Tensor {
        let scaled;
        let x = if self.decay_input {
            scaled = x / self.tau;
            &scaled
        } else {
            x
        };
        let keep = 1.0 - 1.0 / self.tau;
        match (v, self.rest()) {
            (None, None) => x.shallow_clone(),
            (Some(v), None) => v * keep + x,
            (None, Some(r)) => x + (r * keep + r / self.tau),
            (Some(v), Some(r)) => v * keep + r / self.tau + x,
        }
    }
}

impl Dynamics for Clif {
    fn step(&self, x: &Tensor, state: &mut State) -> Fired {
        let charged = self.charge(x, state.potential.as_ref());
        let memory = state
            .other("m")
            .map(|m| m * (&charged / self.tau).sigmoid());
        let z = &charged - self.threshold;
        let spikes = self.surrogate.fire(&z, &self.surrogate.alpha_beside(&z));
        let memory = match memory {
            Some(m) => m + &spikes,
            None => spikes.shallow_clone(),
        };
        let kept = match self.reset {
            None => &charged - &spikes * self.threshold,
            Some(r) => (-&spikes + 1) * &charged + &spikes * r,
        };
        state.potential = Some(kept - &spikes * memory.sigmoid());
        state.others = vec![("m", memory)];
        state.step += 1;
        Fired { spikes, charged }
    }
}
