//! SpikingJelly's simple energy.

use crate::constants::MEMORY_BIT;
use crate::{Counts, Energy, Estimate, Model, Operations, Precision, sops};

/// MACs, accumulations, and the bytes of parameters and persistent states, in the presets of SpikingJelly's
/// `SimpleEnergyCostConfig`.
///
/// Each weight and bias counts as used once; each state is read and written at every step; spikes and currents stay on
/// chip. The width of what is moved follows the precision.
pub fn simple(counts: &Counts, precision: Precision) -> Estimate {
    let mut operations = Operations::default();
    for contraction in &counts.contractions {
        if contraction.analog() {
            operations.macs += contraction.total();
        } else {
            operations.acs += sops(contraction);
        }
    }
    let (mac, ac) = (precision.multiply_accumulate(), precision.accumulate());
    let bits = f64::from(precision.bits()) * MEMORY_BIT.picojoules;
    Estimate {
        model: Model::SpikingJelly,
        row: match precision {
            Precision::F32 => "float32",
            Precision::F16 => "float16",
            Precision::Int8 => "int8",
        }
        .to_owned(),
        definition: "parameters once, states read and written at every step, spikes and currents on chip",
        constants: vec![mac, ac, MEMORY_BIT],
        operations,
        energy: Energy {
            arithmetic_pj: operations.energy(mac, ac),
            state_pj: counts.spiking().then(|| bits * 2.0 * counts.updates()),
            weights_pj: Some(bits * counts.parameters()),
            activations_pj: None,
        },
    }
}
