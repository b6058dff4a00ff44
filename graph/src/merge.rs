//! Two traces at two batches make one graph in which the batch is a symbol.

use crate::graph::{Arg, Dtype, Graph, Node, Origin, Value, ValueId};
use crate::import::{Plain, PlainGraph, PlainNode};
use crate::trace::TraceError;
use crate::{Size, checks, modules};
use std::collections::{BTreeMap, HashMap};
use tch::Tensor;

/// The graph, and the tensors among its values that are known.
pub(crate) fn merge(
    traces: [PlainGraph; 2],
    batches: [i64; 2],
    inputs: usize,
    params: &[(String, Tensor)],
) -> Result<(Graph, BTreeMap<ValueId, Tensor>), TraceError> {
    let [a, b] = &traces;
    if a.nodes.len() != b.nodes.len() || a.recorded.values.len() != b.recorded.values.len() {
        return Err(TraceError::Structure {
            what: format!("{} nodes and {}", a.nodes.len(), b.nodes.len()),
        });
    }
    let mut merger = Merger {
        traces: &traces,
        batches,
        graph: Graph::default(),
        tensors: BTreeMap::new(),
        ids: HashMap::new(),
    };
    merger.graph_inputs(inputs, params)?;
    for (x, y) in a.nodes.iter().zip(&b.nodes) {
        merger.node(x, y)?;
    }
    for &output in &a.recorded.outputs {
        let id = merger.value(output, Origin::Node)?;
        merger.graph.outputs.push(id);
    }
    let Merger {
        mut graph,
        mut tensors,
        ids,
        ..
    } = merger;
    modules::infer(&mut graph);
    let recorded: HashMap<ValueId, usize> = ids.into_iter().map(|(r, id)| (id, r)).collect();
    fold(&traces[0], &recorded, &mut graph, &mut tensors)?;
    Ok((graph, tensors))
}

/// Computes now what depends on parameters and constants only.
///
/// Not what has the batch among its arguments, nor what makes tensors from nothing: that has no place in a graph.
fn fold(
    trace: &PlainGraph,
    recorded: &HashMap<ValueId, usize>,
    graph: &mut Graph,
    tensors: &mut BTreeMap<ValueId, Tensor>,
) -> Result<(), TraceError> {
    let Some(handle) = &trace.recorded.handle else {
        return Ok(());
    };
    for (id, value) in graph.values.iter().enumerate() {
        if value.origin == Origin::Parameter {
            handle.know(recorded[&id], &tensors[&id]);
        }
    }
    let values = &mut graph.values;
    let mut failed = None;
    graph.nodes.retain(|node| {
        let constant = node.inputs().all(|id| tensors.contains_key(&id));
        if !constant
            || failed.is_some()
            || created(node)
            || node.args.iter().any(|(_, a)| varies(a))
        {
            return true;
        }
        if let Err(reason) = handle.run(recorded[&node.outputs[0]]) {
            failed = Some(reason);
            return true;
        }
        for &output in &node.outputs {
            if let Some(tensor) = handle.known(recorded[&output]) {
                values[output].origin = Origin::Constant;
                tensors.insert(output, tensor);
            }
        }
        false
    });
    match failed {
        Some(reason) => Err(TraceError::Tracer { reason }),
        None => Ok(()),
    }
}

/// Makes a tensor from nothing.
pub(crate) fn created(node: &Node) -> bool {
    let name = node.kind.trim_start_matches("aten::");
    matches!(
        name,
        "zeros"
            | "empty"
            | "empty_like"
            | "rand"
            | "randn"
            | "rand_like"
            | "randn_like"
            | "bernoulli"
    )
}

/// Depends on the batch.
fn varies(arg: &Arg) -> bool {
    match arg {
        Arg::Int(size) => size.per_image != 0,
        Arg::Ints(sizes) => sizes.iter().any(|size| size.per_image != 0),
        _ => false,
    }
}

struct Merger<'a> {
    traces: &'a [PlainGraph; 2],
    batches: [i64; 2],
    graph: Graph,
    tensors: BTreeMap<ValueId, Tensor>,
    /// From the tracer's numbers to ours.
    ids: HashMap<usize, ValueId>,
}

