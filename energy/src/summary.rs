//! Rates and energies of a network in one value, for reports.

use crate::counts::total;
use crate::{Contraction, Counts, Estimate, Neurons, estimates, sops};
use serde::Serialize;

/// What was counted for one image, and every estimate that follows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Images that the rates are means of.
    pub images: u64,
    /// What the images were.
    pub data: String,
    /// Time steps; 1 for an ordinary network.
    pub steps: u64,
    /// MACs of one step.
    pub macs_per_step: f64,
    /// MACs of all steps.
    pub macs: f64,
    /// Synaptic operations: MACs whose left operand is not zero, where it or the right one is made of spikes. `None` for
    /// an ordinary network.
    pub sops: Option<f64>,
    /// MACs of products without spikes.
    pub analog_macs: f64,
    /// Mean of everything that neurons fired. `None` for an ordinary network.
    pub firing_rate: Option<f64>,
    /// Updates of neurons.
    pub neuron_updates: f64,
    /// Rates by layer, in the order of the forward pass.
    pub neurons: Vec<Neurons>,
    /// Energies.
    pub estimates: Vec<Estimate>,
}

impl Summary {
    /// Of the mean counts of `images` images that `data` describes; `ones` is R_b of the bit-serial rows.
    pub fn new(counts: &Counts, images: u64, data: impl Into<String>, ones: f64) -> Self {
        let (analog, spiking): (Vec<_>, Vec<_>) =
            counts.contractions.iter().partition(|c| c.analog());
        Summary {
            images,
            data: data.into(),
            steps: counts.steps(),
            macs_per_step: counts.macs(),
            macs: counts.dense_macs(),
            sops: counts
                .spiking()
                .then(|| total(spiking.into_iter().map(sops))),
            analog_macs: total(analog.into_iter().map(Contraction::total)),
            firing_rate: counts.firing_rate(),
            neuron_updates: counts.updates(),
            neurons: counts.neurons.clone(),
            estimates: estimates(counts, ones),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JSON shows the sign of a zero.
    #[test]
    fn nothing_sums_to_a_zero_without_a_sign() {
        let summary = Summary::new(&Counts::default(), 1, "none", 0.5);
        for zero in [
            summary.macs_per_step,
            summary.macs,
            summary.analog_macs,
            summary.neuron_updates,
        ] {
            assert_eq!(zero.to_string(), "0");
        }
    }
}
