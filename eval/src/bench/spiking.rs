//! What a spiking network did with the input it was timed on.

use serde::{Deserialize, Serialize};

/// Rates, operations and estimated energy of one image, counted in the form that was timed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spiking {
    /// Mean of everything that neurons fired.
    pub firing_rate: f64,
    /// Multiply-accumulates of the dense products, all time steps.
    pub macs: f64,
    /// Those among them whose activations are not zero, of products with spikes: synaptic operations.
    pub sops: f64,
    /// Those among `macs` that were not multiplied: a kernel added the weights of the inputs that fired.
    pub summed_macs: f64,
    /// Additions that this took.
    pub additions: f64,
    /// Layers of neurons, in the order of the forward pass.
    pub layers: Vec<LayerRate>,
    /// Energies, none of them measured.
    pub estimates: Vec<EstimatedEnergy>,
}

/// A layer of neurons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRate {
    /// Path of the layer.
    pub layer: String,
    /// Mean of what it fired.
    pub rate: f64,
}

/// A row of `zoo energy` (`docs/energy.md` has the definitions).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EstimatedEnergy {
    /// Whose model of energy.
    pub model: String,
    /// What is charged.
    pub row: String,
    /// Of one image.
    pub millijoules: f64,
}