impl Merger<'_> {
    fn graph_inputs(
        &mut self,
        inputs: usize,
        params: &[(String, Tensor)],
    ) -> Result<(), TraceError> {
        let recorded = &self.traces[0].recorded.inputs;
        for &value in &recorded[..inputs] {
            let id = self.value(value, Origin::Input)?;
            self.graph.inputs.push(id);
        }
        for (&value, (_, tensor)) in recorded[inputs..].iter().zip(params) {
            let id = self.value(value, Origin::Parameter)?;
            self.tensors.insert(id, tensor.shallow_clone());
        }
        Ok(())
    }

    fn node(&mut self, x: &PlainNode, y: &PlainNode) -> Result<(), TraceError> {
        let differs = || TraceError::Structure {
            what: format!("`{}` and `{}`", x.kind, y.kind),
        };
        if x.kind != y.kind || x.args.len() != y.args.len() || x.outputs != y.outputs {
            return Err(differs());
        }
        let mut args = Vec::with_capacity(x.args.len());
        for ((name, p), (_, q)) in x.args.iter().zip(&y.args) {
            let arg = self.arg(p, q);
            let arg = arg.ok_or_else(|| checks::different(&x.kind, name, p, q))??;
            args.push((name.clone(), arg));
        }
        let outputs: Result<_, _> = x
            .outputs
            .iter()
            .map(|&v| self.value(v, Origin::Node))
            .collect();
        self.graph.nodes.push(Node {
            kind: x.kind.clone(),
            module: modules::of_scope(&x.scope),
            args,
            outputs: outputs?,
        });
        Ok(())
    }

    /// `None` where the two traces differ.
    fn arg(&mut self, p: &Plain, q: &Plain) -> Option<Result<Arg, TraceError>> {
        Some(Ok(match (p, q) {
            (Plain::Int(i), Plain::Int(j)) => Arg::Int(Size::through(self.batches, [*i, *j])?),
            (Plain::Ints(i), Plain::Ints(j)) => Arg::Ints(self.sizes(i, j)?),
            (Plain::Value(v), Plain::Value(w)) if v == w => {
                match self.value(*v, Origin::Constant) {
                    Ok(id) => Arg::Value(id),
                    Err(e) => return Some(Err(e)),
                }
            }
            (Plain::Values(v), Plain::Values(w)) if v == w => {
                let ids = v.iter().map(|v| v.map(|v| self.value(v, Origin::Constant)));
                let ids: Result<Vec<_>, _> = ids.map(Option::transpose).collect();
                match ids {
                    Ok(ids) => Arg::Values(ids),
                    Err(e) => return Some(Err(e)),
                }
            }
            (Plain::Float(x), Plain::Float(y)) if x == y || x.is_nan() && y.is_nan() => {
                Arg::Float(*x)
            }
            (p, q) if p != q => return None,
            (Plain::None, _) => Arg::None,
            (Plain::Bool(b), _) => Arg::Bool(*b),
            (Plain::Text(text), _) => Arg::Text(text.clone()),
            (Plain::Floats(x), _) => Arg::Floats(x.clone()),
            (Plain::Bools(bits), _) => Arg::Bools(bits.clone()),
            _ => return None,
        }))
    }

    fn sizes(&self, i: &[i64], j: &[i64]) -> Option<Vec<Size>> {
        if i.len() != j.len() {
            return None;
        }
        let pairs = i.iter().zip(j);
        pairs
            .map(|(i, j)| Size::through(self.batches, [*i, *j]))
            .collect()
    }

    /// Our number of a value; a new one is of this origin.
    fn value(&mut self, recorded: usize, origin: Origin) -> Result<ValueId, TraceError> {
        if let Some(id) = self.ids.get(&recorded) {
            return Ok(*id);
        }
        let [a, b] = self.traces.each_ref().map(|t| &t.recorded.values[recorded]);
        let unknown = || TraceError::Constant {
            what: format!("`{}`, a value without kind or shape", a.name),
        };
        let (Some(s), Some(t)) = (&a.shape, &b.shape) else {
            return Err(unknown());
        };
        let shape = self.sizes(s, t).ok_or_else(|| TraceError::Structure {
            what: format!("shapes {s:?} and {t:?}"),
        })?;
        let strides = a.strides.as_ref().zip(b.strides.as_ref());
        let strides = strides.and_then(|(s, t)| self.sizes(s, t));
        let dtype = a.dtype.and_then(Dtype::of_libtorch).ok_or_else(unknown)?;
        let id = self.graph.values.len();
        if origin == Origin::Constant {
            self.constant(recorded, id)?;
        }
        self.graph.values.push(Value {
            name: a.name.clone(),
            dtype,
            shape,
            strides: strides.unwrap_or_default(),
            origin,
        });
        self.ids.insert(recorded, id);
        Ok(id)
    }

    fn constant(&mut self, recorded: usize, id: ValueId) -> Result<(), TraceError> {
        let [a, b] = self.traces.each_ref().map(|t| t.constants.get(&recorded));
        let (Some(a), Some(b)) = (a, b) else {
            return Err(TraceError::Constant {
                what: "a value that nothing computes".to_owned(),
            });
        };
        if !checks::same(a, b) {
            return Err(TraceError::BatchInConstant { shape: a.size() });
        }
        self.tensors.insert(id, a.shallow_clone());
        Ok(())
    }
}
