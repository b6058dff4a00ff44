//! An estimate: operations, energies, and what they follow.

use crate::Constant;
use serde::Serialize;

/// Whose model an estimate follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// Arithmetic only, as Spikingformer's calculator counts it: the origin of most published figures.
    Customary,
    /// STEP's constants; which traffic is charged is this project's definition.
    Step,
    /// SpikingJelly's simple energy.
    SpikingJelly,
    /// An ordinary or quantised network of the same layers with STEP's constants; this project's definition.
    Quantized,
}

impl Model {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Model::Customary => "customary",
            Model::Step => "STEP constants",
            Model::SpikingJelly => "SpikingJelly simple",
            Model::Quantized => "ordinary network",
        }
    }
}

/// Operations of one image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Operations {
    /// Multiply-accumulates.
    pub macs: f64,
    /// Accumulations.
    pub acs: f64,
}

impl Operations {
    /// Picojoules at the cost of a multiply-accumulate and of an accumulation.
    pub(crate) fn energy(&self, mac: Constant, ac: Constant) -> f64 {
        self.macs * mac.picojoules + self.acs * ac.picojoules
    }
}

/// Picojoules for one image; `None` is what the model does not charge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Energy {
    /// Operations.
    pub arithmetic_pj: f64,
    /// Membrane potentials read and written.
    pub state_pj: Option<f64>,
    /// Weights read.
    pub weights_pj: Option<f64>,
    /// Activations or spikes written and read.
    pub activations_pj: Option<f64>,
}

impl Energy {
    /// Everything that is charged, in picojoules.
    pub fn total_pj(&self) -> f64 {
        let memory = [self.state_pj, self.weights_pj, self.activations_pj];
        self.arithmetic_pj + memory.iter().flatten().sum::<f64>()
    }
}

/// Energy of one image by one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// Whose model.
    pub model: Model,
    /// Which of its rows, such as `weights read at every step`.
    pub row: String,
    /// What is counted as what, in one sentence.
    pub definition: &'static str,
    /// The constants that were used.
    pub constants: Vec<Constant>,
    /// What was counted.
    pub operations: Operations,
    /// What it costs.
    pub energy: Energy,
}

/// Picojoules in millijoules.
pub fn millijoules(picojoules: f64) -> f64 {
    picojoules / 1e9
}
