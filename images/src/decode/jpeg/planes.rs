//! From component planes to full-size samples: libjpeg-turbo's upsampling and colour conversion, for the kinds of JPEG
//! that its Rust port decodes no further than planes.
//!
//! Source: the upsampling and colour equations of libjpeg-turbo's decompressor ("fancy" upsampling is a triangle
//! filter, chroma samples centred between luma samples).

use libjpeg_turbo_rs::ColorSpace;

/// One colour component at its own resolution.
pub(super) struct Plane<'a> {
    pub samples: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Samples in a row that belong to the image.
    pub width: usize,
    /// Rows that belong to the image.
    pub height: usize,
}

impl Plane<'_> {
    fn row(&self, index: usize) -> &[u8] {
        &self.samples[index * self.stride..][..self.width]
    }

    /// The plane enlarged `across` x `down` times, cut to `width` x `height`.
    pub(super) fn upsample(
        &self,
        (across, down): (usize, usize),
        (width, height): (usize, usize),
    ) -> Vec<u8> {
        let mut full = Vec::with_capacity(width * height);
        let smooth = self.width > 2;
        for y in 0..height {
            let near = self.row(y / down);
            let far = self.row(self.neighbour(y, down));
            match (across, down) {
                (2, 1) if smooth => double_row(near, width, &mut full),
                (1, 2) => {
                    let bias = if y % 2 == 0 { 1 } else { 2 };
                    let blend = |(&n, &f): (&u8, &u8)| ((3 * sum(n) + sum(f) + bias) >> 2) as u8;
                    full.extend(near.iter().zip(far).take(width).map(blend));
                }
                (2, 2) if smooth => double_both(near, far, width, &mut full),
                _ => full.extend((0..width).map(|x| near[x / across])),
            }
        }
        full
    }

    /// The row that output row `y` of a doubled plane lies nearest to after its own, at the edges its own.
    fn neighbour(&self, y: usize, down: usize) -> usize {
        let own = y / down;
        if y.is_multiple_of(2) {
            own.saturating_sub(1)
        } else {
            (own + 1).min(self.height - 1)
        }
    }
}

fn sum(value: u8) -> u32 {
    u32::from(value)
}

/// Doubles a row of at least two samples.
fn double_row(row: &[u8], width: usize, full: &mut Vec<u8>) {
    let last = row.len() - 1;
    full.extend((0..width).map(|x| {
        let own = sum(row[x / 2]);
        match (x, x % 2) {
            (0, _) => row[0],
            (x, 0) => ((3 * own + sum(row[x / 2 - 1]) + 1) >> 2) as u8,
            (x, _) if x / 2 == last => row[last],
            (x, _) => ((3 * own + sum(row[x / 2 + 1]) + 2) >> 2) as u8,
        }
    }));
}

/// Doubles the blend of two rows of at least two samples.
fn double_both(near: &[u8], far: &[u8], width: usize, full: &mut Vec<u8>) {
    let column = |x: usize| 3 * sum(near[x]) + sum(far[x]);
    let last = near.len() - 1;
    full.extend((0..width).map(|x| {
        let own = column(x / 2);
        let value = match x % 2 {
            0 if x == 0 => 4 * own + 8,
            0 => 3 * own + column(x / 2 - 1) + 8,
            _ if x / 2 == last => 4 * own + 7,
            _ => 3 * own + column(x / 2 + 1) + 7,
        };
        (value >> 4) as u8
    }));
}

/// Turns samples of `space` into red, green and blue, or into the inks of CMYK, in place.
pub(super) fn convert(samples: &mut [u8], components: usize, space: ColorSpace) {
    let inks = space == ColorSpace::Ycck;
    if !inks && space != ColorSpace::YCbCr {
        return;
    }
    for pixel in samples.chunks_exact_mut(components) {
        let rgb = to_rgb(pixel[0], pixel[1], pixel[2]);
        let inverted = rgb.map(|value| 255 - value);
        pixel[..3].copy_from_slice(if inks { &inverted } else { &rgb });
    }
}

/// JFIF's equations in 16-bit fixed point.
fn to_rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let fixed = |value: f64| (value * 65536.0 + 0.5) as i32;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((fixed(1.402) * cr + HALF) >> 16);
    let green = y + ((-fixed(0.344_14) * cb - fixed(0.714_14) * cr + HALF) >> 16);
    let blue = y + ((fixed(1.772) * cb + HALF) >> 16);
    [red, green, blue].map(|value| value.clamp(0, 255) as u8)
}
