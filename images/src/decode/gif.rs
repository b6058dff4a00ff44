//! The first frame of a GIF, its indices looked up in its palette; transparency is not applied, as in Pillow.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, DecodingError, Frame, MemoryLimit};

use super::{DecodeError, Format, MAX_PIXELS, checked_size};
use crate::Rgb;

const FORMAT: Format = Format::Gif;

pub(super) fn decode(bytes: &[u8]) -> Result<Rgb, DecodeError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Bytes(
        std::num::NonZeroU64::new(MAX_PIXELS).unwrap_or(std::num::NonZeroU64::MIN),
    ));
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(error)?;
    let screen = (decoder.width(), decoder.height());
    let shared = decoder.global_palette().map(<[u8]>::to_vec);
    let frame = decoder.read_next_frame().map_err(error)?;
    let frame = frame.ok_or_else(|| DecodeError::Unreadable {
        format: FORMAT,
        reason: "it has no frame".to_owned(),
    })?;
    let right = u64::from(frame.left) + u64::from(frame.width);
    let bottom = u64::from(frame.top) + u64::from(frame.height);
    let (width, height) = checked_size(
        FORMAT,
        right.max(screen.0.into()),
        bottom.max(screen.1.into()),
    )?;
    let colours = palette(frame.palette.as_deref().or(shared.as_deref()));
    let outside = usize::from(frame.transparent.unwrap_or(0));
    let mut image = Rgb {
        width,
        height,
        pixels: colours[outside].repeat(width * height),
    };
    paint(&mut image, frame, &colours);
    Ok(image)
}

/// 256 colours: those of the file, then a gray ramp, which is what Pillow's palettes hold before they are set.
fn palette(stored: Option<&[u8]>) -> [[u8; 3]; 256] {
    let mut colours = std::array::from_fn(|index| [index as u8; 3]);
    for (colour, stored) in colours
        .iter_mut()
        .zip(stored.unwrap_or(&[]).chunks_exact(3))
    {
        colour.copy_from_slice(stored);
    }
    colours
}

fn paint(image: &mut Rgb, frame: &Frame<'_>, colours: &[[u8; 3]; 256]) {
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let rows = frame.buffer.chunks_exact(usize::from(frame.width).max(1));
    for (row, indices) in rows.enumerate() {
        let start = ((top + row) * image.width + left) * 3;
        let pixels = image.pixels[start..].chunks_exact_mut(3);
        for (pixel, &index) in pixels.zip(indices) {
            pixel.copy_from_slice(&colours[usize::from(index)]);
        }
    }
}

fn error(error: DecodingError) -> DecodeError {
    match error {
        DecodingError::Io(cause) => DecodeError::Truncated {
            format: FORMAT,
            reason: cause.to_string(),
        },
        other => DecodeError::Unreadable {
            format: FORMAT,
            reason: other.to_string(),
        },
    }
}
