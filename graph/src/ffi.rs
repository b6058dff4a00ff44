//! The shim around libtorch's tracer.

use serde::Deserialize;
use std::ffi::{CStr, CString, c_char, c_void};
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn zoo_graph_last_error() -> *const c_char;
    fn zoo_graph_begin(
        tensors: *const *const C_tensor,
        names: *const *const c_char,
        count: usize,
    ) -> bool;
    fn zoo_graph_abandon();
    fn zoo_graph_end(outputs: *const *const C_tensor, count: usize) -> *mut c_void;
    fn zoo_graph_json(recorded: *const c_void) -> *const c_char;
    fn zoo_graph_tensor_count(recorded: *const c_void) -> usize;
    fn zoo_graph_tensor(recorded: *const c_void, i: usize) -> *mut C_tensor;
    fn zoo_graph_know(recorded: *mut c_void, value: usize, tensor: *const C_tensor);
    fn zoo_graph_run(recorded: *mut c_void, value: usize) -> bool;
    fn zoo_graph_known(recorded: *const c_void, value: usize) -> *mut C_tensor;
    fn zoo_graph_free(recorded: *mut c_void);
    fn zoo_graph_pause() -> *mut c_void;
    fn zoo_graph_resume(paused: *mut c_void);
    fn zoo_graph_push_scope(name: *const c_char);
    fn zoo_graph_pop_scope();
    fn zoo_graph_is_tracing() -> bool;
}

/// A graph as the tracer has it.
#[derive(Debug, Deserialize)]
pub(crate) struct Recorded {
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
    /// Values that the forward pass read as numbers.
    pub numbers: Vec<usize>,
    pub nodes: Vec<RecordedNode>,
    pub values: Vec<RecordedValue>,
    /// The constants that are tensors, by their number.
    #[serde(skip)]
    pub tensors: Vec<Tensor>,
    /// libtorch's graph, to run parts of it.
    #[serde(skip)]
    pub handle: Option<Handle>,
}

/// libtorch's graph behind a [`Recorded`].
#[derive(Debug)]
pub(crate) struct Handle(*mut c_void);

impl Handle {
    /// Tells the tensor of an input.
    pub fn know(&self, value: usize, tensor: &Tensor) {
        // SAFETY: the handle is alive, `value` is one of its numbers, the shim keeps a reference of its own to the tensor.
        unsafe { zoo_graph_know(self.0, value, tensor.as_ptr()) }
    }

    /// Runs the node that computes `value`, all of whose inputs are known.
    pub fn run(&self, value: usize) -> Result<(), String> {
        // SAFETY: the handle is alive and `value` is one of its numbers.
        if unsafe { zoo_graph_run(self.0, value) } {
            Ok(())
        } else {
            Err(last_error())
        }
    }

