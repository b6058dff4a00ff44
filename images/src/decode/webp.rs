//! WebP through the image-webp crate; alpha is dropped.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::{DecodeError, Format, MAX_PIXELS, checked_size, without_alpha};
use crate::Rgb;

const FORMAT: Format = Format::WebP;

pub(super) fn decode(bytes: &[u8]) -> Result<Rgb, DecodeError> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(error)?;
    decoder.set_memory_limit(MAX_PIXELS as usize * 4);
    let (width, height) = decoder.dimensions();
    let (width, height) = checked_size(FORMAT, width, height)?;
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut samples = vec![0; width * height * channels];
    decoder.read_image(&mut samples).map_err(error)?;
    let pixels = match channels {
        4 => without_alpha(&samples),
        _ => samples,
    };
    Ok(Rgb {
        width,
        height,
        pixels,
    })
}

fn error(error: DecodingError) -> DecodeError {
    match error {
        DecodingError::IoError(cause) => DecodeError::Truncated {
            format: FORMAT,
            reason: cause.to_string(),
        },
        other => DecodeError::Unreadable {
            format: FORMAT,
            reason: other.to_string(),
        },
    }
}
