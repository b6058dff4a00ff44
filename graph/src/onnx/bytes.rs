//! A draft as the bytes of an ONNX file.

use super::model::{Attribute, Draft, Op, Port};
use super::proto::*;
use super::{EMBEDDED_LIMIT, ExportError, OnnxOptions};
use crate::graph::Dtype;
use prost::Message;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// IR version 10 came with ONNX 1.16, which has opset 21.
const IR_VERSION: i64 = 10;
/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

/// Writes the file, and `FILE.data` beside it where the weights are apart; gives what was written and its bytes.
pub(super) fn write(
    draft: &Draft,
    options: &OnnxOptions,
    path: &Path,
) -> Result<(Vec<PathBuf>, u64), ExportError> {
    let total: usize = draft.weights.values().map(bytes_of).sum();
    let external = total > options.embed_up_to.min(EMBEDDED_LIMIT);
    let (initializer, data) = match external {
        true => {
            let data = data_path(path);
            (apart(draft, &data)?, Some(data))
        }
        false => {
            let weights = draft.weights.iter();
            (weights.map(embedded).collect::<Result<_, _>>()?, None)
        }
    };
    let model = model(draft, options, initializer)?.encode_to_vec();
    std::fs::write(path, &model).map_err(io(path))?;
    let files: Vec<PathBuf> = std::iter::once(path.to_owned()).chain(data).collect();
    let mut bytes = 0;
    for file in &files {
        bytes += std::fs::metadata(file).map_err(io(file))?.len();
    }
    Ok((files, bytes))
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> ExportError {
    move |source| ExportError::Io {
        path: path.to_owned(),
        source,
    }
}

/// `FILE.data` beside the file.
fn data_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".data");
    path.with_file_name(name)
}

/// What shapes follow from stays in the file: readers work them out before they open another one.
fn shapes_follow(t: &Tensor) -> bool {
    t.dim() == 0 || !t.is_floating_point()
}

/// Writes the weights into a file of their own, one after the other, and says where each lies.
fn apart(draft: &Draft, path: &Path) -> Result<Vec<TensorProto>, ExportError> {
    let mut file = BufWriter::new(std::fs::File::create(path).map_err(io(path))?);
    let location = path.file_name().unwrap_or_default().to_string_lossy();
    let mut protos = Vec::with_capacity(draft.weights.len());
    let mut offset = 0;
    for (name, tensor) in &draft.weights {
        if shapes_follow(tensor) {
            protos.push(embedded((name, tensor))?);
            continue;
        }
        let bytes = raw(tensor);
        file.write_all(&bytes).map_err(io(path))?;
        protos.push(TensorProto {
            external_data: entries(&[
                ("location", location.clone().into_owned()),
                ("offset", offset.to_string()),
                ("length", bytes.len().to_string()),
            ]),
            data_location: Some(EXTERNAL),
            ..described(name, tensor)?
        });
        offset += bytes.len();
    }
    file.flush().map_err(io(path))?;
    Ok(protos)
}

fn embedded((name, tensor): (&String, &Tensor)) -> Result<TensorProto, ExportError> {
    Ok(TensorProto {
        raw_data: Some(raw(tensor)),
        ..described(name, tensor)?
    })
}

/// Name, shape and kind of a weight.
fn described(name: &str, tensor: &Tensor) -> Result<TensorProto, ExportError> {
    Ok(TensorProto {
        dims: tensor.size(),
        data_type: element_type(tensor.kind())?,
        name: name.to_owned(),
        raw_data: None,
        external_data: Vec::new(),
        data_location: None,
    })
}

fn model(
    draft: &Draft,
    options: &OnnxOptions,
    initializer: Vec<TensorProto>,
) -> Result<ModelProto, ExportError> {
    let metadata = options.metadata.iter();
    Ok(ModelProto {
        ir_version: IR_VERSION,
        producer_name: "zoo-graph".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: options.description.clone(),
        graph: Some(GraphProto {
            node: draft.ops.iter().map(node).collect(),
            name: options.name.clone(),
            initializer,
            input: ports(&draft.inputs)?,
            output: ports(&draft.outputs)?,
        }),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: super::OPSET,
        }],
        metadata_props: metadata
            .map(|(key, value)| StringStringEntryProto {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
    })
}