    /// A tensor that [`Handle::run`] computed.
    pub fn known(&self, value: usize) -> Option<Tensor> {
        // SAFETY: the handle is alive, `value` is one of its numbers, the tensor is a new reference.
        let tensor = unsafe { zoo_graph_known(self.0, value) };
        // SAFETY: as above; not null.
        (!tensor.is_null()).then(|| unsafe { Tensor::from_ptr(tensor) })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: what the shim made, once.
        unsafe { zoo_graph_free(self.0) }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct RecordedNode {
    pub kind: String,
    pub scope: String,
    pub inputs: Vec<usize>,
    pub names: Vec<String>,
    pub outputs: Vec<usize>,
    pub constant: Option<Constant>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RecordedValue {
    pub name: String,
    pub dtype: Option<i64>,
    pub shape: Option<Vec<i64>>,
    pub strides: Option<Vec<i64>>,
}

/// Floating-point numbers are texts: JSON has no infinities.
#[derive(Debug, Deserialize)]
pub(crate) enum Constant {
    None,
    Bool(bool),
    Int(i64),
    Float(String),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<String>),
    Bools(Vec<bool>),
    Tensor(usize),
    Other(String),
}

fn last_error() -> String {
    // SAFETY: the shim keeps the message until the next call on this thread.
    unsafe { CStr::from_ptr(zoo_graph_last_error()) }
        .to_string_lossy()
        .into_owned()
}

/// Ends the trace of this thread when it is dropped before [`Running::end`].
pub(crate) struct Running(());

impl Running {
    /// Begins to trace; the named tensors are the graph's inputs.
    pub fn begin(tensors: &[(String, Tensor)]) -> Result<Running, String> {
        let pointers: Vec<_> = tensors.iter().map(|(_, t)| t.as_ptr()).collect();
        let names: Result<Vec<CString>, _> = tensors
            .iter()
            .map(|(name, _)| CString::new(name.as_str()))
            .collect();
        let names = names.map_err(|e| format!("the name of a tensor: {e}"))?;
        let name_pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: both arrays have `tensors.len()` valid entries during the call.
        let begun =
            unsafe { zoo_graph_begin(pointers.as_ptr(), name_pointers.as_ptr(), tensors.len()) };
        if begun {
            Ok(Running(()))
        } else {
            Err(last_error())
        }
    }

    /// The graph that computes `outputs`.
    pub fn end(self, outputs: &[Tensor]) -> Result<Recorded, String> {
        std::mem::forget(self);
        let pointers: Vec<_> = outputs.iter().map(|t| t.as_ptr()).collect();
        // SAFETY: the array has `outputs.len()` valid entries during the call.
        let recorded = unsafe { zoo_graph_end(pointers.as_ptr(), outputs.len()) };
        if recorded.is_null() {
            return Err(last_error());
        }
        let handle = Handle(recorded);
        // SAFETY: `recorded` is what the shim just made; its text lives as long as the handle.
        let json = unsafe { CStr::from_ptr(zoo_graph_json(recorded)) };
        let recorded_graph: Recorded =
            serde_json::from_slice(json.to_bytes()).map_err(|e| format!("the shim's text: {e}"))?;
        // SAFETY: as above; each call gives a reference of its own.
        let tensors = unsafe {
            let count = zoo_graph_tensor_count(recorded);
            let tensors = (0..count).map(|i| Tensor::from_ptr(zoo_graph_tensor(recorded, i)));
            tensors.collect()
        };
        Ok(Recorded {
            tensors,
            handle: Some(handle),
            ..recorded_graph
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: ends the trace of this thread, if there is one.
        unsafe { zoo_graph_abandon() }
    }
}

/// Runs `f` outside the trace: what it returns enters the graph as constants.
///
/// For tensors that a forward pass must make from data. Better made once, when the model is built.
pub fn constant<T>(f: impl FnOnce() -> T) -> T {
    struct Resume(*mut c_void);
    impl Drop for Resume {
        fn drop(&mut self) {
            // SAFETY: what `zoo_graph_pause` gave, once.
            unsafe { zoo_graph_resume(self.0) }
        }
    }
    // SAFETY: no arguments; null where nothing is traced.
    let _resume = Resume(unsafe { zoo_graph_pause() });
    f()
}

/// Whether this thread is tracing.
pub fn is_tracing() -> bool {
    // SAFETY: no arguments.
    unsafe { zoo_graph_is_tracing() }
}

/// Names the operations of `f` after a module; does nothing outside a trace. Scopes nest: `blocks`, then `0`.
///
/// Not needed where an operation reads a parameter, whose name tells the module.
pub fn scope<T>(name: &str, f: impl FnOnce() -> T) -> T {
    struct Pop;
    impl Drop for Pop {
        fn drop(&mut self) {
            // SAFETY: no arguments; pops what was pushed.
            unsafe { zoo_graph_pop_scope() }
        }
    }
    let Ok(name) = CString::new(name) else {
        return f();
    };
    // SAFETY: the text is valid during the call.
    unsafe { zoo_graph_push_scope(name.as_ptr()) };
    let _pop = Pop;
    f()
}
