//! The constructors that checkpoints need, done by hand. Anything else stays opaque.

use crate::error::Problem;

use super::heap::{Global, Id, Object, RawTensor, StorageView};
use super::machine::Machine;
use super::storage::StorageType;

/// What a known global makes.
#[derive(Clone, Copy)]
enum Known {
    Dict,
    /// The first argument itself: lists, sets, sizes, parameters around a tensor.
    First,
    Tensor,
    /// Over an untyped storage, with the dtype as an argument.
    UntypedTensor,
    /// `(function, type, arguments, state)`: a tensor with Python attributes.
    Attributed,
}

fn known(global: Global<'_>) -> Option<Known> {
    let module = match global.module {
        "__builtin__" => "builtins",
        other => other,
    };
    Some(match (module, global.name) {
        ("collections", "OrderedDict" | "defaultdict") | ("builtins", "dict") => Known::Dict,
        ("builtins", "set" | "frozenset" | "list" | "tuple") | ("torch", "Size") => Known::First,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Known::First,
        ("torch.nn.parameter", "Parameter" | "Buffer") => Known::First,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Known::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Known::UntypedTensor,
        ("torch._tensor", "_rebuild_from_type_v2") => Known::Attributed,
        _ => return None,
    })
}

/// Whether what this global makes would have been a tensor.
pub(super) fn makes_tensors(global: Global<'_>) -> bool {
    match global.module {
        "torch._utils" | "torch._tensor" => global.name.starts_with("_rebuild"),
        "torch.nn.parameter" | "torch.storage" => true,
        "numpy.core.multiarray" | "numpy._core.multiarray" => global.name == "_reconstruct",
        _ => false,
    }
}

impl Machine<'_> {
    /// Calls `callable` with `args`, a tuple.
    pub(super) fn call(&mut self, callable: Id, args: Id) -> Result<Id, Problem> {
        let Object::Global(global) = *self.heap.get(callable) else {
            return self.opaque(callable);
        };
        let Some(known) = known(global) else {
            self.remember(global);
            return self.opaque(callable);
        };
        let args = self.heap.sequence(args).unwrap_or_default().to_vec();
        self.heap.charge(args.len())?;
        match known {
            Known::Dict => self.dict(&args),
            Known::First => self.first(callable, &args),
            Known::Tensor => self.tensor(callable, &args, None),
            Known::UntypedTensor => self.untyped_tensor(callable, &args),
            Known::Attributed => self.attributed(callable, &args),
        }
    }

    fn remember(&mut self, global: Global<'_>) {
        const MOST: usize = 100;
        if self.unknown.len() == MOST {
            return;
        }
        let name = global.to_string();
        if !self.unknown.contains(&name) {
            self.unknown.push(name);
        }
    }

    /// A dict from an optional list of pairs. `defaultdict` has its factory first, which is no list.
    fn dict(&mut self, args: &[Id]) -> Result<Id, Problem> {
        let listed = args
            .first()
            .and_then(|list| self.heap.sequence(*list))
            .unwrap_or_default();
        let pairs: Option<Vec<_>> = listed.iter().map(|pair| self.pair(*pair)).collect();
        let Some(pairs) = pairs else {
            return self.fail("a dict made of something else than pairs");
        };
        self.heap.charge(pairs.len())?;
        self.heap.add(Object::Dict(pairs))
    }

    fn pair(&self, id: Id) -> Option<(Id, Id)> {
        match self.heap.sequence(id) {
            Some([key, value]) => Some((*key, *value)),
            _ => None,
        }
    }

    fn first(&mut self, callable: Id, args: &[Id]) -> Result<Id, Problem> {
        match args.first() {
            Some(first) => Ok(*first),
            None => self.opaque(callable),
        }
    }

    fn tensor(
        &mut self,
        callable: Id,
        args: &[Id],
        kind: Option<StorageType>,
    ) -> Result<Id, Problem> {
        let [storage, offset, shape, strides, rest @ ..] = args else {
            return self.fail("a tensor without storage, offset, shape and strides");
        };
        let Object::Storage(mut storage) = *self.heap.get(*storage) else {
            return self.opaque(callable);
        };
        if let Some(kind) = kind {
            storage = StorageView { kind, ..storage };
        }
        let (Some(offset), Some(shape), Some(strides)) = (
            self.heap.size(*offset),
            self.sizes(*shape),
            self.sizes(*strides),
        ) else {
            return self.fail("a tensor whose offset, shape or strides are no sizes");
        };
        if shape.len() != strides.len() {
            return self.fail(format!(
                "a tensor with {} dimensions and {} strides",
                shape.len(),
                strides.len()
            ));
        }
        self.heap.charge(2 * shape.len())?;
        let metadata = rest.get(if kind.is_some() { 3 } else { 2 });
        let lazy_bits = metadata.is_some_and(|metadata| self.has_true(*metadata));
        self.heap.add(Object::Tensor(Box::new(RawTensor {
            storage,
            offset,
            shape,
            strides,
            lazy_bits,
        })))
    }

    fn untyped_tensor(&mut self, callable: Id, args: &[Id]) -> Result<Id, Problem> {
        let dtype = args.get(6).map(|id| self.heap.get(*id));
        let Some(Object::Global(Global {
            module: "torch",
            name,
        })) = dtype
        else {
            return self.fail("a tensor over an untyped storage without a dtype");
        };
        match StorageType::of_dtype(name) {
            Some(kind) => self.tensor(callable, args, Some(kind)),
            None => self.fail(format!("dtype torch.{name} is not known")),
        }
    }

    fn attributed(&mut self, callable: Id, args: &[Id]) -> Result<Id, Problem> {
        let [function, class, inner, ..] = *args else {
            return self.fail("a tensor with attributes but without a constructor");
        };
        let plain = matches!(
            self.heap.get(class),
            Object::Global(Global {
                module: "torch" | "torch._tensor",
                name: "Tensor"
            }) | Object::Global(Global {
                module: "torch.nn.parameter",
                name: "Parameter" | "Buffer"
            })
        );
        let nested = matches!(self.heap.get(function), Object::Global(g) if g.name == "_rebuild_from_type_v2");
        if plain && !nested {
            self.call(function, inner)
        } else {
            self.opaque(callable)
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.heap
            .sequence(id)?
            .iter()
            .map(|n| self.heap.size(*n))
            .collect()
    }

    /// Whether a dict has a value that is true: the metadata of tensors that are negated or conjugated lazily.
    fn has_true(&self, id: Id) -> bool {
        let items = self.heap.dict(id).unwrap_or_default();
        items
            .iter()
            .any(|(_, value)| matches!(self.heap.get(*value), Object::Bool(true)))
    }
}
