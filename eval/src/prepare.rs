//! Samples to model inputs with the product's own decoder and transform.

use crate::Prepare;
use crate::data::{Sample, Source};
use zoo_images::{Rgb, Transform};

/// [`Prepare`] for RGB images: decode as Pillow does, then a [`Transform`].
#[derive(Debug, Clone)]
pub struct Images {
    /// The evaluation transform.
    pub transform: Transform,
}

impl Prepare for Images {
    type Image = Rgb;

    fn image_len(&self) -> usize {
        3 * self.transform.size.0 * self.transform.size.1
    }

    fn decode(&self, sample: &Sample) -> Result<Rgb, String> {
        decode(sample)
    }

    fn preprocess(&self, image: &Rgb, out: &mut [f32]) {
        self.transform.write(image, out);
    }
}

/// Reads and decodes a sample; the error says why it cannot be read, without its name.
pub fn decode(sample: &Sample) -> Result<Rgb, String> {
    let bytes = sample.source.read().map_err(|e| e.to_string())?;
    match sample.source {
        Source::Raw { width, height, .. } => Ok(from_planes(&bytes, width, height)),
        _ => zoo_images::decode(&bytes).map_err(|e| e.to_string()),
    }
}

/// All red, all green, all blue to interleaved pixels.
fn from_planes(planes: &[u8], width: u32, height: u32) -> Rgb {
    let (width, height) = (width as usize, height as usize);
    let plane = width * height;
    let mut pixels = vec![0; 3 * plane];
    for (channel, values) in planes.chunks_exact(plane).take(3).enumerate() {
        for (pixel, &value) in pixels.chunks_exact_mut(3).zip(values) {
            pixel[channel] = value;
        }
    }
    Rgb {
        width,
        height,
        pixels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels() {
        let image = from_planes(&[1, 2, 11, 12, 21, 22], 2, 1);
        assert_eq!(image.pixels, [1, 11, 21, 2, 12, 22]);
    }
}
