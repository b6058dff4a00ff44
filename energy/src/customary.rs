//! The customary comparison: arithmetic only.

use crate::constants::{AC_F32, MAC_F32};
use crate::{Contraction, Counts, Energy, Estimate, Model, Op, Operations, Values};

/// What sums of spikes (residuals) count as: the reason why Spikformer has two energies in print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SummedSpikes {
    /// Only 0 and 1 are spikes: a product with anything else is of multiply-accumulates, all of them.
    Multiplied,
    /// A value of n is n spikes.
    Accumulated,
}

/// Spikingformer's calculator, 4.6 and 0.9 pJ: `energy_consumption_calculation` of its repository.
///
/// A convolution or linear layer has MACs + bias additions over all steps; where its input is spikes they are
/// accumulations times the input's mean. Attention has T h N d^2 (min(r_k, r_v) + r_q) accumulations, as if it were computed
/// as q (k^T v). Norms, neurons and pools are free, and so is memory.
pub fn customary(counts: &Counts, summed: SummedSpikes) -> Estimate {
    let mut operations = Operations::default();
    for contraction in counts.contractions.iter().filter(|c| c.op != Op::MatMul) {
        let bias = if contraction.biases > 0 {
            contraction.outputs
        } else {
            0.0
        };
        let all = (contraction.macs + bias) * contraction.steps as f64;
        match rate(contraction, summed) {
            Some(rate) => operations.acs += all * rate,
            None => operations.macs += all,
        }
    }
    let products: Vec<&Contraction> = counts
        .contractions
        .iter()
        .filter(|c| c.op == Op::MatMul)
        .collect();
    let mut rest = products.as_slice();
    while let [first, following @ ..] = rest {
        rest = following;
        let attention = rest.first().and_then(|second| attention(first, second));
        if let Some(acs) = attention {
            operations.acs += acs;
            rest = &rest[1..];
        } else {
            add_product(first, &mut operations);
        }
    }
    Estimate {
        model: Model::Customary,
        row: match summed {
            SummedSpikes::Multiplied => "summed spikes multiply",
            SummedSpikes::Accumulated => "summed spikes accumulate",
        }
        .to_owned(),
        definition: "arithmetic only; accumulations where the input is spikes, else multiply-accumulates",
        constants: vec![MAC_F32, AC_F32],
        operations,
        energy: Energy {
            arithmetic_pj: operations.energy(MAC_F32, AC_F32),
            ..Energy::default()
        },
    }
}

fn rate(contraction: &Contraction, summed: SummedSpikes) -> Option<f64> {
    let spikes = match contraction.input.values {
        Values::Spikes => true,
        Values::Counts => summed == SummedSpikes::Accumulated,
        Values::Real => false,
    };
    spikes.then_some(contraction.input.mean)
}

/// Accumulations of two products that are attention of spikes, in either order of computation.
fn attention(first: &Contraction, second: &Contraction) -> Option<f64> {
    let ([rows, inner, columns], following) = (first.matrices?, second.matrices?);
    let (left, right) = (first.input, first.other?);
    let spikes = |o: crate::Operand| o.values == Values::Spikes;
    if first.module != second.module || !spikes(left) || !spikes(right) {
        return None;
    }
    let products = first.total() / (rows * inner * columns) as f64;
    if spikes(second.input) && [inner, rows, columns] == following {
        // k^T v, then q times it.
        let size = (inner * rows * columns) as f64;
        return Some(products * size * (left.mean.min(right.mean) + second.input.mean));
    }
    let value = second.other.filter(|o| spikes(*o))?;
    // q k^T, then it times v.
    (rows == columns && [rows, columns, inner] == following).then(|| {
        let size = (rows * inner * inner) as f64;
        products * size * (right.mean.min(value.mean) + left.mean)
    })
}

/// A product that is no part of attention: accumulations at the rate of its spikes, the rarer ones where both are.
fn add_product(contraction: &Contraction, operations: &mut Operations) {
    let spikes = [Some(contraction.input), contraction.other];
    let rates = spikes
        .into_iter()
        .flatten()
        .filter(|o| o.values == Values::Spikes);
    match rates.map(|o| o.mean).min_by(f64::total_cmp) {
        Some(rate) => operations.acs += contraction.total() * rate,
        None => operations.macs += contraction.total(),
    }
}
