//! What an ONNX file says of itself: input, output, operators, metadata.

use super::OnnxError;
use super::bounds;
use super::external;
use super::input_form;
use super::preprocessing::{self, OnnxPreprocessing};
use super::proto::{Entry, FLOAT, FLOAT16, Graph, Model, TensorType, Value};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use zoo_backbones::InputForm;

/// A larger file is no protobuf message; its weights would have to lie beside it.
const MAX_BYTES: u64 = 2 << 30;

/// One dimension of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// Always this many.
    Fixed(i64),
    /// Any number, under this name (which may be empty).
    Any(String),
}

impl Dimension {
    /// Whether this many fit.
    pub fn takes(&self, n: i64) -> bool {
        match self {
            Dimension::Fixed(fixed) => *fixed == n,
            Dimension::Any(_) => true,
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dimension::Fixed(n) => write!(f, "{n}"),
            Dimension::Any(name) if name.is_empty() => f.write_str("any"),
            Dimension::Any(name) => f.write_str(name),
        }
    }
}

/// Element formats of an input that the engines can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
}

/// An ONNX file that classifies images, as far as it can be told without running it.
#[derive(Debug, Clone)]
pub struct OnnxFile {
    pub(super) path: PathBuf,
    pub(super) input: String,
    pub(super) element: Element,
    pub(super) shape: Vec<Dimension>,
    form: InputForm,
    pub(super) output: String,
    operators: BTreeMap<(String, String), usize>,
    producer: String,
    metadata: BTreeMap<String, String>,
    preprocessing: Option<OnnxPreprocessing>,
    data: BTreeSet<PathBuf>,
}

impl OnnxFile {
    /// Reads the file; weights are skipped.
    ///
    /// # Errors
    /// A file that can not be read or is no ONNX model, one whose weights lie in a file that is missing or too short, and one
    /// that does not take one batch of images (`[batch, channels, height, width]`, float32 or float16), or of the form that
    /// its metadata states.
    pub fn read(path: &Path) -> Result<OnnxFile, OnnxError> {
        let io = |source| OnnxError::Io {
            path: path.to_path_buf(),
            source,
        };
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > MAX_BYTES {
            return Err(malformed(
                path,
                format!("{size} bytes are more than the 2 GiB of a protobuf message"),
            ));
        }
        let bytes = std::fs::read(path).map_err(io)?;
        OnnxFile::parse(path, &bytes)
    }

