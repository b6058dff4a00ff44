//! Arithmetic on rows of scratch.

use crate::grouped_attention::kernel::STRIP;
use crate::grouped_attention::simd::Simd;
use crate::grouped_attention::view::{Number, load};

/// Copies a row divided by max(its norm, 1e-12).
#[inline(always)]
pub(super) fn load_unit<T: Number>(from: &[T], to: &mut [f32]) {
    load(from, to);
    // Sums side by side, which the compiler turns into vectors.
    let mut squares = [0.0f32; 8];
    for part in to.chunks(squares.len()) {
        for (sum, x) in squares.iter_mut().zip(part) {
            *sum += x * x;
        }
    }
    let by = 1.0 / squares.iter().sum::<f32>().sqrt().max(1e-12);
    to.iter_mut().for_each(|x| *x *= by);
}

/// # Safety
/// The CPU has the instruction set `S`.
#[inline(always)]
pub(super) unsafe fn dot<S: Simd>(a: &[f32], b: &[f32]) -> f32 {
    let pairs = a.chunks_exact(S::LANES).zip(b.chunks_exact(S::LANES));
    // SAFETY: the caller vouches for the instruction set; chunks are whole vectors.
    unsafe {
        let mut sum = S::splat(0.0);
        for (a, b) in pairs {
            sum = S::mul_add(S::load(a.as_ptr()), S::load(b.as_ptr()), sum);
        }
        S::sum(sum)
    }
}

/// row * by + the weighted sum of the rows of `values` that begin at the given places.
///
/// # Safety
/// The CPU has the instruction set `S`.
#[inline(always)]
pub(super) unsafe fn mix<S: Simd>(
    row: &mut [f32],
    by: f32,
    values: &[f32],
    weights: &[(usize, f32)],
) {
    for (i, part) in row.chunks_exact_mut(S::LANES).enumerate() {
        // SAFETY: the caller vouches for the instruction set; chunks and slices are whole vectors.
        unsafe {
            let mut sum = S::mul_add(S::load(part.as_ptr()), S::splat(by), S::splat(0.0));
            for &(at, weight) in weights {
                let value = &values[at + i * S::LANES..][..S::LANES];
                sum = S::mul_add(S::splat(weight), S::load(value.as_ptr()), sum);
            }
            S::store(part.as_mut_ptr(), sum);
        }
    }
}

/// Logits [rows, STRIP] to exponentials relative to each column's greatest, and their sums.
///
/// # Safety
/// The CPU has the instruction set `S`.
#[inline(always)]
pub(super) unsafe fn soften<S: Simd>(scores: &mut [f32], vectors: usize, sums: &mut [f32; STRIP]) {
    for lane in (0..vectors).map(|i| i * S::LANES) {
        // SAFETY: the caller vouches for the instruction set; rows are STRIP values, a whole number of vectors.
        unsafe {
            let mut max = S::splat(f32::NEG_INFINITY);
            for row in scores.chunks_exact(STRIP) {
                max = S::max(S::load(row[lane..][..S::LANES].as_ptr()), max);
            }
            let mut sum = S::splat(0.0);
            for row in scores.chunks_exact_mut(STRIP) {
                let place = row[lane..][..S::LANES].as_mut_ptr();
                let weight = S::exp2(S::sub(S::load(place), max));
                S::store(place, weight);
                sum = S::add(sum, weight);
            }
            S::store(sums[lane..][..S::LANES].as_mut_ptr(), sum);
        }
    }
}
