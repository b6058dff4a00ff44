//! From what a forward pass reported to what an image costs.

use zoo_energy::{Contraction, Counts, Neurons, Op, Operand, Values};
use zoo_ops::work::{self, Work};

/// The counts of one image, of work done for so many images together.
pub fn counts(work: &Work, images: u64) -> Counts {
    let images = images.max(1);
    Counts {
        contractions: work
            .contractions
            .iter()
            .map(|c| contraction(c, images))
            .collect(),
        neurons: work
            .neurons
            .iter()
            .map(|n| Neurons {
                module: n.layer.clone(),
                elements: n.elements as f64 / (n.steps * images) as f64,
                steps: n.steps,
                rate: n.rate,
                nonzero: n.nonzero,
            })
            .collect(),
    }
}

fn contraction(done: &work::Contraction, images: u64) -> Contraction {
    let rows = (done.steps * images) as f64;
    Contraction {
        module: done.layer.clone(),
        op: match done.op {
            work::Op::Convolution => Op::Convolution,
            work::Op::Linear => Op::Linear,
            work::Op::MatMul => Op::MatMul,
        },
        macs: done.macs as f64 / rows,
        steps: done.steps,
        weights: done.weights,
        biases: done.biases,
        outputs: done.outputs as f64 / rows,
        input: operand(&done.input),
        other: done.other.as_ref().map(operand),
        matrices: done.matrices,
    }
}

fn operand(held: &work::Operand) -> Operand {
    Operand {
        nonzero: held.nonzero,
        mean: held.mean,
        values: match held.values {
            work::Values::Spikes => Values::Spikes,
            work::Values::Counts => Values::Counts,
            work::Values::Real => Values::Real,
        },
    }
}
