//! oneDNN's prepacked convolution and linear with fused activations, through libtorch's dispatcher.
//!
//! These are the operators that torch.compile uses on CPUs; tch has no binding for them, so a C++ shim calls them.

use crate::Activation;
use crate::inference::tracing;
use std::cell::RefCell;
use std::ffi::{CStr, c_char};
use tch::{Device, Kind, Tensor};

pub(crate) type CTensor = std::ffi::c_void;

/// Padding, stride, dilation and groups of a 2-d convolution, as the shim takes them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub padding: [i64; 2],
    pub stride: [i64; 2],
    pub dilation: [i64; 2],
    pub groups: i64,
}

unsafe extern "C" {
    fn zoo_last_error() -> *const c_char;
    fn zoo_onednn_pack_conv(
        weight: *const CTensor,
        geometry: *const Geometry,
        input_size: *const i64,
    ) -> *mut CTensor;
    fn zoo_onednn_conv(
        x: *const CTensor,
        packed: *const CTensor,
        bias: *const CTensor,
        geometry: *const Geometry,
        activation: *const c_char,
        algorithm: *const c_char,
    ) -> *mut CTensor;
    fn zoo_onednn_conv_add(
        x: *const CTensor,
        other: *const CTensor,
        packed: *const CTensor,
        bias: *const CTensor,
        geometry: *const Geometry,
        activation: *const c_char,
    ) -> *mut CTensor;
    fn zoo_onednn_pack_linear(weight: *const CTensor, rows: i64) -> *mut CTensor;
    fn zoo_onednn_linear(
        x: *const CTensor,
        packed: *const CTensor,
        bias: *const CTensor,
        activation: *const c_char,
        algorithm: *const c_char,
    ) -> *mut CTensor;
    fn zoo_onednn_linear_add(
        x: *const CTensor,
        other: *const CTensor,
        packed: *const CTensor,
        bias: *const CTensor,
    ) -> *mut CTensor;
}

pub(crate) fn raw(t: &Tensor) -> *const CTensor {
    t.as_ptr() as *const CTensor
}

fn raw_option(t: Option<&Tensor>) -> *const CTensor {
    t.map_or(std::ptr::null(), raw)
}

/// Takes over a tensor the shim made. Panics as tch's own operators do when libtorch refuses a call.
pub(crate) fn take(what: &str, t: *mut CTensor) -> Tensor {
    if t.is_null() {
        // SAFETY: zoo_last_error returns a NUL-terminated string that lives until the next shim call on this thread.
        let message = unsafe { CStr::from_ptr(zoo_last_error()) }.to_string_lossy();
        panic!("{what}: {message}");
    }
    // SAFETY: the shim returned a heap-allocated at::Tensor, owned by nobody else.
    unsafe { Tensor::from_ptr(t.cast()) }
}

/// Whether the fused operators apply to this activation: CPU, f32 or bf16, nothing to differentiate, nothing traced (the
/// tracer does not know their arguments).
pub(crate) fn applies(x: &Tensor) -> bool {
    x.device() == Device::Cpu
        && !tracing()
        && matches!(x.kind(), Kind::Float | Kind::BFloat16)
        && !x.requires_grad()
}

fn names(activation: Activation) -> (&'static CStr, Option<&'static CStr>) {
    match activation {
        Activation::None => (c"none", None),
        Activation::Relu => (c"relu", None),
        Activation::Gelu => (c"gelu", Some(c"none")),
        Activation::Silu => (c"swish", None),
        Activation::Sigmoid => (c"sigmoid", None),
        Activation::Hardswish => (c"hardswish", None),
    }
}

fn text(name: Option<&CStr>) -> *const c_char {
    name.map_or(std::ptr::null(), CStr::as_ptr)
}

/// Weights reordered for one input shape; the last few shapes are kept.
#[derive(Debug, Default)]
pub(crate) struct Packs(RefCell<Vec<(Kind, Vec<i64>, Tensor)>>);

/// Shapes whose packed weights are kept for each layer: a batch size, its remainder, a warm-up and one more.
const KEPT: usize = 4;

