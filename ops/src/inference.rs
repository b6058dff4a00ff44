//! Inference mode and memory formats, which tch does not expose.

use crate::onednn::{self, CTensor};
use std::ffi::c_void;
use tch::Tensor;

unsafe extern "C" {
    fn zoo_inference_mode_enter() -> *mut c_void;
    fn zoo_inference_mode_leave(guard: *mut c_void);
    fn zoo_allow_tf32(allowed: bool);
    fn zoo_is_tracing() -> bool;
    fn zoo_channels_last(x: *const CTensor) -> *mut CTensor;
}

struct InferenceGuard(*mut c_void);

impl Drop for InferenceGuard {
    fn drop(&mut self) {
        // SAFETY: the pointer came from zoo_inference_mode_enter on this thread (the guard is not Send) and is freed once.
        unsafe { zoo_inference_mode_leave(self.0) }
    }
}

/// Runs `f` in libtorch's inference mode: no autograd record, no version counters. Applies to this thread only.
///
/// Tensors made inside can not take part in autograd later.
pub fn inference_mode<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: no arguments; the guard restores the mode, also on unwinding.
    let _guard = InferenceGuard(unsafe { zoo_inference_mode_enter() });
    f()
}

/// Whether CUDA may round the factors of f32 products to TF32 (10 bits of mantissa), in this process.
///
/// PyTorch allows it in convolutions unless told otherwise.
pub fn allow_tf32(allowed: bool) {
    // SAFETY: sets two flags of libtorch's global context.
    unsafe { zoo_allow_tf32(allowed) }
}

/// The same NCHW tensor stored channels-last (NHWC strides), copied only when it is not so already.
pub fn channels_last(x: &Tensor) -> Tensor {
    // SAFETY: `x` is a live tensor for the duration of the call.
    onednn::take("channels_last", unsafe {
        zoo_channels_last(onednn::raw(x))
    })
}

/// Whether libtorch's tracer records on this thread: kernels of our own, which it can not see, step aside then.
pub fn tracing() -> bool {
    // SAFETY: reads a thread-local of libtorch.
    unsafe { zoo_is_tracing() }
}
