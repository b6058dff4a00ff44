//! One node on its way to ONNX: its arguments, checked, and where its operators go.

use super::model::{Draft, Op, Port};
use super::{is_number, is_weight};
use crate::graph::{Arg, Dtype, Node, Value, ValueId};
use crate::{Size, Trace};
use std::collections::HashMap;
use tch::Tensor;

/// Names of the outputs, or what is not supported.
pub(super) type Converted = Result<Vec<String>, String>;

/// The graph and the draft it becomes.
pub(super) struct Converter<'a> {
    pub trace: &'a Trace,
    pub draft: Draft,
    pub names: HashMap<ValueId, String>,
    batch: Option<String>,
}

impl<'a> Converter<'a> {
    pub fn new(trace: &'a Trace) -> Self {
        let mut converter = Converter {
            trace,
            draft: Draft::default(),
            names: HashMap::new(),
            batch: None,
        };
        for &id in &trace.graph.inputs {
            let value = &trace.graph.values[id];
            let name = converter.draft.name(&value.name);
            converter.draft.inputs.push(Port {
                name: name.clone(),
                dtype: value.dtype,
                shape: value.shape.clone(),
            });
            converter
                .draft
                .shapes
                .insert(name.clone(), value.shape.clone());
            converter.names.insert(id, name);
        }
        converter
    }

    /// The name of a value; its weight is added when it is first asked for.
    pub fn tensor(&mut self, id: ValueId) -> Result<String, String> {
        if let Some(name) = self.names.get(&id) {
            return Ok(name.clone());
        }
        let value = &self.trace.graph.values[id];
        let tensor = self.trace.tensors.get(&id);
        let tensor = tensor.ok_or_else(|| format!("`{}` is computed by nothing", value.name))?;
        let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
        let name = self.draft.weight(&value.name, tensor);
        self.names.insert(id, name.clone());
        Ok(name)
    }

    /// The size of the batch at run time, [1].
    pub fn batch(&mut self) -> String {
        if let Some(name) = &self.batch {
            return name.clone();
        }
        let input = self.draft.inputs[0].name.clone();
        let op = Op::new("Shape", &[&input]).int("start", 0).int("end", 1);
        let name = self.draft.add(op, "batch");
        self.batch = Some(name.clone());
        name
    }

    /// A vector of integers of which some depend on the batch.
    pub fn sizes(&mut self, sizes: &[Size]) -> String {
        if let Some(fixed) = sizes
            .iter()
            .map(|s| s.as_fixed())
            .collect::<Option<Vec<_>>>()
        {
            return self.draft.ints(&fixed);
        }
        let parts: Vec<String> = sizes.iter().map(|&size| self.size(size)).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.draft
            .add(Op::new("Concat", &parts).int("axis", 0), "sizes")
    }

    /// One integer, [1].
    fn size(&mut self, size: Size) -> String {
        if let Some(fixed) = size.as_fixed() {
            return self.draft.ints(&[fixed]);
        }
        let mut name = self.batch();
        if size.per_image != 1 {
            let factor = self.draft.ints(&[size.per_image]);
            name = self.draft.add(Op::new("Mul", &[&name, &factor]), "size");
        }
        if size.fixed != 0 {
            let term = self.draft.ints(&[size.fixed]);
            name = self.draft.add(Op::new("Add", &[&name, &term]), "size");
        }
        name
    }
}

/// A node and the converter.
pub(super) struct Call<'a, 'b> {
    pub converter: &'b mut Converter<'a>,
    pub node: &'a Node,
}