fn entries(pairs: &[(&str, String)]) -> Vec<StringStringEntryProto> {
    let entry = |(key, value): &(&str, String)| StringStringEntryProto {
        key: (*key).to_owned(),
        value: value.clone(),
    };
    pairs.iter().map(entry).collect()
}

/// A node is called after its first output.
fn node(op: &Op) -> NodeProto {
    NodeProto {
        input: op.inputs.clone(),
        output: op.outputs.clone(),
        name: format!("{}:{}", op.outputs[0], op.kind),
        op_type: op.kind.to_owned(),
        attribute: op.attributes.iter().map(attribute).collect(),
        domain: String::new(),
    }
}

fn attribute((name, value): &(&'static str, Attribute)) -> AttributeProto {
    let mut proto = AttributeProto {
        name: (*name).to_owned(),
        ..AttributeProto::default()
    };
    match value {
        Attribute::Float(x) => (proto.r#type, proto.f) = (1, Some(*x as f32)),
        Attribute::Int(i) => (proto.r#type, proto.i) = (2, Some(*i)),
        Attribute::Text(text) => (proto.r#type, proto.s) = (3, Some(text.clone().into_bytes())),
        Attribute::Ints(ints) => (proto.r#type, proto.ints) = (7, ints.clone()),
    }
    proto
}

fn ports(ports: &[Port]) -> Result<Vec<ValueInfoProto>, ExportError> {
    let port = |port: &Port| {
        let dim = port.shape.iter().map(|size| match size.as_fixed() {
            Some(n) => DimensionProto {
                dim_value: Some(n),
                dim_param: None,
            },
            None => DimensionProto {
                dim_value: None,
                dim_param: Some(size.to_string()),
            },
        });
        Ok(ValueInfoProto {
            name: port.name.clone(),
            r#type: Some(TypeProto {
                tensor_type: Some(TensorTypeProto {
                    elem_type: element_type_of(port.dtype),
                    shape: Some(TensorShapeProto { dim: dim.collect() }),
                }),
            }),
        })
    };
    ports.iter().map(port).collect()
}

/// `TensorProto.DataType`.
pub(super) fn element_type_of(dtype: Dtype) -> i32 {
    match dtype {
        Dtype::F32 => 1,
        Dtype::U8 => 2,
        Dtype::I8 => 3,
        Dtype::I16 => 5,
        Dtype::I32 => 6,
        Dtype::I64 => 7,
        Dtype::Bool => 9,
        Dtype::F16 => 10,
        Dtype::F64 => 11,
        Dtype::Bf16 => 16,
    }
}

fn element_type(kind: Kind) -> Result<i32, ExportError> {
    Ok(match kind {
        Kind::Float => 1,
        Kind::Uint8 => 2,
        Kind::Int8 => 3,
        Kind::Int16 => 5,
        Kind::Int => 6,
        Kind::Int64 => 7,
        Kind::Bool => 9,
        Kind::Half => 10,
        Kind::Double => 11,
        Kind::BFloat16 => 16,
        kind => {
            return Err(ExportError::Unsupported {
                what: format!("tensors of kind {kind:?}"),
            });
        }
    })
}

pub(super) fn bytes_of(t: &Tensor) -> usize {
    t.numel() * t.kind().elt_size_in_bytes()
}

/// The elements, row-major and little-endian.
pub(super) fn raw(t: &Tensor) -> Vec<u8> {
    let t = t.to_device(tch::Device::Cpu).contiguous();
    let mut bytes = vec![0; bytes_of(&t)];
    t.copy_data_u8(&mut bytes, t.numel());
    bytes
}