    /// The same of bytes in memory; `path` is for messages, and for the weights beside the file.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<OnnxFile, OnnxError> {
        bounds::check(bytes).map_err(|reason| malformed(path, reason))?;
        let model = Model::decode(bytes).map_err(|e| malformed(path, e.to_string()))?;
        let graph = model
            .graph
            .ok_or_else(|| malformed(path, "it holds no graph".to_owned()))?;
        if graph.node.is_empty() {
            return Err(malformed(path, "its graph has no operators".to_owned()));
        }
        let data = external::files(path, &graph)?;
        let metadata: BTreeMap<String, String> = model
            .metadata_props
            .into_iter()
            .map(|Entry { key, value }| (key, value))
            .collect();
        let form = input_form::from_metadata(path, &metadata)?;
        let (input, element, shape) = image_input(path, &graph, form)?;
        Ok(OnnxFile {
            preprocessing: preprocessing::from_metadata(path, &metadata)?,
            output: logits_output(path, &graph)?,
            operators: count_operators(&graph),
            producer: format!("{} {}", model.producer_name, model.producer_version)
                .trim()
                .to_owned(),
            path: path.to_path_buf(),
            input,
            element,
            shape,
            form,
            metadata,
            data,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells it from all other files: its name and SHA-256, and those of the files its weights lie in.
    pub fn identity(&self) -> Result<String, OnnxError> {
        let mut parts = Vec::new();
        for path in std::iter::once(&self.path).chain(&self.data) {
            let hash = zoo_weights::file_sha256(path).map_err(|source| OnnxError::Io {
                path: path.clone(),
                source,
            })?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            parts.push(format!("{name}:sha256:{hash}"));
        }
        Ok(parts.join(" "))
    }

    /// The program that wrote it, as it says.
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// What it says of itself, by key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The preprocessing that its metadata states.
    pub fn preprocessing(&self) -> Option<OnnxPreprocessing> {
        self.preprocessing
    }

    /// The axes of the input: batch, channels, height and width, unless [`OnnxFile::form`] says otherwise.
    pub fn shape(&self) -> &[Dimension] {
        &self.shape
    }

    /// The form of the input: images, unless its metadata says otherwise.
    pub fn form(&self) -> InputForm {
        self.form
    }

    /// Channels of the input; three where the file leaves it open.
    pub fn channels(&self) -> i64 {
        match self.shape[input_form::channel_axis(self.form)] {
            Dimension::Fixed(n) => n,
            Dimension::Any(_) => 3,
        }
    }

    /// Height and width of the input, where they are fixed; the height of a sequence or of points is 1.
    pub fn size(&self) -> Option<(usize, usize)> {
        let sides = &self.shape[input_form::side_axes(self.form)];
        let fixed = |side: &Dimension| match side {
            Dimension::Fixed(n) => usize::try_from(*n).ok(),
            Dimension::Any(_) => None,
        };
        match sides {
            [height, width] => Some((fixed(height)?, fixed(width)?)),
            [length] => Some((1, fixed(length)?)),
            _ => None,
        }
    }

    /// How many operators it has of each domain and name; the domain of ONNX's own is empty.
    pub fn operators(&self) -> &BTreeMap<(String, String), usize> {
        &self.operators
    }

    /// Operators that are not ONNX's own, as a hint in messages; empty where there are none.
    pub(super) fn foreign_operators(&self) -> String {
        let foreign: Vec<String> = self
            .operators
            .iter()
            .filter(|((domain, _), _)| !matches!(domain.as_str(), "" | "ai.onnx"))
            .map(|((domain, name), count)| format!("{domain}::{name} ({count})"))
            .collect();
        if foreign.is_empty() {
            return String::new();
        }
        format!(
            ". It uses operators outside the ONNX standard: {}; export it with standard operators only",
            foreign.join(", ")
        )
    }

    /// Holds an input's shape to the graph's.
    pub(super) fn check(&self, shape: &[i64]) -> Result<(), OnnxError> {
        let fits = shape.len() == self.shape.len()
            && shape[0] > 0
            && self.shape.iter().zip(shape).all(|(d, &n)| d.takes(n));
        if fits {
            return Ok(());
        }
        let mut reason = format!("it takes [{}], not {shape:?}", join(&self.shape));
        if let (Dimension::Fixed(batch), Some(found)) = (&self.shape[0], shape.first())
            && batch != found
        {
            reason += &format!(
                ": the file was exported for batches of {batch} only; give --batch {batch}, or export it with a dynamic batch"
            );
        }
        Err(OnnxError::Input {
            path: self.path.clone(),
            reason,
        })
    }
}

pub(super) fn malformed(path: &Path, reason: String) -> OnnxError {
    OnnxError::Malformed {
        path: path.to_path_buf(),
        reason,
    }
}

fn foreign(path: &Path, reason: String) -> OnnxError {
    OnnxError::Foreign {
        path: path.to_path_buf(),
        reason,
    }
}

/// The only input that is no weight: images, or what the metadata says.
fn image_input(
    path: &Path,
    graph: &Graph,
    form: InputForm,
) -> Result<(String, Element, Vec<Dimension>), OnnxError> {
    let inputs: Vec<&Value> = graph
        .input
        .iter()
        .filter(|input| !graph.initializer.iter().any(|w| w.name == input.name))
        .collect();
    let [input] = inputs.as_slice() else {
        let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
        return Err(foreign(
            path,
            format!(
                "it has {} inputs ({}), and a classifier has one",
                names.len(),
                names.join(", ")
            ),
        ));
    };
    let name = &input.name;
    let tensor = tensor_type(input)
        .ok_or_else(|| foreign(path, format!("its input `{name}` is no tensor")))?;
    let element = match tensor.elem_type {
        FLOAT => Element::F32,
        FLOAT16 => Element::F16,
        other => {
            return Err(foreign(
                path,
                format!(
                    "its input `{name}` has element type {other} of ONNX; float32 (1) and float16 (10) are taken"
                ),
            ));
        }
    };
    let shape = dimensions(tensor);
    if shape.len() != input_form::rank(form) {
        return Err(foreign(
            path,
            format!("its input `{name}` is [{}], not {form}", join(&shape)),
        ));
    }
    Ok((name.clone(), element, shape))
}

/// The output called `logits`, or the only one.
fn logits_output(path: &Path, graph: &Graph) -> Result<String, OnnxError> {
    let mut outputs = graph.output.iter();
    let output = match graph.output.as_slice() {
        [only] => only,
        _ => outputs.find(|o| o.name == "logits").ok_or_else(|| {
            let names: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
            foreign(
                path,
                format!(
                    "it has {} outputs ({}) and none is called `logits`",
                    names.len(),
                    names.join(", ")
                ),
            )
        })?,
    };
    let rank = tensor_type(output)
        .filter(|t| t.shape.is_some())
        .map(|t| dimensions(t).len());
    match rank {
        None | Some(2) => Ok(output.name.clone()),
        Some(rank) => Err(foreign(
            path,
            format!(
                "its output `{}` has {rank} dimensions, and logits are [batch, classes]",
                output.name
            ),
        )),
    }
}

fn tensor_type(value: &Value) -> Option<&TensorType> {
    value.r#type.as_ref()?.tensor.as_ref()
}

fn dimensions(tensor: &TensorType) -> Vec<Dimension> {
    let dims = tensor.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    dims.iter()
        .map(|dim| match dim.value {
            Some(n) if n > 0 => Dimension::Fixed(n),
            _ => Dimension::Any(dim.name.clone().unwrap_or_default()),
        })
        .collect()
}

fn join(shape: &[Dimension]) -> String {
    let shown: Vec<String> = shape.iter().map(Dimension::to_string).collect();
    shown.join(", ")
}

fn count_operators(graph: &Graph) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for node in &graph.node {
        *counts
            .entry((node.domain.clone(), node.op_type.clone()))
            .or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
