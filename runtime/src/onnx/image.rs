//! Batches of images as the engines take them: contiguous, on the CPU, float32 or float16.

use super::file::Element;
use tch::{Device, Kind, Tensor};

/// The tensor as contiguous values of this format on the CPU; itself where it already is.
pub(super) fn contiguous(x: &Tensor, element: Element) -> Tensor {
    let kind = match element {
        Element::F32 => Kind::Float,
        Element::F16 => Kind::Half,
    };
    x.to_device(Device::Cpu).to_kind(kind).contiguous()
}

/// The values of a contiguous tensor on the CPU whose elements are `T`s.
///
/// # Safety
/// The tensor's kind must be that of `T`, its storage on the CPU and contiguous.
pub(super) unsafe fn values<T>(x: &Tensor) -> &[T] {
    debug_assert!(x.is_contiguous() && x.device() == Device::Cpu);
    if x.numel() == 0 {
        return &[];
    }
    // SAFETY: a contiguous tensor is `numel` elements from `data_ptr` on, alive as long as the tensor is borrowed; the
    // element type is the caller's promise.
    unsafe { std::slice::from_raw_parts(x.data_ptr().cast::<T>(), x.numel()) }
}