impl<'a> Call<'a, '_> {
    /// Adds an operator; its output has the node's name where it is the node's last.
    pub fn op(&mut self, op: Op) -> String {
        let wanted = self.output(0).name.clone();
        self.converter.draft.add(op, &wanted)
    }

    /// Adds the operator that is all of the node.
    pub fn one(&mut self, op: Op) -> Converted {
        Ok(vec![self.op(op)])
    }

    fn id(&self, name: &str) -> Option<ValueId> {
        match self.node.arg(name) {
            Arg::Value(id) => Some(*id),
            _ => None,
        }
    }

    /// The name of a tensor argument.
    pub fn x(&mut self, name: &str) -> Result<String, String> {
        let id = self
            .id(name)
            .ok_or_else(|| format!("`{name}` is no tensor"))?;
        self.converter.tensor(id)
    }

    /// The same, where the argument may be left out.
    pub fn optional(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.id(name) {
            Some(id) => self.converter.tensor(id).map(Some),
            None => Ok(None),
        }
    }

    /// A tensor or a number; a number takes the kind of `like`.
    pub fn operand(&mut self, name: &str, like: Dtype) -> Result<String, String> {
        if is_number(self.node.arg(name)) {
            let value = self.float(name)?;
            return Ok(self.converter.draft.scalar(value, like));
        }
        self.x(name)
    }

    /// Names of a list of tensors.
    pub fn list(&mut self, name: &str) -> Result<Vec<String>, String> {
        let ids = self.ids(name)?;
        ids.into_iter()
            .map(|id| self.converter.tensor(id))
            .collect()
    }

    /// The same of a list that is joined along an axis: without those that have nothing there.
    pub fn parts(&mut self, name: &str, axis: i64) -> Result<Vec<String>, String> {
        let values = &self.converter.trace.graph.values;
        let empty = |id: &ValueId| values[*id].shape.get(axis as usize) == Some(&Size::fixed(0));
        let ids: Vec<ValueId> = self
            .ids(name)?
            .into_iter()
            .filter(|id| !empty(id))
            .collect();
        ids.into_iter()
            .map(|id| self.converter.tensor(id))
            .collect()
    }

    fn ids(&self, name: &str) -> Result<Vec<ValueId>, String> {
        let Arg::Values(ids) = self.node.arg(name) else {
            return Err(format!("`{name}` is no list of tensors"));
        };
        let ids: Option<Vec<_>> = ids.iter().copied().collect();
        ids.ok_or_else(|| format!("`{name}` has holes"))
    }

    /// The value of a tensor argument.
    pub fn value(&self, name: &str) -> Result<&'a Value, String> {
        let id = self
            .id(name)
            .ok_or_else(|| format!("`{name}` is no tensor"))?;
        Ok(&self.converter.trace.graph.values[id])
    }

    /// The tensor of an argument, where it is a weight.
    pub fn known(&self, name: &str) -> Option<&'a Tensor> {
        let trace = self.converter.trace;
        self.id(name)
            .filter(|&id| is_weight(trace, id))
            .and_then(|id| trace.tensors.get(&id))
    }

    /// A value that the node computes.
    pub fn output(&self, i: usize) -> &'a Value {
        &self.converter.trace.graph.values[self.node.outputs[i]]
    }

    /// An integer, which may depend on the batch.
    pub fn size(&self, name: &str) -> Result<Size, String> {
        match self.node.arg(name) {
            Arg::Int(size) => Ok(*size),
            other => Err(format!("`{name}` is {other:?}")),
        }
    }

    /// An integer that does not depend on the batch.
    pub fn int(&self, name: &str) -> Result<i64, String> {
        let fixed = self.size(name)?.as_fixed();
        fixed.ok_or_else(|| format!("`{name}` depends on the batch"))
    }

    /// An axis of `of`, counted from the front.
    pub fn axis(&self, name: &str, of: &str) -> Result<i64, String> {
        let rank = self.value(of)?.shape.len() as i64;
        let axis = self.int(name)?;
        Ok(if axis < 0 { axis + rank } else { axis })
    }

    /// Axes of `of`, counted from the front; all of them where the argument is left out or empty.
    pub fn axes(&self, name: &str, of: &str) -> Result<Vec<i64>, String> {
        let rank = self.value(of)?.shape.len() as i64;
        let axes = match self.node.arg(name) {
            Arg::None => Vec::new(),
            Arg::Int(_) => vec![self.int(name)?],
            _ => self.ints(name)?,
        };
        Ok(match axes.is_empty() {
            true => (0..rank).collect(),
            false => axes
                .iter()
                .map(|a| if *a < 0 { a + rank } else { *a })
                .collect(),
        })
    }

    /// Integers that do not depend on the batch; none where the argument is left out.
    pub fn ints(&self, name: &str) -> Result<Vec<i64>, String> {
        match self.node.arg(name) {
            Arg::None => Ok(Vec::new()),
            Arg::Ints(sizes) => sizes
                .iter()
                .map(|size| size.as_fixed())
                .collect::<Option<_>>()
                .ok_or_else(|| format!("`{name}` depends on the batch")),
            other => Err(format!("`{name}` is {other:?}")),
        }
    }

    /// A number.
    pub fn float(&self, name: &str) -> Result<f64, String> {
        match self.node.arg(name) {
            Arg::Float(x) => Ok(*x),
            Arg::Bool(b) => Ok(f64::from(u8::from(*b))),
            Arg::Int(_) => Ok(self.int(name)? as f64),
            other => Err(format!("`{name}` is {other:?}")),
        }
    }

    /// A flag; false where it is left out.
    pub fn flag(&self, name: &str) -> bool {
        *self.node.arg(name) == Arg::Bool(true)
    }

    /// A text; empty where it is left out.
    pub fn text(&self, name: &str) -> &'a str {
        match self.node.arg(name) {
            Arg::Text(text) => text,
            _ => "",
        }
    }

    /// `x` with the shape of the node's output `i`.
    pub fn reshape(&mut self, x: &str, shape: &[Size]) -> String {
        let target = self.target(shape);
        self.op(Op::new("Reshape", &[x, &target]))
    }

    /// A reshape's target: the one axis that depends on the batch is inferred.
    fn target(&mut self, shape: &[Size]) -> String {
        let varying = shape.iter().filter(|s| s.per_image != 0).count();
        if varying <= 1 {
            let target: Vec<i64> = shape.iter().map(|s| s.as_fixed().unwrap_or(-1)).collect();
            return self.converter.draft.ints(&target);
        }
        self.converter.sizes(shape)
    }
}
