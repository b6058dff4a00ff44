//! STEP's constants with this project's definition of what is charged.

use crate::constants::{AC_F32, MAC_F32, MEMORY_BIT};
use crate::{Contraction, Counts, Energy, Estimate, Model, Operations};

/// Bits of a stored membrane potential, of a weight and of a spike.
const STATE_BITS: f64 = 32.0;
const WEIGHT_BITS: f64 = 32.0;
const SPIKE_BITS: f64 = 1.0;

/// Which products take multiplications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// Those of which no operand is made of spikes.
    ByValue,
    /// The first and the last of the network, whatever they read: for networks whose inside is known to be spikes.
    FirstAndLast,
}

/// How often weights are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightTraffic {
    /// Once for an image: held on chip over the steps.
    Once,
    /// At every step.
    EveryStep,
}

/// Synaptic operations of a product: MACs of all steps times the share of its left operand that is not zero. A sum of
/// spikes counts once.
pub fn sops(contraction: &Contraction) -> f64 {
    contraction.total() * contraction.input.nonzero
}

/// 4.6 pJ for a MAC of real values, 0.9 pJ for a synaptic operation, 3.12 pJ for a bit of memory.
///
/// State: each potential is read and written at every step, 32 bits each way. Activations: each spike leaves and comes
/// back as 1 bit. The published text says that memory is charged with this constant; which traffic, is this project's
/// reading.
pub fn step(counts: &Counts, charged: Charged, weights: WeightTraffic) -> Estimate {
    let last = counts.contractions.len().saturating_sub(1);
    let mut operations = Operations::default();
    for (i, contraction) in counts.contractions.iter().enumerate() {
        let analog = match charged {
            Charged::ByValue => contraction.analog(),
            Charged::FirstAndLast => i == 0 || i == last,
        };
        if analog {
            operations.macs += contraction.total();
        } else {
            operations.acs += sops(contraction);
        }
    }
    let bit = MEMORY_BIT.picojoules;
    Estimate {
        model: Model::Step,
        row: match weights {
            WeightTraffic::Once => "weights read once",
            WeightTraffic::EveryStep => "weights read at every step",
        }
        .to_owned(),
        definition: "published constants; which traffic is charged is this project's definition",
        constants: vec![MAC_F32, AC_F32, MEMORY_BIT],
        operations,
        energy: Energy {
            arithmetic_pj: operations.energy(MAC_F32, AC_F32),
            state_pj: Some(bit * STATE_BITS * 2.0 * counts.updates()),
            weights_pj: Some(bit * WEIGHT_BITS * weight_reads(counts, weights)),
            activations_pj: Some(bit * SPIKE_BITS * 2.0 * counts.updates()),
        },
    }
}

fn weight_reads(counts: &Counts, weights: WeightTraffic) -> f64 {
    counts.sum_of_modules(|c| {
        c.weights
            * match weights {
                WeightTraffic::Once => 1,
                WeightTraffic::EveryStep => c.steps,
            }
    })
}
