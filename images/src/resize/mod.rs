//! Pillow's separable resampling, bit for bit.
//!
//! Source of the definition: Pillow's `Image.resize` for 8-bit images. A horizontal pass, its result rounded to
//! `u8`, then a vertical pass; taps weighted in 22-bit fixed point. Both passes have one portable definition
//! ([`portable`]) and, on x86-64, an AVX2 form that gives the same bits.

mod coefficients;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

use std::ops::Range;

pub use coefficients::Interpolation;
use coefficients::Taps;

use crate::Rgb;

/// Columns of an intermediate row are padded to a multiple of this many bytes, so that no pass needs a tail loop.
const ROW_ALIGN: usize = 32;

/// Rows between the passes are padded to a multiple of this many, for the same reason.
const ROW_BLOCK: usize = 8;

/// The whole image resized to `width` x `height`, as `Image.resize((width, height), interpolation)` of Pillow gives it.
///
/// A side of 0, wanted or given, gives an image without pixels.
pub fn resize(image: &Rgb, width: usize, height: usize, interpolation: Interpolation) -> Rgb {
    let target = Target {
        size: (width, height),
        columns: 0..width,
        rows: 0..height,
    };
    let mut pixels = Vec::with_capacity(width * height * 3);
    resample(image, &target, interpolation, |row| {
        pixels.extend_from_slice(row)
    });
    Rgb {
        width,
        height: if width == 0 { 0 } else { height },
        pixels,
    }
}

/// What to compute: a window of an image resized to `size`.
pub(crate) struct Target {
    /// Width and height of the whole resized image.
    pub size: (usize, usize),
    /// Columns of it that are wanted.
    pub columns: Range<usize>,
    /// Rows of it that are wanted.
    pub rows: Range<usize>,
}

/// Hands the rows of the wanted window to `take`, top to bottom, each `3 * columns.len()` bytes.
///
/// Source rows and columns that no wanted pixel depends on are not visited.
pub(crate) fn resample(
    image: &Rgb,
    target: &Target,
    interpolation: Interpolation,
    take: impl FnMut(&[u8]),
) {
    resample_with(Kernel::detect(), image, target, interpolation, take);
}

fn resample_with(
    kernel: Kernel,
    image: &Rgb,
    target: &Target,
    interpolation: Interpolation,
    mut take: impl FnMut(&[u8]),
) {
    if image.width == 0 || image.height == 0 || target.columns.is_empty() || target.rows.is_empty()
    {
        return;
    }
    let across = Taps::new(
        image.width,
        target.size.0,
        target.columns.clone(),
        interpolation,
    );
    let down = Taps::new(
        image.height,
        target.size.1,
        target.rows.clone(),
        interpolation,
    );
    let needed = down.sources();
    let bytes = target.columns.len() * 3;
    let stride = (bytes + 1).next_multiple_of(ROW_ALIGN);
    let mut narrow = vec![0u8; stride * needed.len().next_multiple_of(ROW_BLOCK)];
    let source = &image.pixels[needed.start * image.width * 3..needed.end * image.width * 3];
    kernel.horizontal(source, image.width * 3, &across, &mut narrow, stride);
    let mut row = vec![0u8; stride];
    for index in 0..down.len() {
        kernel.vertical(&narrow, stride, &down, index, &mut row);
        take(&row[..bytes]);
    }
}

/// Which form of the two passes runs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Kernel {
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            return Self::Avx2;
        }
        Self::Portable
    }

    /// Every row of `source` (rows of `source_stride` bytes) into a row of `narrow` (rows of `stride` bytes, as many
    /// or more).
    fn horizontal(
        self,
        source: &[u8],
        source_stride: usize,
        taps: &Taps,
        narrow: &mut [u8],
        stride: usize,
    ) {
        match self {
            Self::Portable => portable::horizontal(source, source_stride, taps, narrow, stride),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` is the only maker of this variant outside tests, which check the same feature.
            Self::Avx2 => unsafe {
                x86::horizontal(source, source_stride, taps, narrow, stride);
            },
        }
    }

    /// Output row `index`; row 0 of `narrow` is source row `taps.sources().start`.
    fn vertical(self, narrow: &[u8], stride: usize, taps: &Taps, index: usize, out: &mut [u8]) {
        match self {
            Self::Portable => portable::vertical(narrow, stride, taps, index, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { x86::vertical(narrow, stride, taps, index, out) },
        }
    }
}
