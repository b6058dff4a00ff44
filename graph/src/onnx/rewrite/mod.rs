//! Making a draft as short as a person would write it.

mod arithmetic;
mod broadcasts;
mod cleanup;
mod constants;
mod gathers;
mod half;
mod layout;
mod moves;
mod norms;
mod products;
mod repeats;
mod spikes;
mod transposes;

pub(super) use half::to_half;

use super::model::Draft;
use std::collections::{BTreeSet, HashMap};

type Pass = fn(&mut Draft) -> bool;

/// Each gives whether it changed anything, and leaves what is computed alone.
const PASSES: [Pass; 16] = [
    cleanup::skip_identities,
    constants::fold,
    arithmetic::join_factors,
    spikes::shorten,
    broadcasts::drop_expands,
    moves::join_reshapes,
    moves::join_transposes,
    transposes::push_down,
    gathers::before_transposes,
    layout::join_through_reshapes,
    products::split_before_transposes,
    products::turn_products,
    norms::fold_norms,
    norms::split_group_norms,
    cleanup::share_equal_ops,
    cleanup::drop_unused,
];

/// Rewrites until nothing changes.
pub(super) fn simplify(draft: &mut Draft) {
    while PASSES
        .iter()
        .fold(false, |changed, pass| pass(draft) | changed)
    {}
    name_outputs(draft);
    repeats::store_once(draft);
}

/// The op that computes a name, by name.
fn producers(draft: &Draft) -> HashMap<String, usize> {
    let ops = draft.ops.iter().enumerate();
    ops.flat_map(|(i, op)| op.outputs.iter().map(move |o| (o.clone(), i)))
        .collect()
}

fn uses(draft: &Draft) -> HashMap<String, usize> {
    let mut uses = HashMap::new();
    let read = draft.ops.iter().flat_map(|op| &op.inputs);
    for name in read.chain(draft.outputs.iter().map(|port| &port.name)) {
        *uses.entry(name.clone()).or_insert(0) += 1;
    }
    uses
}

/// The ops that read a name, by name.
fn readers(draft: &Draft) -> HashMap<String, Vec<usize>> {
    let mut readers: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, op) in draft.ops.iter().enumerate() {
        for input in &op.inputs {
            readers.entry(input.clone()).or_default().push(i);
        }
    }
    readers
}

/// The one number that a weight holds, where it holds one.
fn number(draft: &Draft, name: &str) -> Option<f64> {
    let weight = draft.weights.get(name).filter(|t| t.numel() == 1)?;
    Some(
        weight
            .to_kind(tch::Kind::Double)
            .reshape([1])
            .double_value(&[0]),
    )
}

fn is_output(draft: &Draft, name: &str) -> bool {
    draft.outputs.iter().any(|port| port.name == name)
}

/// Lets everything that read a key read what it is mapped to.
fn redirect(draft: &mut Draft, names: &HashMap<String, String>) {
    for op in &mut draft.ops {
        for input in &mut op.inputs {
            while let Some(to) = names.get(input) {
                to.clone_into(input);
            }
        }
    }
}

fn redirect_one(draft: &mut Draft, from: &str, to: &str) {
    redirect(draft, &HashMap::from([(from.to_owned(), to.to_owned())]));
}

/// Removes ops whose outputs are other names for values that are there already.
fn replace_ops(
    draft: &mut Draft,
    removed: &BTreeSet<usize>,
    names: &HashMap<String, String>,
) -> bool {
    let mut at = 0;
    draft.ops.retain(|_| {
        at += 1;
        !removed.contains(&(at - 1))
    });
    redirect(draft, names);
    !removed.is_empty()
}

/// Gives what an output copies the output's own name, where nothing stands against it.
fn name_outputs(draft: &mut Draft) {
    while let Some(at) = draft.ops.iter().position(|op| {
        op.kind == "Identity"
            && is_output(draft, &op.outputs[0])
            && draft.ops.iter().any(|o| o.outputs.contains(&op.inputs[0]))
            && !is_output(draft, &op.inputs[0])
    }) {
        let copy = draft.ops.remove(at);
        let (from, to) = (&copy.inputs[0], &copy.outputs[0]);
        redirect_one(draft, from, to);
        for op in &mut draft.ops {
            for output in op.outputs.iter_mut().filter(|o| *o == from) {
                to.clone_into(output);
            }
        }
    }
}
