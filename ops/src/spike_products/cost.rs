//! Whether sums of spikes are quicker than the dense product.

use super::kernel::PANEL;
use super::pack::{BLOCK, Lists};
use super::plan::Plan;

/// What the kernel costs, in multiply-accumulates of oneDNN's dense product in the same time.
#[derive(Debug, Clone, Copy)]
struct Costs {
    /// An entry of a list, for each output.
    entry: f64,
    /// A list, for each output: its cell is read and written.
    list: f64,
    /// A table, for each output; one for each unit and tap. Most of it is waiting for the weights.
    table: f64,
    /// Looking at 64 inputs of a row, once for all outputs.
    look: f64,
}

/// Fitted to the times of `cargo bench -p zoo-ops --bench spikes`; docs/spiking.md has them, the machine and the date.
const COSTS: Costs = Costs {
    entry: 1.4,
    list: 3.0,
    table: 2500.0,
    look: 1600.0,
};

/// Whether the tables and looking for spikes already cost more than the dense product of so many rows.
pub(super) fn hopeless(plan: &Plan, [outputs, inputs]: [usize; 2]) -> bool {
    let taps = (plan.shape.taps[0] * plan.shape.taps[1]) as f64;
    let [height, width] = plan.output;
    let rows = (plan.shape.images * height * width) as f64 / plan.chunks.len().max(1) as f64;
    let dense = rows * inputs.min(BLOCK) as f64 * taps * outputs as f64;
    COSTS.table * taps * outputs as f64 + COSTS.look * rows >= dense
}

/// Whether `lists` times `outputs` columns are quicker than `inputs` dense ones. Looking for spikes is done by then.
pub(super) fn pays(lists: &Lists, plan: &Plan, [outputs, inputs]: [usize; 2]) -> bool {
    let taps = (plan.shape.taps[0] * plan.shape.taps[1]) as f64;
    let [height, width] = plan.output;
    let rows = plan.shape.images * height * width;
    let dense = (rows * inputs * outputs) as f64 * taps;
    let columns = outputs.next_multiple_of(PANEL) as f64;
    let tables = lists.units.iter().filter(|unit| !unit.is_empty()).count();
    let each = COSTS.entry * lists.entries as f64
        + COSTS.list * lists.lists as f64
        + COSTS.table * tables as f64;
    each * taps * columns < dense
}
