//! What would make a wrong graph, seen in the traces before they are merged.

use crate::import::{Plain, PlainGraph, PlainNode};
use crate::trace::TraceError;
use crate::{Size, modules};
use std::collections::BTreeSet;

/// Refuses what is read outside of libtorch, where it depends on one of the first `inputs` inputs.
///
/// Numbers are noted by the shim. Whoever copies a tensor's elements brings them into the kind and order wanted first: a
/// copy that nothing in the graph reads.
pub(crate) fn refuse_reads(trace: &PlainGraph, inputs: usize) -> Result<(), TraceError> {
    let recorded = &trace.recorded;
    let used: BTreeSet<usize> = trace.nodes.iter().flat_map(PlainNode::inputs).collect();
    let read = |value: &usize| used.contains(value) || recorded.outputs.contains(value);
    let mut moving: BTreeSet<usize> = recorded.inputs.iter().take(inputs).copied().collect();
    for (at, node) in trace.nodes.iter().enumerate() {
        if !node.inputs().any(|value| moving.contains(&value)) {
            continue;
        }
        moving.extend(&node.outputs);
        let copy = matches!(node.kind.as_str(), "aten::contiguous" | "aten::to");
        let copied = copy && !node.outputs.iter().any(read);
        if copied || node.outputs.iter().any(|v| recorded.numbers.contains(v)) {
            return Err(TraceError::Read {
                place: place(trace, at),
            });
        }
    }
    match recorded.numbers.iter().any(|value| moving.contains(value)) {
        true => Err(TraceError::Read {
            place: "the input".to_owned(),
        }),
        false => Ok(()),
    }
}

/// Where a node is, as far as it can be told: its scope, or the module of the last parameter that was read up to it.
fn place(trace: &PlainGraph, at: usize) -> String {
    let scope = modules::of_scope(&trace.nodes[at].scope);
    if !scope.is_empty() {
        return format!("a tensor in `{scope}`");
    }
    let params: BTreeSet<usize> = trace.recorded.inputs.iter().copied().collect();
    let read = trace.nodes[..=at].iter().rev();
    let mut names = read.flat_map(PlainNode::inputs).filter_map(|value| {
        let known = params.contains(&value);
        let (module, _) = trace.recorded.values[value].name.rsplit_once('.')?;
        known.then_some(module)
    });
    let last = names.next();
    last.map_or("a tensor".to_owned(), |m| format!("a tensor behind `{m}`"))
}

/// Refuses traces whose third does not continue what the first two say, such as half of the batch.
pub(crate) fn confirm(
    traces: &[PlainGraph; 2],
    third: &PlainGraph,
    batches: [i64; 3],
) -> Result<(), TraceError> {
    let [first, second] = traces;
    if first.nodes.len() != third.nodes.len() {
        let what = format!("{} nodes and {}", first.nodes.len(), third.nodes.len());
        return Err(TraceError::Structure { what });
    }
    let both = first.nodes.iter().zip(&second.nodes);
    for ((a, b), c) in both.zip(&third.nodes) {
        let same = a.kind == c.kind && a.args.len() == c.args.len();
        let mut args = a.args.iter().zip(&b.args).zip(&c.args);
        if !same {
            let what = format!("`{}` and `{}`", a.kind, c.kind);
            return Err(TraceError::Structure { what });
        }
        if let Some(((p, _), r)) = args.find(|((p, q), r)| !continues([&p.1, &q.1, &r.1], batches))
        {
            return Err(different(&a.kind, &p.0, &p.1, &r.1));
        }
    }
    let values = [first, second, third].map(|trace| &trace.recorded.values);
    for ((a, b), c) in values[0].iter().zip(values[1]).zip(values[2]) {
        let (Some(p), Some(q), Some(r)) = (&a.shape, &b.shape, &c.shape) else {
            continue;
        };
        if !all_continue([p, q, r], batches) {
            let what = format!("a tensor has shapes {p:?}, {q:?} and {r:?}");
            return Err(TraceError::Structure { what });
        }
    }
    for (value, constant) in &first.constants {
        let other = third.constants.get(value);
        if !other.is_some_and(|other| same(constant, other)) {
            let shape = constant.size();
            return Err(TraceError::BatchInConstant { shape });
        }
    }
    Ok(())
}

/// An argument that is not the same, in more than the batch.
pub(crate) fn different(kind: &str, argument: &str, a: &Plain, b: &Plain) -> TraceError {
    let what = format!("`{argument}` of `{kind}` is {} and {}", shown(a), shown(b));
    TraceError::Structure { what }
}

fn shown(argument: &Plain) -> String {
    match argument {
        Plain::None => "left out".to_owned(),
        Plain::Bool(b) => b.to_string(),
        Plain::Int(i) => i.to_string(),
        Plain::Float(x) => x.to_string(),
        Plain::Text(text) => text.clone(),
        Plain::Ints(ints) => format!("{ints:?}"),
        Plain::Floats(floats) => format!("{floats:?}"),
        Plain::Bools(bits) => format!("{bits:?}"),
        Plain::Value(_) | Plain::Values(_) => "another tensor".to_owned(),
    }
}

/// Whether two constants are the same.
pub(crate) fn same(a: &tch::Tensor, b: &tch::Tensor) -> bool {
    a.size() == b.size() && a.kind() == b.kind() && a.equal(b)
}

/// Whether the third number goes on as the first two say.
fn one_continues([a, b, c]: [i64; 3], batches: [i64; 3]) -> bool {
    let size = Size::through([batches[0], batches[1]], [a, b]);
    size.is_some_and(|size| size.at(batches[2]) == c)
}

fn all_continue([a, b, c]: [&[i64]; 3], batches: [i64; 3]) -> bool {
    let mut numbers = a.iter().zip(b).zip(c);
    a.len() == c.len() && numbers.all(|((a, b), c)| one_continues([*a, *b, *c], batches))
}

fn continues(args: [&Plain; 3], batches: [i64; 3]) -> bool {
    match args {
        [Plain::Int(a), Plain::Int(b), Plain::Int(c)] => one_continues([*a, *b, *c], batches),
        [Plain::Ints(a), Plain::Ints(b), Plain::Ints(c)] => all_continue([a, b, c], batches),
        // The merge compares the first two.
        [Plain::Float(a), _, Plain::Float(c)] => a == c || a.is_nan() && c.is_nan(),
        [a, _, c] => a == c,
    }
}
