//! Image files and records to model inputs, with the decoder and transform of `zoo_images`.

use zoo_images::{Interpolation, Rgb, Transform};

use crate::Prepare;
use crate::data::{Sample, Source};
use crate::journal::Preprocessing;

/// Prepares images as timm and torchvision do.
#[derive(Debug, Clone)]
pub struct Images {
    /// From pixels to floats.
    pub transform: Transform,
}

impl Prepare for Images {
    type Image = Rgb;

    fn image_len(&self) -> usize {
        let (height, width) = self.transform.size;
        3 * height * width
    }

    fn decode(&self, sample: &Sample) -> Result<Rgb, String> {
        let bytes = sample.source.read().map_err(|e| e.to_string())?;
        match sample.source {
            Source::Raw { width, height, .. } => {
                interleave(&bytes, width as usize, height as usize)
                    .ok_or_else(|| format!("{} bytes for {width} x {height} pixels", bytes.len()))
            }
            _ => zoo_images::decode(&bytes).map_err(|e| e.to_string()),
        }
    }

    fn preprocess(&self, image: &Rgb, out: &mut [f32]) {
        self.transform.write(image, out);
    }
}

/// Three planes to pixels; `None` where the bytes are not those of such an image.
fn interleave(planes: &[u8], width: usize, height: usize) -> Option<Rgb> {
    let plane = width.checked_mul(height).filter(|&n| n > 0)?;
    if plane.checked_mul(3)? != planes.len() {
        return None;
    }
    let pixels = (0..plane)
        .flat_map(|i| [planes[i], planes[plane + i], planes[2 * plane + i]])
        .collect();
    Some(Rgb {
        width,
        height,
        pixels,
    })
}

impl From<&Transform> for Preprocessing {
    fn from(transform: &Transform) -> Self {
        let wide = |values: [f32; 3]| values.iter().map(|&x| decimal(x)).collect();
        Preprocessing {
            size: [transform.size.0, transform.size.1],
            crop_pct: transform.crop_pct,
            interpolation: name(transform.interpolation).to_owned(),
            mean: wide(transform.mean),
            std: wide(transform.std),
        }
    }
}

/// The filter's name in Pillow, timm and torchvision.
fn name(interpolation: Interpolation) -> &'static str {
    match interpolation {
        Interpolation::Box => "box",
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
        Interpolation::Lanczos => "lanczos",
    }
}

/// The f64 of the shortest decimal that names `x`: 0.485 is reported as 0.485, not as 0.48500001430511475.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels() {
        let image = interleave(&[1, 2, 11, 12, 21, 22], 2, 1).unwrap();
        assert_eq!(image.pixels, [1, 11, 21, 2, 12, 22]);
        assert_eq!(interleave(&[1, 2, 3], 2, 1), None);
        assert_eq!(interleave(&[], 0, 5), None);
        assert_eq!(interleave(&[0; 3], usize::MAX, 2), None);
    }

    #[test]
    fn preprocessing_is_described_with_the_figures_that_people_write() {
        let described = Preprocessing::from(&Transform {
            size: (224, 192),
            crop_pct: 0.9,
            interpolation: Interpolation::Bicubic,
            mean: Transform::IMAGENET_MEAN,
            std: Transform::IMAGENET_STD,
        });
        assert_eq!(described.size, [224, 192]);
        assert_eq!(described.mean, [0.485, 0.456, 0.406]);
        assert_eq!(described.std, [0.229, 0.224, 0.225]);
        assert_eq!(described.interpolation, "bicubic");
    }
}
