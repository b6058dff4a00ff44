//! Tensors computed from parameters, outside the variable store.

use std::cell::RefCell;
use tch::Tensor;

/// A tensor that is not a parameter but follows them: a folded weight, a position table, an index.
///
/// The store moves its own variables between devices and kinds; this one follows the activations it meets instead,
/// keeping the exact original and the last converted copy.
#[derive(Debug)]
pub struct Derived {
    exact: Tensor,
    converted: RefCell<Option<Tensor>>,
}

impl Derived {
    /// Keeps `exact` as the truth; every conversion starts from it.
    pub fn new(exact: Tensor) -> Self {
        Derived {
            exact: exact.detach(),
            converted: RefCell::new(None),
        }
    }

    /// The original, as it was computed.
    pub fn exact(&self) -> &Tensor {
        &self.exact
    }

    /// The same values on the device of `x`, whatever its kind: indices.
    pub fn beside(&self, x: &Tensor) -> Tensor {
        if self.exact.device() == x.device() {
            return self.exact.shallow_clone();
        }
        let mut moved = self.converted.borrow_mut();
        if let Some(t) = moved.as_ref().filter(|t| t.device() == x.device()) {
            return t.shallow_clone();
        }
        let t = self.exact.to_device(x.device());
        *moved = Some(t.shallow_clone());
        t
    }

    /// The same values with the kind and on the device of `x`.
    pub fn like(&self, x: &Tensor) -> Tensor {
        let fits = |t: &Tensor| t.kind() == x.kind() && t.device() == x.device();
        if fits(&self.exact) {
            return self.exact.shallow_clone();
        }
        let mut converted = self.converted.borrow_mut();
        if let Some(t) = converted.as_ref().filter(|t| fits(t)) {
            return t.shallow_clone();
        }
        let t = self.exact.to_device(x.device()).to_kind(x.kind());
        *converted = Some(t.shallow_clone());
        t
    }
}

/// Map sizes whose values a [`PerMap`] keeps.
const KEPT: usize = 8;

/// Values that follow from a map's height and width (indices, position tables), for the last few sizes seen.
#[derive(Debug)]
pub struct PerMap<T>(RefCell<Vec<([i64; 2], T)>>);

impl<T> Default for PerMap<T> {
    fn default() -> Self {
        PerMap(RefCell::default())
    }
}

impl<T> PerMap<T> {
    /// `with` the value of `map`, made now if it is not there.
    pub fn get<R>(&self, map: [i64; 2], make: impl FnOnce() -> T, with: impl FnOnce(&T) -> R) -> R {
        let mut kept = self.0.borrow_mut();
        let at = kept.iter().position(|(size, _)| *size == map);
        let at = at.unwrap_or_else(|| {
            if kept.len() == KEPT {
                drop(kept.remove(0));
            }
            kept.push((map, make()));
            kept.len() - 1
        });
        with(&kept[at].1)
    }
}
