//! The threshold and the surrogate of a layer.

use super::neuron::scalar;
use super::{NeuronConfig, Surrogate};
use tch::{Tensor, nn};

/// Names: `threshold`, `act_fun.alpha`.
#[derive(Debug)]
pub(super) struct Firing {
    pub surrogate: Surrogate,
    pub threshold: Tensor,
    alpha: Tensor,
}

impl Firing {
    pub(super) fn new(p: &nn::Path, config: &NeuronConfig) -> Self {
        Firing {
            surrogate: config.surrogate,
            threshold: scalar(p, "threshold", config.threshold),
            alpha: scalar(&(p / "act_fun"), "alpha", config.surrogate.alpha),
        }
    }

    /// Spikes of potentials `v`; no gradient reaches the threshold, nor alpha unless it is trained.
    pub(super) fn fire(&self, v: &Tensor) -> Tensor {
        let z = v - self.threshold.detach();
        if self.surrogate.trained {
            self.surrogate.fire(&z, &self.alpha)
        } else {
            self.surrogate.fire(&z, &self.alpha.detach())
        }
    }
}
