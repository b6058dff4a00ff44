//! Image files to exactly the pixels that Pillow gives, and to the tensors that timm and torchvision make of them.
//!
//! No model, no metric, no data set layout: bytes in, pixels or floats out.

mod decode;
mod resize;
mod transform;

pub use decode::{DecodeError, Format, MAX_PIXELS, decode};
pub use resize::{Interpolation, resize};
pub use transform::Transform;

/// An 8-bit RGB image. What takes one panics when `pixels` has fewer bytes than `width` and `height` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]` bytes, row by row, red green blue.
    pub pixels: Vec<u8>,
}
