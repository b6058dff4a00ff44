//! The values that a pickle makes, in one arena: no recursion to build, drop or share them.

use crate::error::{Problem, within};

use super::storage::StorageType;

/// Index of an object in a [`Heap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

/// A value. Text is borrowed from the pickle; values that no tensor needs are not kept.
#[derive(Debug)]
pub(super) enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(&'a str),
    /// `bytes`, text that is not UTF-8, and integers too long for [`Object::Int`].
    Bytes,
    Tuple(Vec<Id>),
    /// Lists, sets and frozen sets.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global<'a>),
    Storage(StorageView),
    Tensor(Box<RawTensor>),
    Opaque(Opaque),
}

/// Python's name of a class or function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Global<'a> {
    pub(super) module: &'a str,
    pub(super) name: &'a str,
}

impl std::fmt::Display for Global<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.module, self.name)
    }
}

/// A storage, or a window into one (old files have those), in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct StorageView {
    /// Index into the declared storages.
    pub(super) declared: usize,
    pub(super) offset: usize,
    pub(super) kind: StorageType,
}

/// A tensor before its geometry is checked.
#[derive(Clone, Debug)]
pub(super) struct RawTensor {
    pub(super) storage: StorageView,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// Set for tensors that are lazily negated or conjugated.
    pub(super) lazy_bits: bool,
}

/// What an unknown global would have made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opaque {
    /// What was called: usually an [`Object::Global`].
    pub(super) callable: Id,
    /// State that BUILD hands to the object.
    pub(super) state: Option<Id>,
}

/// The arena, with a bound on how much is put into it.
#[derive(Debug)]
pub(super) struct Heap<'a> {
    objects: Vec<Object<'a>>,
    charged: u64,
    limit: u64,
}

impl<'a> Heap<'a> {
    pub(super) fn new(limit: u64) -> Self {
        Heap {
            objects: Vec::new(),
            charged: 0,
            limit: limit.min(u64::from(u32::MAX)),
        }
    }

    /// Accounts for `n` objects or elements before they are made.
    pub(super) fn charge(&mut self, n: usize) -> Result<(), Problem> {
        self.charged = self.charged.saturating_add(n as u64);
        within("objects in the pickle", self.charged, self.limit)
    }

    pub(super) fn add(&mut self, object: Object<'a>) -> Result<Id, Problem> {
        self.charge(1)?;
        let id = Id(self.objects.len() as u32);
        self.objects.push(object);
        Ok(id)
    }

    pub(super) fn get(&self, id: Id) -> &Object<'a> {
        &self.objects[id.0 as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Object<'a> {
        &mut self.objects[id.0 as usize]
    }

    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of a tuple or list.
    pub(super) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Object::Tuple(items) | Object::List(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Object::Dict(items) => Some(items),
            _ => None,
        }
    }

    /// A non-negative integer.
    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Object::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// Python's name of what made `object`, if it is opaque.
    pub(super) fn maker(&self, object: &Object<'a>) -> Option<Global<'a>> {
        match object {
            Object::Opaque(opaque) => match self.get(opaque.callable) {
                Object::Global(global) => Some(*global),
                _ => None,
            },
            Object::Global(global) => Some(*global),
            _ => None,
        }
    }

    /// Python's name of an object's type, for messages.
    pub(super) fn describe(&self, id: Id) -> String {
        match self.get(id) {
            Object::None => "None".into(),
            Object::Bool(_) => "a bool".into(),
            Object::Int(_) => "an int".into(),
            Object::Float => "a float".into(),
            Object::Text(_) => "a str".into(),
            Object::Bytes => "bytes".into(),
            Object::Tuple(_) => "a tuple".into(),
            Object::List(_) => "a list".into(),
            Object::Dict(_) => "a dict without tensors".into(),
            Object::Storage(_) => "a bare storage".into(),
            Object::Tensor(_) => "one tensor without a name".into(),
            object @ (Object::Opaque(_) | Object::Global(_)) => match self.maker(object) {
                Some(global) => format!("an object made by {global}"),
                None => "an object of unknown make".into(),
            },
        }
    }
}

/// Bounds the work of looking through a heap, where shared objects can be met again and again.
#[derive(Debug)]
pub(super) struct Visits {
    count: u64,
    limit: u64,
}

impl Visits {
    pub(super) fn new(limit: u64) -> Self {
        Visits { count: 0, limit }
    }

    pub(super) fn add(&mut self, n: usize) -> Result<(), Problem> {
        self.count = self.count.saturating_add(n as u64);
        within("objects visited in the pickle", self.count, self.limit)
    }
}