impl Packs {
    fn get(&self, kind: Kind, shape: &[i64], pack: impl FnOnce() -> Tensor) -> Tensor {
        let mut packs = self.0.borrow_mut();
        if let Some((_, _, t)) = packs.iter().find(|(k, s, _)| *k == kind && s == shape) {
            return t.shallow_clone();
        }
        if packs.len() == KEPT {
            drop(packs.remove(0));
        }
        let packed = pack();
        packs.push((kind, shape.to_vec(), packed.shallow_clone()));
        packed
    }

    /// The convolution weight reordered for inputs like `x` ([N, C, H, W]).
    pub(crate) fn conv(&self, weight: &Tensor, geometry: &Geometry, x: &Tensor) -> Tensor {
        let size = x.size();
        self.get(x.kind(), &size, || {
            // SAFETY: live tensors; `size` has the four entries of an NCHW shape (checked by the caller's conv2d rank).
            take("mkldnn::_reorder_convolution_weight", unsafe {
                zoo_onednn_pack_conv(raw(weight), geometry, size.as_ptr())
            })
        })
    }

    /// The linear weight ([out, in]) reordered for inputs like `x` ([.., in]).
    pub(crate) fn linear(&self, weight: &Tensor, x: &Tensor) -> Tensor {
        let rows = x.numel() as i64 / x.size().last().copied().unwrap_or(1).max(1);
        self.get(x.kind(), &[rows], || {
            // SAFETY: `weight` is a live tensor.
            take("mkldnn::_reorder_linear_weight", unsafe {
                zoo_onednn_pack_linear(raw(weight), rows)
            })
        })
    }
}

/// `activation(conv(x) + bias)` with a packed weight.
pub(crate) fn conv(
    x: &Tensor,
    packed: &Tensor,
    bias: Option<&Tensor>,
    geometry: &Geometry,
    activation: Activation,
) -> Tensor {
    let (name, algorithm) = names(activation);
    // SAFETY: live tensors and NUL-terminated literals.
    take("mkldnn::_convolution_pointwise", unsafe {
        zoo_onednn_conv(
            raw(x),
            raw(packed),
            raw_option(bias),
            geometry,
            name.as_ptr(),
            text(algorithm),
        )
    })
}

/// `activation(conv(x) + bias + other)` with a packed weight; only `None` and `Relu` are fused by oneDNN.
///
/// The result is in `other`'s memory where nobody else holds it.
pub(crate) fn conv_add(
    x: &Tensor,
    other: Tensor,
    packed: &Tensor,
    bias: Option<&Tensor>,
    geometry: &Geometry,
    activation: Activation,
) -> Tensor {
    let (fused, rest) = match activation {
        Activation::None => (None, Activation::None),
        Activation::Relu => (Some(c"relu"), Activation::None),
        other => (None, other),
    };
    // SAFETY: live tensors and NUL-terminated literals.
    let y = take("mkldnn::_convolution_pointwise_.binary", unsafe {
        zoo_onednn_conv_add(
            raw(x),
            raw(&other),
            raw(packed),
            raw_option(bias),
            geometry,
            text(fused),
        )
    });
    rest.apply(y)
}

/// `activation(x W^T + bias)` with a packed weight.
pub(crate) fn linear(
    x: &Tensor,
    packed: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Tensor {
    let (name, algorithm) = names(activation);
    // SAFETY: live tensors and NUL-terminated literals.
    take("mkldnn::_linear_pointwise", unsafe {
        zoo_onednn_linear(
            raw(x),
            raw(packed),
            raw_option(bias),
            name.as_ptr(),
            text(algorithm),
        )
    })
}

/// `x W^T + bias + other` with a packed weight; `other` is contiguous.
pub(crate) fn linear_add(
    x: &Tensor,
    other: &Tensor,
    packed: &Tensor,
    bias: Option<&Tensor>,
) -> Tensor {
    // SAFETY: live tensors.
    take("mkldnn::_linear_pointwise.binary", unsafe {
        zoo_onednn_linear_add(raw(x), raw(other), raw(packed), raw_option(bias))
    })
}
