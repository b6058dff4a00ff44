//! JPEG through libjpeg-turbo-rs, which gives libjpeg-turbo's bits: integer DCT and triangle ("fancy") upsampling.

use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat};

use super::{DecodeError, Format, checked_size, from_gray};
use crate::Rgb;

const FORMAT: Format = Format::Jpeg;

/// Far above any real progressive script, and low enough that a small file cannot ask for hours of work.
const MAX_SCANS: usize = 1000;

pub(super) fn decode(bytes: &[u8]) -> Result<Rgb, DecodeError> {
    let limits = DecodeLimits {
        max_pixels: super::MAX_PIXELS,
        max_scans: MAX_SCANS,
        ..DecodeLimits::default()
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(error)?;
    let header = decoder.header();
    let (width, height) = checked_size(FORMAT, header.width, header.height)?;
    if header.precision != 8 {
        return Err(unreadable(format!(
            "its samples have {} bits; only 8 are read, as in Pillow",
            header.precision
        )));
    }
    let (format, to_rgb): (_, fn(Vec<u8>) -> Vec<u8>) = match header.components.len() {
        1 => (PixelFormat::Grayscale, from_gray),
        3 => (PixelFormat::Rgb, |pixels| pixels),
        4 => (PixelFormat::Cmyk, from_inverted_cmyk),
        layers => return Err(unreadable(format!("it has {layers} colour components"))),
    };
    decoder.set_output_format(format);
    decoder.set_block_smoothing(true);
    let image = decoder.decode_image().map_err(error)?;
    Ok(Rgb {
        width,
        height,
        pixels: to_rgb(image.data),
    })
}

/// Pillow takes every four-component JPEG for inverted ("assume Adobe conventions"), with or without Adobe's marker.
fn from_inverted_cmyk(pixels: Vec<u8>) -> Vec<u8> {
    let quads = pixels.chunks_exact(4);
    quads
        .flat_map(|quad| {
            let white = i32::from(quad[3]);
            [0, 1, 2].map(|ink| {
                let product = i32::from(255 - quad[ink]) * white + 128;
                (white - (((product >> 8) + product) >> 8)).max(0) as u8
            })
        })
        .collect()
}

fn unreadable(reason: String) -> DecodeError {
    DecodeError::Unreadable {
        format: FORMAT,
        reason,
    }
}

fn error(error: JpegError) -> DecodeError {
    match error {
        JpegError::UnexpectedEof => DecodeError::Truncated {
            format: FORMAT,
            reason: error.to_string(),
        },
        other => unreadable(other.to_string()),
    }
}
