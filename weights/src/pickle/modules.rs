//! Whole pickled modules: what `torch.save(model)` writes instead of a state_dict.
//!
//! A module's state has `_parameters`, `_buffers` and `_modules`; walking them gives the names that
//! `state_dict()` would give.

use crate::error::{Problem, within};
use crate::limits::Limits;

use super::heap::{Heap, Id, Object, Visits};

/// The parts of a module's state.
#[derive(Clone, Copy)]
struct Module {
    parameters: Option<Id>,
    buffers: Option<Id>,
    children: Id,
    /// Names of buffers that `state_dict()` leaves out.
    transient: Option<Id>,
}

/// The state of an opaque object when it is a module's.
fn module(heap: &Heap<'_>, id: Id) -> Option<Module> {
    let Object::Opaque(opaque) = heap.get(id) else {
        return None;
    };
    let state = heap.dict(opaque.state?)?;
    // A module has about a dozen attributes before its own; these come first.
    let field = |name| {
        state
            .iter()
            .find(|(key, _)| heap.text(*key) == Some(name))
            .map(|(_, value)| *value)
    };
    Some(Module {
        parameters: field("_parameters"),
        buffers: field("_buffers"),
        children: field("_modules")?,
        transient: field("_non_persistent_buffers_set"),
    })
}

/// Whether `id` is a pickled `torch.nn.Module`.
pub(super) fn is_module(heap: &Heap<'_>, id: Id) -> bool {
    module(heap, id).is_some_and(|m| m.parameters.is_some())
}

/// Entries of an object's state, all of which may be looked at to tell whether it is a module.
pub(super) fn state_len(heap: &Heap<'_>, id: Id) -> usize {
    match heap.get(id) {
        Object::Opaque(opaque) => opaque
            .state
            .and_then(|state| heap.dict(state))
            .map_or(0, <[_]>::len),
        _ => 0,
    }
}

/// Names and objects of the parameters and persistent buffers of a module, in the order of `state_dict()`.
pub(super) fn tensors(
    heap: &Heap<'_>,
    id: Id,
    limits: &Limits,
    visits: &mut Visits,
) -> Result<Vec<(String, Id)>, Problem> {
    let mut walk = Walk {
        heap,
        limits,
        visits,
        out: Vec::new(),
    };
    walk.module(id, "", 0)?;
    Ok(walk.out)
}

struct Walk<'h, 'a> {
    heap: &'h Heap<'a>,
    limits: &'h Limits,
    visits: &'h mut Visits,
    out: Vec<(String, Id)>,
}

impl Walk<'_, '_> {
    fn module(&mut self, id: Id, prefix: &str, depth: u64) -> Result<(), Problem> {
        within("depth of modules", depth, self.limits.depth)?;
        self.visits.add(1 + state_len(self.heap, id))?;
        let Some(module) = module(self.heap, id) else {
            return Ok(());
        };
        for own in [module.parameters, module.buffers].into_iter().flatten() {
            self.own(own, module.transient, prefix)?;
        }
        for (key, child) in self.entries(module.children)? {
            if !matches!(self.heap.get(child), Object::None) {
                let inner = format!("{}.", self.name(prefix, key)?);
                self.module(child, &inner, depth + 1)?;
            }
        }
        Ok(())
    }

    fn own(&mut self, dict: Id, transient: Option<Id>, prefix: &str) -> Result<(), Problem> {
        for (key, value) in self.entries(dict)? {
            if !matches!(self.heap.get(value), Object::None)
                && !self.is_transient(key, transient)?
            {
                within("tensors", self.out.len() as u64 + 1, self.limits.tensors)?;
                let name = self.name(prefix, key)?;
                self.out.push((name, value));
            }
        }
        Ok(())
    }

    fn is_transient(&mut self, key: Id, transient: Option<Id>) -> Result<bool, Problem> {
        let set = transient
            .and_then(|set| self.heap.sequence(set))
            .unwrap_or_default();
        self.visits.add(set.len())?;
        let key = self.heap.text(key);
        Ok(set.iter().any(|name| self.heap.text(*name) == key))
    }

    fn entries(&mut self, dict: Id) -> Result<Vec<(Id, Id)>, Problem> {
        let entries = self.heap.dict(dict).unwrap_or_default();
        self.visits.add(entries.len())?;
        Ok(entries.to_vec())
    }

    fn name(&self, prefix: &str, key: Id) -> Result<String, Problem> {
        let key = self.heap.text(key).unwrap_or("?");
        within(
            "bytes of a tensor's name",
            (prefix.len() + key.len()) as u64,
            self.limits.name_bytes,
        )?;
        Ok(format!("{prefix}{key}"))
    }
}
