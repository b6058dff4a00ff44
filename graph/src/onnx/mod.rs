//! ONNX files from graphs: standard operators of opset 21, no Python.
//!
//! Opset 21 because it is the first with LayerNormalization, GroupNormalization per channel and Gelu as operators; ONNX Runtime
//! has it since 1.18, OpenVINO since 2024.3.

mod bytes;
mod call;
mod model;
mod proto;
mod rewrite;
mod rules;

use crate::graph::{Arg, Node};
use crate::{Origin, Trace};
use call::{Call, Converter};
use model::Port;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The operator set that files name.
pub const OPSET: i64 = 21;

/// Bytes of weights that a file may hold: protobuf messages end at 2 GiB, and the graph needs some room.
pub const EMBEDDED_LIMIT: usize = 2_000_000_000;

/// How to write a file.
#[derive(Debug, Clone)]
pub struct OnnxOptions {
    /// Name of the graph.
    pub name: String,
    /// What the file is, in a sentence.
    pub description: String,
    /// Names of the outputs, in order; further ones keep their own.
    pub outputs: Vec<String>,
    /// Keys and values that travel with the model.
    pub metadata: BTreeMap<String, String>,
    /// Bytes of all weights up to which they lie in the file itself; beyond, in `FILE.data` beside it. Never more than
    /// [`EMBEDDED_LIMIT`], which is the default; 0 puts them apart.
    pub embed_up_to: usize,
    /// Weights and arithmetic in half precision; inputs and outputs stay as they are.
    pub half: bool,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        OnnxOptions {
            name: "model".to_owned(),
            description: String::new(),
            outputs: vec!["output".to_owned()],
            metadata: BTreeMap::new(),
            embed_up_to: EMBEDDED_LIMIT,
            half: false,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OnnxFile {
    /// What was written: the file, and the one with its weights where they are apart.
    pub files: Vec<PathBuf>,
    /// Bytes of both.
    pub bytes: u64,
    /// Operators in it.
    pub nodes: usize,
    /// Operators by kind.
    pub kinds: BTreeMap<String, usize>,
    /// Elements of all weights.
    pub weights: u64,
}

/// Why a graph can not be written as ONNX.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExportError {
    /// Operators without a rule, all of them.
    #[error("no ONNX form is known for {}: see the support table in zoo-graph's README", kinds.join(", "))]
    Unknown { kinds: Vec<String> },
    /// An operator that is known, but not with these arguments.
    #[error("`{kind}` in `{module}`: {reason}")]
    Arguments {
        kind: String,
        module: String,
        reason: String,
    },
    /// Something that ONNX has no place for.
    #[error("ONNX can not hold {what}")]
    Unsupported { what: String },
    /// The file can not be written.
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// Writes what a trace computes as an ONNX file.
///
/// Norms behind convolutions and linear layers are folded, transposes that cancel and chains of reshapes are one or none.
///
/// # Errors
/// [`ExportError`]; nothing is left out silently.
pub fn export(trace: &Trace, options: &OnnxOptions, path: &Path) -> Result<OnnxFile, ExportError> {
    let mut draft = convert(trace, options)?;
    rewrite::simplify(&mut draft);
    if options.half {
        rewrite::to_half(&mut draft)?;
    }
    let (files, bytes) = bytes::write(&draft, options, path)?;
    let mut kinds = BTreeMap::new();
    for op in &draft.ops {
        *kinds.entry(op.kind.to_owned()).or_insert(0) += 1;
    }
    Ok(OnnxFile {
        files,
        bytes,
        nodes: draft.ops.len(),
        kinds,
        weights: draft.weights.values().map(|t| t.numel() as u64).sum(),
    })
}

/// libtorch's operators with an ONNX form, each with the ONNX operators it becomes.
pub fn supported() -> BTreeMap<&'static str, &'static str> {
    rules::all().map(|rule| (rule.kind, rule.becomes)).collect()
}

fn convert(trace: &Trace, options: &OnnxOptions) -> Result<model::Draft, ExportError> {
    let graph = &trace.graph;
    let mut unknown: Vec<String> = graph
        .nodes
        .iter()
        .filter(|node| rules::find(&node.kind).is_none())
        .map(|node| node.kind.clone())
        .collect();
    unknown.sort();
    unknown.dedup();
    if !unknown.is_empty() {
        return Err(ExportError::Unknown { kinds: unknown });
    }
    let mut converter = Converter::new(trace);
    for node in &graph.nodes {
        let rule = rules::find(&node.kind).map(|rule| rule.convert);
        let Some(rule) = rule else { continue };
        let mut call = Call {
            converter: &mut converter,
            node,
        };
        let outputs = rule(&mut call).map_err(|reason| arguments(node, reason))?;
        for (&id, name) in node.outputs.iter().zip(outputs) {
            let shape = graph.values[id].shape.clone();
            converter.draft.shapes.insert(name.clone(), shape);
            converter.names.insert(id, name);
        }
    }
    for (i, &id) in graph.outputs.iter().enumerate() {
        let value = &graph.values[id];
        let wanted = options.outputs.get(i).unwrap_or(&value.name);
        let source = converter
            .tensor(id)
            .map_err(|what| ExportError::Unsupported { what })?;
        let name = converter
            .draft
            .add(model::Op::new("Identity", &[&source]), wanted);
        converter.draft.outputs.push(Port {
            name,
            dtype: value.dtype,
            shape: value.shape.clone(),
        });
    }
    Ok(converter.draft)
}

fn arguments(node: &Node, reason: String) -> ExportError {
    ExportError::Arguments {
        kind: node.kind.clone(),
        module: node.module.clone(),
        reason,
    }
}

/// Whether a node's argument is a number rather than a tensor.
fn is_number(arg: &Arg) -> bool {
    matches!(arg, Arg::Int(_) | Arg::Float(_) | Arg::Bool(_))
}

/// Whether a value's tensor is in the trace.
fn is_weight(trace: &Trace, id: usize) -> bool {
    matches!(
        trace.graph.values[id].origin,
        Origin::Parameter | Origin::Constant
    )
}
