//! JPEG through libjpeg-turbo-rs, which gives libjpeg-turbo's bits: integer DCT and triangle ("fancy") upsampling.

mod planes;
mod scan;

use std::borrow::Cow;

use libjpeg_turbo_rs::{
    ColorSpace, ComponentInfo, DecodeLimits, Decoder, JpegError, PixelFormat, RawImage,
};

use self::planes::Plane;
use self::scan::Scans;
use super::{DecodeError, Format, MAX_PIXELS, checked_size, from_gray};
use crate::Rgb;

const FORMAT: Format = Format::Jpeg;

/// Far above any real progressive script, and low enough that a small file cannot ask for hours of work.
const MAX_SCANS: usize = 1000;

pub(super) fn decode(bytes: &[u8]) -> Result<Rgb, DecodeError> {
    let scans = Scans::find(bytes).ok_or_else(|| DecodeError::Truncated {
        format: FORMAT,
        reason: "there is no end-of-image marker after its first scan".to_owned(),
    })?;
    let bytes = match scans.single {
        true => Cow::Owned(scans.without_end(bytes)),
        false => Cow::Borrowed(bytes),
    };
    let limits = DecodeLimits {
        max_pixels: MAX_PIXELS,
        max_scans: MAX_SCANS,
        ..DecodeLimits::default()
    };
    let mut decoder = Decoder::new_with_limits(&bytes, limits).map_err(error)?;
    let header = decoder.header();
    let (width, height) = checked_size(FORMAT, header.width, header.height)?;
    if header.precision != 8 {
        let bits = header.precision;
        return Err(unreadable(format!(
            "its samples have {bits} bits; only 8 are read"
        )));
    }
    let components = header.components.clone();
    let space = colour_space(&decoder);
    let pixels = match components.len() {
        1 => {
            decoder.set_output_format(PixelFormat::Grayscale);
            decoder.set_block_smoothing(true);
            from_gray(decoder.decode_image().map_err(error)?.data.into_iter())
        }
        3 if space == decoder.jpeg_color_space() && first_is_finest(&components) => {
            decoder.set_output_format(PixelFormat::Rgb);
            decoder.set_block_smoothing(true);
            decoder.decode_image().map_err(error)?.data
        }
        3 => from_planes(decoder, &components, space)?,
        4 => from_inverted_cmyk(&from_planes(decoder, &components, space)?),
        layers => return Err(unreadable(format!("it has {layers} colour components"))),
    };
    Ok(Rgb {
        width,
        height,
        pixels,
    })
}

/// The colour space as libjpeg-turbo tells it: JFIF's marker first, then Adobe's, then the component names.
fn colour_space(decoder: &Decoder<'_>) -> ColorSpace {
    let told = decoder.jpeg_color_space();
    let header = decoder.header();
    if header.components.len() != 3 {
        return told;
    }
    let named_rgb = header.components.iter().map(|c| c.id).eq(*b"RGB");
    match decoder.saw_jfif_marker() {
        true => ColorSpace::YCbCr,
        false if named_rgb => ColorSpace::Rgb,
        false => told,
    }
}

/// Whether no component is sampled more finely than the first.
fn first_is_finest(components: &[ComponentInfo]) -> bool {
    components.iter().all(|component| {
        component.horizontal_sampling <= components[0].horizontal_sampling
            && component.vertical_sampling <= components[0].vertical_sampling
    })
}

/// The interleaved full-size samples of a JPEG that the port gives only the planes of.
fn from_planes(
    decoder: Decoder<'_>,
    components: &[ComponentInfo],
    space: ColorSpace,
) -> Result<Vec<u8>, DecodeError> {
    let raw = decoder.decode_raw().map_err(error)?;
    let count = components.len();
    let mut samples = vec![0; raw.width * raw.height * count];
    for index in 0..count {
        let full = full_size(&raw, components, index)?;
        let places = samples.iter_mut().skip(index).step_by(count);
        places.zip(full).for_each(|(place, value)| *place = value);
    }
    planes::convert(&mut samples, count, space);
    Ok(samples)
}

fn full_size(
    raw: &RawImage,
    components: &[ComponentInfo],
    index: usize,
) -> Result<Vec<u8>, DecodeError> {
    let finest = |factor: fn(&ComponentInfo) -> u8| {
        usize::from(components.iter().map(factor).max().unwrap_or(1))
    };
    let (across, down) = (
        finest(|c| c.horizontal_sampling),
        finest(|c| c.vertical_sampling),
    );
    let own = (
        usize::from(components[index].horizontal_sampling),
        usize::from(components[index].vertical_sampling),
    );
    if own.0 == 0 || own.1 == 0 || across % own.0 != 0 || down % own.1 != 0 {
        return Err(unreadable(format!(
            "component {index} is sampled {own:?} of {:?} times, which is no whole ratio",
            (across, down)
        )));
    }
    let plane = Plane {
        samples: &raw.planes[index],
        stride: raw.plane_widths[index],
        width: (raw.width * own.0).div_ceil(across),
        height: (raw.height * own.1).div_ceil(down),
    };
    Ok(plane.upsample((across / own.0, down / own.1), (raw.width, raw.height)))
}

/// Pillow takes every four-component JPEG for inverted ("assume Adobe conventions"), with or without Adobe's marker.
fn from_inverted_cmyk(samples: &[u8]) -> Vec<u8> {
    let quads = samples.chunks_exact(4);
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
