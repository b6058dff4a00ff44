//! File bytes to the pixels of Pillow's `Image.open(file).convert("RGB")`.
//!
//! The format is told by content, never by name. EXIF orientation is not applied and alpha is dropped, as Pillow,
//! torchvision and timm do.

mod bmp;
mod gif;
mod jpeg;
mod png;
mod webp;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::Rgb;

/// Pillow refuses an image of more pixels than this (twice its `MAX_IMAGE_PIXELS`) as a decompression bomb.
pub const MAX_PIXELS: u64 = 2 * (1024 * 1024 * 1024 / 4 / 3);

/// An image file format that [`decode`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Windows bitmap.
    Bmp,
    /// GIF, its first frame.
    Gif,
    /// JPEG: baseline, extended or progressive, 8 bits a sample.
    Jpeg,
    /// PNG of any colour type and depth.
    Png,
    /// WebP, lossy or lossless; its first frame when animated.
    WebP,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
        })
    }
}

impl Format {
    /// The format whose signature `bytes` begin with.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Some(Self::WebP),
            [b'B', b'M', ..] => Some(Self::Bmp),
            _ => None,
        }
    }
}

/// Why bytes are not an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// No known signature.
    #[error(
        "not a JPEG, PNG, GIF, WebP or BMP file (it begins with {start:02x?}); convert it to one of them"
    )]
    UnknownFormat {
        /// The first bytes, eight at most.
        start: Vec<u8>,
    },
    /// Too large to be meant.
    #[error(
        "{format} of {width} x {height} pixels: more than {MAX_PIXELS}, Pillow's limit against decompression bombs; scale it down first"
    )]
    TooLarge {
        /// The file's format.
        format: Format,
        /// Pixels in a row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// The bytes end before the image does.
    #[error("{format} is truncated: {reason}; fetch the file again")]
    Truncated {
        /// The file's format.
        format: Format,
        /// What the decoder found.
        reason: String,
    },
    /// The bytes break the format's rules, or use a part of it that is not read.
    #[error("{format} cannot be decoded: {reason}")]
    Unreadable {
        /// The file's format.
        format: Format,
        /// What the decoder found.
        reason: String,
    },
}

/// The pixels of an image file, as Pillow's `Image.open(file).convert("RGB")` gives them.
///
/// # Errors
/// When the bytes are no image, a truncated one, or one over [`MAX_PIXELS`]; never a panic.
pub fn decode(bytes: &[u8]) -> Result<Rgb, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let format = Format::of(bytes).ok_or_else(|| DecodeError::UnknownFormat {
        start: bytes[..bytes.len().min(8)].to_vec(),
    })?;
    let reader = match format {
        Format::Jpeg => jpeg::decode,
        Format::Png => png::decode,
        Format::Gif => gif::decode,
        Format::WebP => webp::decode,
        Format::Bmp => bmp::decode,
    };
    // A defect in a decoder's crate costs one file, not the run.
    std::panic::catch_unwind(|| reader(bytes)).unwrap_or_else(|_| {
        Err(DecodeError::Unreadable {
            format,
            reason: "the decoder failed on it; please report the file".to_owned(),
        })
    })
}

/// Width and height as sizes, when there are pixels and not too many of them.
fn checked_size(
    format: Format,
    width: impl Into<u64>,
    height: impl Into<u64>,
) -> Result<(usize, usize), DecodeError> {
    let (width, height) = (width.into(), height.into());
    if width == 0 || height == 0 {
        return Err(DecodeError::Unreadable {
            format,
            reason: format!("it has {width} x {height} pixels"),
        });
    }
    let too_large = DecodeError::TooLarge {
        format,
        width,
        height,
    };
    match width.checked_mul(height) {
        Some(pixels) if pixels <= MAX_PIXELS => Ok((width as usize, height as usize)),
        _ => Err(too_large),
    }
}

/// Gray values to equal red, green and blue.
fn from_gray(gray: impl ExactSizeIterator<Item = u8>) -> Vec<u8> {
    let mut pixels = vec![0; gray.len() * 3];
    for (pixel, value) in pixels.chunks_exact_mut(3).zip(gray) {
        pixel.fill(value);
    }
    pixels
}

/// The first three of every four samples.
fn without_alpha(samples: &[u8]) -> Vec<u8> {
    let mut pixels = vec![0; samples.len() / 4 * 3];
    for (pixel, sample) in pixels.chunks_exact_mut(3).zip(samples.chunks_exact(4)) {
        pixel.copy_from_slice(&sample[..3]);
    }
    pixels
}
