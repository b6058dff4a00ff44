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
