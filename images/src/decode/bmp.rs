//! BMP through the image crate; alpha is dropped.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::{DynamicImage, ImageDecoder, ImageError};

use super::{DecodeError, Format, checked_size};
use crate::Rgb;

const FORMAT: Format = Format::Bmp;

pub(super) fn decode(bytes: &[u8]) -> Result<Rgb, DecodeError> {
    if bytes.get(28..30) == Some(&[16, 0]) {
        return Err(DecodeError::Unreadable {
            format: FORMAT,
            reason: "it has 16 bits a pixel, which would not give Pillow's values; save it with 24"
                .to_owned(),
        });
    }
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(error)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = checked_size(FORMAT, width, height)?;
    let image = DynamicImage::from_decoder(decoder).map_err(error)?;
    Ok(Rgb {
        width,
        height,
        pixels: image.into_rgb8().into_raw(),
    })
}

fn error(error: ImageError) -> DecodeError {
    match error {
        ImageError::IoError(cause) => DecodeError::Truncated {
            format: FORMAT,
            reason: cause.to_string(),
        },
        other => DecodeError::Unreadable {
            format: FORMAT,
            reason: other.to_string(),
        },
    }
}
