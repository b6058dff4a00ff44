//! PNG through the png crate; 16-bit samples become 8 as Pillow makes them.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::{DecodeError, Format, MAX_PIXELS, checked_size, from_gray, without_alpha};
use crate::Rgb;

const FORMAT: Format = Format::Png;

pub(super) fn decode(bytes: &[u8]) -> Result<Rgb, DecodeError> {
    let limits = Limits {
        bytes: MAX_PIXELS as usize * 8,
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    // Palette to colours, gray of fewer bits to the full range, 16 bits left alone.
    decoder.set_transformations(Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(error)?;
    let (width, height) = checked_size(FORMAT, reader.info().width, reader.info().height)?;
    let gray16 = reader.info().color_type == ColorType::Grayscale
        && reader.info().bit_depth == BitDepth::Sixteen;
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| too_large(width, height))?;
    let mut samples = vec![0; size];
    let frame = reader.next_frame(&mut samples).map_err(error)?;
    samples.truncate(frame.buffer_size());
    if frame.bit_depth == BitDepth::Sixteen {
        let pairs = samples.chunks_exact(2);
        // Pillow keeps 16-bit gray as integers and clips them to 255, but takes the high byte of everything else.
        samples = match gray16 {
            true => pairs
                .map(|pair| if pair[0] > 0 { 255 } else { pair[1] })
                .collect(),
            false => pairs.map(|pair| pair[0]).collect(),
        };
    }
    let pixels = match frame.color_type {
        ColorType::Grayscale => from_gray(samples.into_iter()),
        ColorType::GrayscaleAlpha => from_gray(samples.into_iter().step_by(2)),
        ColorType::Rgb => samples,
        ColorType::Rgba => without_alpha(&samples),
        ColorType::Indexed => {
            return Err(unreadable("its palette is missing".to_owned()));
        }
    };
    Ok(Rgb {
        width,
        height,
        pixels,
    })
}

fn too_large(width: usize, height: usize) -> DecodeError {
    DecodeError::TooLarge {
        format: FORMAT,
        width: width as u64,
        height: height as u64,
    }
}

fn unreadable(reason: String) -> DecodeError {
    DecodeError::Unreadable {
        format: FORMAT,
        reason,
    }
}

fn error(error: DecodingError) -> DecodeError {
    match error {
        DecodingError::IoError(cause) => DecodeError::Truncated {
            format: FORMAT,
            reason: cause.to_string(),
        },
        other => unreadable(other.to_string()),
    }
}
