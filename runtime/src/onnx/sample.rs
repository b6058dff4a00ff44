//! Small ONNX files for tests, made from their messages.

use prost::Message;
use std::path::{Path, PathBuf};

use super::proto::{Dim, Entry, Opset, Shape, TensorType, Type, Value};

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<Opset>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(string, tag = "7")]
    pub domain: String,
}

pub fn node(op_type: &str, input: &str, output: &str) -> Node {
    Node {
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        op_type: op_type.to_owned(),
        domain: String::new(),
    }
}

/// A float tensor; -1 is a dimension called `batch`.
pub fn value(name: &str, shape: &[i64]) -> Value {
    let dim = |&n: &i64| Dim {
        value: (n >= 0).then_some(n),
        name: (n < 0).then(|| "batch".to_owned()),
    };
    Value {
        name: name.to_owned(),
        r#type: Some(Type {
            tensor: Some(TensorType {
                elem_type: super::proto::FLOAT,
                shape: Some(Shape {
                    dim: shape.iter().map(dim).collect(),
                }),
            }),
        }),
    }
}

/// The mean of each channel as its logit: images [batch, 3, 4, 5] of this batch (-1: any) to [batch, 3].
pub fn channel_means(batch: i64) -> Model {
    Model {
        ir_version: 8,
        graph: Some(Graph {
            name: "means".to_owned(),
            node: vec![
                node("GlobalAveragePool", "images", "pooled"),
                node("Flatten", "pooled", "logits"),
            ],
            input: vec![value("images", &[batch, 3, 4, 5])],
            output: vec![value("logits", &[batch, 3])],
        }),
        opset_import: vec![Opset {
            domain: String::new(),
            version: 17,
        }],
        metadata_props: Vec::new(),
    }
}

/// Changes a copy of [`channel_means`].
pub fn changed(change: impl FnOnce(&mut Graph)) -> Model {
    let mut model = channel_means(-1);
    if let Some(graph) = &mut model.graph {
        change(graph);
    }
    model
}

pub fn write(folder: &Path, model: &Model) -> PathBuf {
    let path = folder.join("sample.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path
}
