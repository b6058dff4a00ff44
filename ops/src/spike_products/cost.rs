//! Whether sums of spikes are quicker than the dense product.

use super::kernel::PANEL;
use super::pack::Lists;
use super::plan::Plan;

/// What one output of the kernel costs, in dense multiply-accumulates of oneDNN.
#[derive(Debug, Clone, Copy)]
struct Costs {
    /// An entry of a list.
    entry: f64,
    /// A list: its cell is read and written.
    list: f64,
    /// A table: one for each unit and tap.
    table: f64,
}

/// Fitted to the times of `cargo bench -p zoo-ops --bench spikes`; docs/spiking.md has them, the machine and the date.
const COSTS: Costs = Costs {
    entry: 1.0,
    list: 3.0,
    table: 600.0,
};

/// Whether the tables alone already cost more than the dense product of so many rows.
pub(super) fn hopeless(plan: &Plan, inputs: usize) -> bool {
    let [height, width] = plan.output;
    let rows = plan.shape.images * height * width / plan.chunks.len().max(1);
    COSTS.table >= (rows * inputs.min(super::pack::BLOCK)) as f64
}

/// Whether `lists` times `outputs` columns are quicker than `inputs` dense ones.
pub(super) fn pays(lists: &Lists, plan: &Plan, inputs: usize, outputs: usize) -> bool {
    let taps = (plan.shape.taps[0] * plan.shape.taps[1]) as f64;
    let [height, width] = plan.output;
    let rows = plan.shape.images * height * width;
    let dense = (rows * inputs * outputs) as f64 * taps;
    let columns = outputs.next_multiple_of(PANEL) as f64;
    let each = COSTS.entry * lists.entries as f64
        + COSTS.list * lists.lists as f64
        + COSTS.table * lists.units.len() as f64;
    each * taps * columns < dense
}
