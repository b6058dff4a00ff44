//! Persistent ids: how a pickle speaks of a storage that lies outside it.

use crate::error::Problem;

use super::heap::{Id, Object, StorageView};
use super::machine::Machine;
use super::storage::{Declared, StorageType};

impl Machine<'_> {
    /// A persistent id: `("storage", class, key, device, numel[, view])`, or `("module", class, ..)` of old files.
    pub(super) fn persistent(&mut self, op: u8) -> Result<(), Problem> {
        if op == b'P' {
            return self.fail(
                "persistent ids of protocol 0 are not supported; save with pickle protocol 2",
            );
        }
        let id = self.pop()?;
        let items = self.heap.sequence(id).unwrap_or_default().to_vec();
        self.heap.charge(items.len())?;
        match items.first().and_then(|kind| self.heap.text(*kind)) {
            Some("storage") => self.storage(&items),
            Some("module") if items.len() > 1 => self.push_id(items[1]),
            _ => self.fail("a persistent id that is no storage"),
        }
    }

    fn storage(&mut self, items: &[Id]) -> Result<(), Problem> {
        let [_, class, key, _, numel, view @ ..] = items else {
            return self.fail("a storage without class, key and size");
        };
        let (Object::Global(class), Some(key), Some(numel)) = (
            self.heap.get(*class),
            self.heap.text(*key),
            self.heap.size(*numel),
        ) else {
            return self.fail("a storage whose class, key or size is of the wrong kind");
        };
        let Some(kind) = StorageType::of_class(class.name) else {
            return self.fail(format!("storage class {class} is not known"));
        };
        let offset = self.window(view)?;
        match self.storages.declare(Declared { key, numel, kind }) {
            Ok(declared) => self.push(Object::Storage(StorageView {
                declared,
                offset,
                kind,
            })),
            Err(what) => self.fail(what),
        }
    }

    /// Offset of a window into a storage: the view is None or `(key, offset, size)`.
    fn window(&self, view: &[Id]) -> Result<usize, Problem> {
        let Some(view) = view.first().and_then(|view| self.heap.sequence(*view)) else {
            return Ok(0);
        };
        match view.get(1).and_then(|offset| self.heap.size(*offset)) {
            Some(offset) => Ok(offset),
            None => self.fail("a window into a storage without an offset"),
        }
    }
}
