//! The evaluation transform of timm and torchvision: resize, centre crop, scale to floats, normalise.

use crate::Rgb;
use crate::resize::{Interpolation, Target, resample};

/// How an image becomes a model's input: resize the shorter side, cut the centre, normalise.
///
/// Source: `timm.data.create_transform(..., is_training=False)`, which for a square size is torchvision's
/// `Resize(floor(size / crop_pct)), CenterCrop(size), ToTensor(), Normalize(mean, std)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// Height and width of the result, in pixels.
    pub size: (usize, usize),
    /// Share of the resized shorter side that the crop keeps, above 0: 0.875, 0.9, 1.0 ...
    pub crop_pct: f64,
    /// The resampling filter.
    pub interpolation: Interpolation,
    /// Mean of each channel, of values from 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, of values from 0 to 1.
    pub std: [f32; 3],
}

impl Transform {
    /// Mean of ImageNet's channels, as timm and torchvision state it.
    pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    /// Standard deviation of ImageNet's channels, as timm and torchvision state it.
    pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

    /// Width and height of `image` after the resize and before the crop.
    pub fn resized(&self, width: usize, height: usize) -> (usize, usize) {
        // Bounded, so that a share near 0 cannot overflow a product of sides.
        let wanted = |side: usize| {
            let resized = (side as f64 / self.crop_pct).floor();
            resized.clamp(1.0, f64::from(1 << 24))
        };
        let (tall, wide) = (wanted(self.size.0), wanted(self.size.1));
        if tall == wide {
            shorter_side_to(tall as usize, width, height)
        } else {
            let ratio = (height as f64 / tall).min(width as f64 / wide);
            let scaled = |side: usize| ((side as f64 / ratio).round_ties_even() as usize).max(1);
            (scaled(width), scaled(height))
        }
    }

    /// The pixels after resize and centre crop, `size` of them: those that Pillow gives.
    ///
    /// Where the resized image is smaller than the crop, black is around it, as torchvision pads it.
    pub fn crop(&self, image: &Rgb) -> Rgb {
        let (height, width) = self.size;
        let mut pixels = vec![0; width * height * 3];
        self.rows(image, |row, column, values| {
            let start = (row * width + column) * 3;
            pixels[start..start + values.len()].copy_from_slice(values);
        });
        Rgb {
            width,
            height,
            pixels,
        }
    }

    /// The normalised model input, `[3, height, width]` float32, into `out`.
    ///
    /// Each value is `(u8 / 255 - mean) / std`, every step rounded to float32 as torch rounds it.
    ///
    /// # Panics
    /// If `out` is not `3 * height * width` long.
    pub fn write(&self, image: &Rgb, out: &mut [f32]) {
        let (height, width) = self.size;
        let plane = height * width;
        assert_eq!(
            out.len(),
            3 * plane,
            "the output holds 3 x {height} x {width}"
        );
        let tables = self.tables();
        for (channel, values) in out.chunks_exact_mut(plane.max(1)).enumerate() {
            values.fill(tables[channel][0]);
        }
        self.rows(image, |row, column, pixels| {
            let start = row * width + column;
            for (channel, table) in tables.iter().enumerate() {
                let values = &mut out[channel * plane + start..];
                for (value, pixel) in values.iter_mut().zip(pixels.chunks_exact(3)) {
                    *value = table[usize::from(pixel[channel])];
                }
            }
        });
    }

    /// Hands over each row of the crop that the image reaches: row, first column, pixels.
    fn rows(&self, image: &Rgb, mut take: impl FnMut(usize, usize, &[u8])) {
        let size = self.resized(image.width, image.height);
        let across = Window::centre(size.0, self.size.1);
        let down = Window::centre(size.1, self.size.0);
        let target = Target {
            size,
            columns: across.offset..across.offset + across.length,
            rows: down.offset..down.offset + down.length,
        };
        let mut row = down.padding;
        resample(image, &target, self.interpolation, |pixels| {
            take(row, across.padding, pixels);
            row += 1;
        });
    }

    /// The normalised value of each pixel value, for each channel.
    fn tables(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|channel| {
            std::array::from_fn(|value| {
                (value as f32 / 255.0 - self.mean[channel]) / self.std[channel]
            })
        })
    }
}

/// torchvision's `Resize(side)`: the longer side is truncated, not rounded.
fn shorter_side_to(side: usize, width: usize, height: usize) -> (usize, usize) {
    let longer = |long: usize, short: usize| (side * long).checked_div(short).unwrap_or(0);
    if width <= height {
        (side, longer(height, width))
    } else {
        (longer(width, height), side)
    }
}

/// One axis of torchvision's `center_crop`.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    /// First resized pixel in the crop.
    offset: usize,
    /// Resized pixels in the crop.
    length: usize,
    /// Black pixels before them.
    padding: usize,
}

impl Window {
    fn centre(resized: usize, crop: usize) -> Self {
        if resized < crop {
            return Self {
                offset: 0,
                length: resized,
                padding: (crop - resized) / 2,
            };
        }
        let half = (resized - crop) as f64 / 2.0;
        Self {
            offset: half.round_ties_even() as usize,
            length: crop,
            padding: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(size: (usize, usize), crop_pct: f64) -> Transform {
        Transform {
            size,
            crop_pct,
            interpolation: Interpolation::Bicubic,
            mean: Transform::IMAGENET_MEAN,
            std: Transform::IMAGENET_STD,
        }
    }

    #[test]
    fn half_pixels_round_to_even() {
        assert_eq!(Window::centre(303, 288).offset, 8);
        assert_eq!(Window::centre(301, 288).offset, 6);
    }

    #[test]
    fn the_longer_side_is_truncated() {
        assert_eq!(transform((224, 224), 0.875).resized(500, 375), (341, 256));
        assert_eq!(transform((224, 224), 0.9).resized(375, 500), (248, 330));
    }

    /// Figures from timm 1.0.31's `ResizeKeepRatio`, which rounds where torchvision truncates.
    #[test]
    fn an_oblong_size_is_covered() {
        assert_eq!(transform((256, 128), 1.0).resized(300, 401), (192, 256));
        assert_eq!(transform((160, 320), 0.9).resized(500, 375), (355, 266));
    }

    #[test]
    fn no_share_overflows() {
        for crop_pct in [0.0, -1.0, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY] {
            let (width, height) = transform((224, 224), crop_pct).resized(65_000, 1);
            assert!(width >= 1 && height >= 1, "{crop_pct}");
        }
    }

    #[test]
    fn a_small_image_is_padded_with_black() {
        let image = Rgb {
            width: 4,
            height: 4,
            pixels: vec![255; 48],
        };
        let wider = transform((5, 5), 2.0);
        assert_eq!(wider.resized(4, 4), (2, 2));
        let crop = wider.crop(&image);
        let lit: Vec<usize> = (0..25).filter(|i| crop.pixels[i * 3] == 255).collect();
        assert_eq!(lit, [6, 7, 11, 12]);
        let mut floats = vec![0.0; 75];
        wider.write(&image, &mut floats);
        assert_eq!(floats[0], (0.0 - 0.485) / 0.229);
        assert_eq!(floats[6], (1.0 - 0.485) / 0.229);
    }
}
