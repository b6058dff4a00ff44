//! Running a forward pass under the tracer.

use crate::ffi::Running;
use crate::graph::{Graph, ValueId, Variable};
use crate::import::{PlainGraph, import};
use crate::{merge, modules, passes};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::{Kind, Tensor, nn};

/// The batches that are traced: what is the same at both does not depend on the batch.
const BATCHES: [i64; 2] = [2, 3];

/// Why a model can not be traced. Each says what to change.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TraceError {
    /// libtorch or the model failed.
    #[error("the forward pass failed: {reason}")]
    Forward { reason: String },
    /// libtorch's tracer failed.
    #[error("the tracer failed: {reason}")]
    Tracer { reason: String },
    /// The two traces differ.
    #[error(
        "the forward pass takes another way at another batch ({what}): let nothing in it depend on the size of the batch"
    )]
    Structure { what: String },
    /// A constant is not the same at both batches.
    #[error(
        "a constant of shape {shape:?} holds other values at another batch: compute it from the input with tensor operations"
    )]
    BatchInConstant { shape: Vec<i64> },
    /// Something that is no tensor, number, text or list of them.
    #[error("the trace holds {what}, which has no place in a graph")]
    Constant { what: String },
    /// An operator that changes its input.
    #[error(
        "`{kind}` in {module} changes a tensor in place, which a graph can not say: use the form without underscore"
    )]
    InPlace { kind: String, module: String },
    /// A tensor made from nothing inside the forward pass.
    #[error(
        "`{kind}` in {module} makes a tensor inside the forward pass, and what is written into it is not traced: make it when \
         the model is built, or inside `zoo_graph::constant`"
    )]
    Created { kind: String, module: String },
}

/// An input of a model. The batch is its first axis.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its name in the graph.
    pub name: String,
    /// One sample of it: without the batch.
    pub shape: Vec<i64>,
    /// Kind of its elements.
    pub kind: Kind,
}

impl Input {
    /// Images [batch, channels, height, width] in single precision, called `image`.
    pub fn images(shape: [i64; 3]) -> Input {
        Input {
            name: "image".to_owned(),
            shape: shape.to_vec(),
            kind: Kind::Float,
        }
    }
}

/// A graph and its tensors.
#[derive(Debug)]
pub struct Trace {
    /// What is computed.
    pub graph: Graph,
    /// Parameters and constants by value.
    pub tensors: BTreeMap<ValueId, Tensor>,
}

impl Clone for Trace {
    /// Shares the tensors.
    fn clone(&self) -> Self {
        let tensors = self.tensors.iter();
        Trace {
            graph: self.graph.clone(),
            tensors: tensors.map(|(id, t)| (*id, t.shallow_clone())).collect(),
        }
    }
}

/// Traces a forward pass over the variables of a store, on the store's device.
///
/// The graph is as libtorch recorded it, without what no output needs; [`passes`] make it smaller.
///
/// # Errors
/// [`TraceError`]: the traps of tracing are errors, not wrong graphs.
pub fn trace(
    store: &nn::VarStore,
    inputs: &[Input],
    forward: impl Fn(&[Tensor]) -> Vec<Tensor>,
) -> Result<Trace, TraceError> {
    let mut params: Vec<(String, Tensor)> = store.variables().into_iter().collect();
    params.sort_by(|(a, _), (b, _)| a.cmp(b));
    let at = |batch| trace_at(batch, store.device(), inputs, &params, &forward);
    // Once for nothing, so that tables which a model keeps once they are made are constants at both batches; traced, since
    // models may take another way untraced (kernels).
    at(BATCHES[0])?;
    let traces = [at(BATCHES[0])?, at(BATCHES[1])?];
    let (mut graph, tensors) = merge::merge(traces, BATCHES, inputs.len(), &params)?;
    check(&graph)?;
    modules::name_values(&mut graph);
    graph.variables = variables(store, &params);
    let mut trace = Trace { graph, tensors };
    passes::remove_dead(&mut trace);
    Ok(trace)
}

fn variables(store: &nn::VarStore, params: &[(String, Tensor)]) -> Vec<Variable> {
    let trainable = store.trainable_variables();
    let trainable: BTreeSet<_> = trainable.iter().map(|t| t.data_ptr() as usize).collect();
    let variables = params.iter().map(|(name, tensor)| Variable {
        name: name.clone(),
        elements: tensor.numel() as u64,
        trainable: trainable.contains(&(tensor.data_ptr() as usize)),
    });
    variables.collect()
}

fn trace_at(
    batch: i64,
    device: tch::Device,
    inputs: &[Input],
    params: &[(String, Tensor)],
    forward: &impl Fn(&[Tensor]) -> Vec<Tensor>,
) -> Result<PlainGraph, TraceError> {
    let examples: Vec<Tensor> = inputs.iter().map(|i| example(i, batch, device)).collect();
    let named = inputs.iter().zip(&examples);
    let named = named.map(|(input, t)| (input.name.clone(), t.shallow_clone()));
    let known: Vec<(String, Tensor)> = named
        .chain(params.iter().map(|(n, t)| (n.clone(), t.shallow_clone())))
        .collect();
    let run = || {
        catch_unwind(AssertUnwindSafe(|| tch::no_grad(|| forward(&examples)))).map_err(|panic| {
            TraceError::Forward {
                reason: message(panic.as_ref()),
            }
        })
    };
    let tracer = |reason| TraceError::Tracer { reason };
    let running = Running::begin(&known).map_err(tracer)?;
    let outputs = run()?;
    import(running.end(&outputs).map_err(tracer)?)
}

/// Numbers that no branch of a forward pass is likely to single out.
fn example(input: &Input, batch: i64, device: tch::Device) -> Tensor {
    let shape = [&[batch], input.shape.as_slice()].concat();
    match input.kind {
        Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16 => {
            Tensor::rand(shape, (Kind::Float, device)).to_kind(input.kind)
        }
        kind => Tensor::ones(shape, (kind, device)),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without words");
    text.lines().next().unwrap_or_default().to_owned()
}

/// Refuses what a graph would silently get wrong.
fn check(graph: &Graph) -> Result<(), TraceError> {
    for node in &graph.nodes {
        let named = || (node.kind.clone(), described(&node.module));
        let name = node.kind.trim_start_matches("aten::");
        if name.ends_with('_') && !name.starts_with("__") {
            let (kind, module) = named();
            return Err(TraceError::InPlace { kind, module });
        }
        if merge::created(node) {
            let (kind, module) = named();
            return Err(TraceError::Created { kind, module });
        }
    }
    Ok(())
}

fn described(module: &str) -> String {
    match module {
        "" => "the model".to_owned(),
        module => format!("`{module}`"),
    }
}
