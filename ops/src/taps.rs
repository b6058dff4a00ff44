//! Looking at the inside of a forward pass: parity records, firing rates, executed work.

use std::cell::RefCell;
use std::collections::BTreeMap;
use tch::{Tensor, nn};

thread_local! {
    static RECORDING: RefCell<Option<BTreeMap<String, Tensor>>> = const { RefCell::new(None) };
}

/// A named place in a model whose value can be recorded.
#[derive(Debug, Clone)]
pub struct Tap(String);

impl Tap {
    /// The place `name` below the module at `p`, e.g. `blocks2.3.mixer.m.attn`.
    pub fn new(p: &nn::Path, name: &str) -> Self {
        Tap(p.components().chain([name]).collect::<Vec<_>>().join("."))
    }

    /// A place whose name does not follow the module's path, e.g. `block0.attn_out`.
    pub fn named(name: impl Into<String>) -> Self {
        Tap(name.into())
    }

    /// The output of the module at `p` itself, e.g. `layer1.0`.
    pub fn at(p: &nn::Path) -> Self {
        Tap(p.components().collect::<Vec<_>>().join("."))
    }

    /// Records `t` if somebody is recording on this thread; otherwise costs one look at a thread-local.
    pub fn see(&self, t: &Tensor) {
        see(&self.0, t);
    }
}

/// Records `t` under a name that does not depend on a path, e.g. `stages.0`.
pub fn see(name: &str, t: &Tensor) {
    RECORDING.with_borrow_mut(|map| {
        if let Some(map) = map {
            map.insert(name.to_owned(), t.shallow_clone());
        }
    });
}

/// Whether somebody records: forms that never make a tapped value step aside then.
pub fn recording() -> bool {
    RECORDING.with_borrow(Option::is_some)
}

/// Runs `f` and returns what it gave with every value its taps saw. Not nested; this thread only.
pub fn record<T>(f: impl FnOnce() -> T) -> (T, BTreeMap<String, Tensor>) {
    struct Stop;
    impl Drop for Stop {
        fn drop(&mut self) {
            RECORDING.with_borrow_mut(Option::take);
        }
    }
    RECORDING.with_borrow_mut(|map| *map = Some(BTreeMap::new()));
    let _stop = Stop;
    let result = f();
    let seen = RECORDING.with_borrow_mut(Option::take).unwrap_or_default();
    (result, seen)
}
