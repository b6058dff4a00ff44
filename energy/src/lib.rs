//! Estimated energy: what a network did (contractions, neurons) times what an operation or a bit is said to cost.
//!
//! No tensor library, no model, no measurement: `zoo-power` measures. Every [`Estimate`] names the model it follows and
//! carries the [`Constant`]s it used with their sources; figures of different [`Model`]s are never added or compared row
//! to row. `docs/energy.md` has the definitions and says which are published and which are this project's.

mod average;
pub mod constants;
mod cost;
mod counts;
mod customary;
mod estimate;
mod quantized;
mod simple;
mod step;
mod summary;

pub use average::Average;
pub use cost::{Constant, Precision, Unit};
pub use counts::{Contraction, Counts, Neurons, Op, Operand, Values};
pub use customary::{SummedSpikes, customary};
pub use estimate::{Energy, Estimate, Model, Operations, millijoules};
pub use quantized::{bit_serial, fair_bits, float_network, int8};
pub use simple::simple;
pub use step::{Charged, WeightTraffic, sops, step};
pub use summary::Summary;

/// Every estimate of a network: the sets that apply to it, spiking ones first.
///
/// `ones` is the share of one-bits R_b that the bit-serial rows assume.
pub fn estimates(counts: &Counts, ones: f64) -> Vec<Estimate> {
    let mut all = Vec::new();
    if counts.spiking() {
        all.push(customary(counts, SummedSpikes::Multiplied));
        all.push(customary(counts, SummedSpikes::Accumulated));
        all.push(step(counts, Charged::ByValue, WeightTraffic::Once));
        all.push(step(counts, Charged::ByValue, WeightTraffic::EveryStep));
        for precision in [Precision::F32, Precision::F16, Precision::Int8] {
            all.push(simple(counts, precision));
        }
    } else {
        all.push(customary(counts, SummedSpikes::Multiplied));
        all.push(simple(counts, Precision::F32));
    }
    all.push(float_network(counts));
    all.push(int8(counts));
    let mut widths = vec![8, 4];
    if counts.spiking() {
        widths.push(fair_bits(counts.steps()));
    }
    widths.dedup();
    all.extend(widths.iter().map(|bits| bit_serial(counts, *bits, ones)));
    all
}
