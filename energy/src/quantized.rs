//! Ordinary networks of the same layers, as floats and quantised: what a spiking network has to beat.

use crate::constants::{AC_F32, MAC_F32, MAC_INT8, MEMORY_BIT};
use crate::counts::total;
use crate::{Constant, Counts, Energy, Estimate, Model, Operations};

/// One step of every layer in float32.
pub fn float_network(counts: &Counts) -> Estimate {
    let operations = Operations {
        macs: counts.macs(),
        acs: 0.0,
    };
    network(counts, "float32".to_owned(), (MAC_F32, 32), operations)
}

/// One step of every layer with 8-bit multipliers.
pub fn int8(counts: &Counts) -> Estimate {
    let operations = Operations {
        macs: counts.macs(),
        acs: 0.0,
    };
    network(counts, "int8".to_owned(), (MAC_INT8, 8), operations)
}

/// One step of every layer with activations taken bit by bit: each MAC becomes an accumulation for every one-bit, of which
/// a share `ones` (R_b) of the `bits` is set. A reading of the first correction of STEP's paper.
pub fn bit_serial(counts: &Counts, bits: u32, ones: f64) -> Estimate {
    let operations = Operations {
        macs: 0.0,
        acs: counts.macs() * f64::from(bits) * ones,
    };
    let row = format!("int{bits} bit-serial, R_b {ones}");
    network(counts, row, (AC_F32, bits), operations)
}

/// Bits of the quantised network that is a fair pair of a spiking one of so many steps: ceil(log2(T + 1)), arXiv 2409.08290.
pub fn fair_bits(steps: u64) -> u32 {
    u64::BITS - steps.leading_zeros()
}

/// Weights are read once, activations are written and read, both of so many bits.
fn network(
    counts: &Counts,
    row: String,
    (operation, bits): (Constant, u32),
    operations: Operations,
) -> Estimate {
    let moved = f64::from(bits) * MEMORY_BIT.picojoules;
    let activations = total(counts.contractions.iter().map(|c| c.outputs));
    Estimate {
        model: Model::Quantized,
        row,
        definition: "one step of the same layers without spikes; weights once, activations written and read",
        constants: vec![operation, MEMORY_BIT],
        operations,
        energy: Energy {
            arithmetic_pj: operations.energy(operation, operation),
            state_pj: None,
            weights_pj: Some(moved * counts.sum_of_modules(|c| c.weights)),
            activations_pj: Some(moved * 2.0 * activations),
        },
    }
}
