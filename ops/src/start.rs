//! The weights that layers begin with.

use std::cell::Cell;
use tch::{Tensor, nn};

thread_local! {
    static EMPTY: Cell<bool> = const { Cell::new(false) };
}

/// Gives the thread its earlier state back, also on unwinding.
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        EMPTY.set(self.0);
    }
}

/// Builds layers whose weights are all to be loaded: they begin as zeros, for random numbers that
/// nobody reads take longer than all else that building does.
pub fn without_start<T>(build: impl FnOnce() -> T) -> T {
    let _restore = Restore(EMPTY.replace(true));
    build()
}

/// `name` of this shape at path `p`: uniform as PyTorch begins its layers (He et al. 2015), or zeros in [`without_start`].
pub(crate) fn kaiming(p: &nn::Path, name: &str, shape: &[i64]) -> Tensor {
    let init = match EMPTY.get() {
        true => nn::Init::Const(0.0),
        false => nn::init::DEFAULT_KAIMING_UNIFORM,
    };
    p.var(name, shape, init)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn weights_are_random_unless_they_are_to_be_loaded() {
        let store = nn::VarStore::new(Device::Cpu);
        let drawn = |name| {
            kaiming(&store.root(), name, &[4, 3])
                .std(true)
                .double_value(&[])
                > 0.0
        };
        assert!(drawn("first"));
        assert!(!without_start(|| drawn("second")));
        let unwound = std::panic::catch_unwind(|| without_start(|| panic!("as building may")));
        assert!(unwound.is_err());
        assert!(drawn("third"));
    }
}
