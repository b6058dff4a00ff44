//! Finds the sets of named tensors in a pickle: dicts that hold tensors, and whole modules.

use crate::error::{Problem, within};
use crate::limits::Limits;

use super::calls::makes_tensors;
use super::heap::{Heap, Id, Object, Visits};
use super::modules;

/// A set of named tensors.
#[derive(Debug)]
pub(super) struct Found {
    /// Keys on the way to it, joined by `/`; empty for the outermost object.
    pub(super) path: String,
    pub(super) id: Id,
    pub(super) tensors: usize,
}

/// Most sets of tensors of one file.
const MOST_FOUND: u64 = 10_000;

/// All sets of named tensors, in the order of the file.
pub(super) fn find(heap: &Heap<'_>, root: Id, limits: &Limits) -> Result<Vec<Found>, Problem> {
    let mut search = Search {
        heap,
        limits,
        visits: Visits::new(limits.objects),
        way: Vec::new(),
        keys: Vec::new(),
        found: Vec::new(),
    };
    search.explore(root)?;
    Ok(search.found)
}

/// Whether an object is a tensor, or would be if its constructor were known.
pub(super) fn is_tensor(heap: &Heap<'_>, id: Id) -> bool {
    match heap.get(id) {
        Object::Tensor(_) => true,
        object @ Object::Opaque(_) => heap.maker(object).is_some_and(makes_tensors),
        _ => false,
    }
}

/// What training keeps beside the weights: it holds tensors, thousands of them, but never the model's.
fn is_training(key: &str) -> bool {
    key.starts_with("optim")
        || ["optimizer", "scheduler", "scaler"]
            .iter()
            .any(|end| key.ends_with(end))
}

struct Search<'h, 'a> {
    heap: &'h Heap<'a>,
    limits: &'h Limits,
    visits: Visits,
    /// Objects from the root down to the one being explored: an object inside itself is not entered again.
    way: Vec<Id>,
    keys: Vec<String>,
    found: Vec<Found>,
}

impl Search<'_, '_> {
    fn explore(&mut self, id: Id) -> Result<(), Problem> {
        self.visits.add(1)?;
        if self.way.contains(&id) {
            return Ok(());
        }
        within(
            "depth of the pickled objects",
            self.way.len() as u64,
            self.limits.depth,
        )?;
        self.way.push(id);
        self.inside(id)?;
        self.way.pop();
        Ok(())
    }

    fn inside(&mut self, id: Id) -> Result<(), Problem> {
        let heap = self.heap;
        match heap.get(id) {
            Object::Dict(items) => self.dict(id, items),
            Object::List(items) | Object::Tuple(items) => self.list(items),
            Object::Opaque(opaque) => {
                let Some(state) = opaque.state else {
                    return Ok(());
                };
                self.visits.add(modules::state_len(heap, id))?;
                if modules::is_module(heap, id) {
                    let tensors = modules::tensors(heap, id, self.limits, &mut self.visits)?.len();
                    return self.add(id, tensors);
                }
                self.explore(state)
            }
            _ => Ok(()),
        }
    }

    fn dict(&mut self, id: Id, items: &[(Id, Id)]) -> Result<(), Problem> {
        self.visits.add(items.len())?;
        let tensors = items
            .iter()
            .filter(|(_, value)| is_tensor(self.heap, *value))
            .count();
        if tensors > 0 {
            self.add(id, tensors)?;
        }
        for (key, value) in items {
            if self.has_inside(*value) && !self.heap.text(*key).is_some_and(is_training) {
                let key = self.key(*key)?;
                self.descend(key, *value)?;
            }
        }
        Ok(())
    }

    fn list(&mut self, items: &[Id]) -> Result<(), Problem> {
        self.visits.add(items.len())?;
        for (i, item) in items.iter().enumerate() {
            if self.has_inside(*item) {
                self.descend(i.to_string(), *item)?;
            }
        }
        Ok(())
    }

    fn has_inside(&self, id: Id) -> bool {
        matches!(
            self.heap.get(id),
            Object::Dict(_) | Object::List(_) | Object::Tuple(_) | Object::Opaque(_)
        )
    }

    fn descend(&mut self, key: String, id: Id) -> Result<(), Problem> {
        self.keys.push(key);
        self.explore(id)?;
        self.keys.pop();
        Ok(())
    }

    fn key(&self, key: Id) -> Result<String, Problem> {
        Ok(match self.heap.get(key) {
            Object::Text(text) => {
                within("bytes of a key", text.len() as u64, self.limits.name_bytes)?;
                (*text).into()
            }
            Object::Int(n) => n.to_string(),
            _ => "?".into(),
        })
    }

    fn add(&mut self, id: Id, tensors: usize) -> Result<(), Problem> {
        within("sets of tensors", self.found.len() as u64 + 1, MOST_FOUND)?;
        let path = self.keys.join("/");
        self.visits.add(path.len())?;
        self.found.push(Found { path, id, tensors });
        Ok(())
    }
}
