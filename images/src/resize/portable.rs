//! The definition of the two passes, in plain arithmetic.

use super::coefficients::{Taps, WEIGHT_BITS};

const HALF: i32 = 1 << (WEIGHT_BITS - 1);

fn to_pixel(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

pub(super) fn horizontal(
    source: &[u8],
    source_stride: usize,
    taps: &Taps,
    narrow: &mut [u8],
    stride: usize,
) {
    let rows = source.chunks_exact(source_stride);
    for (row, out) in rows.zip(narrow.chunks_exact_mut(stride)) {
        for (index, pixel) in out.chunks_exact_mut(3).take(taps.len()).enumerate() {
            let (start, weights) = taps.at(index);
            let mut sums = [HALF; 3];
            for (from, weight) in row[start * 3..].chunks_exact(3).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(from) {
                    *sum += i32::from(value) * weight;
                }
            }
            pixel.copy_from_slice(&sums.map(to_pixel));
        }
    }
}

pub(super) fn vertical(narrow: &[u8], stride: usize, taps: &Taps, index: usize, out: &mut [u8]) {
    let (start, weights) = taps.at(index);
    let first = (start - taps.sources().start) * stride;
    const LANES: usize = super::ROW_ALIGN;
    for (chunk, pixels) in out.chunks_exact_mut(LANES).enumerate() {
        let mut sums = [HALF; LANES];
        for (row, weight) in narrow[first..].chunks_exact(stride).zip(weights) {
            let from = &row[chunk * LANES..(chunk + 1) * LANES];
            for (sum, &value) in sums.iter_mut().zip(from) {
                *sum += i32::from(value) * weight;
            }
        }
        for (pixel, sum) in pixels.iter_mut().zip(sums) {
            *pixel = to_pixel(sum);
        }
    }
}
