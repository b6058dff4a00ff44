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

/// The values of a tensor as [`contiguous`] makes it.
///
/// # Panics
/// For a tensor of another kind, layout or device: a mistake of this crate.
pub(super) fn values<T: tch::kind::Element>(x: &Tensor) -> &[T] {
    assert!(
        x.kind() == T::KIND && x.is_contiguous() && x.device() == Device::Cpu,
        "not made by contiguous()"
    );
    if x.numel() == 0 {
        return &[];
    }
    // SAFETY: `numel` contiguous elements of type `T` on the CPU, as just checked, alive while the tensor is borrowed.
    unsafe { std::slice::from_raw_parts(x.data_ptr().cast::<T>(), x.numel()) }
}
