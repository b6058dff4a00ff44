//! The two passes with AVX2, giving the bits of [`super::portable`].
//!
//! A weight w is split into w = 4096 * high + low with 0 <= low < 4096, both of which fit 16 bits, so that one
//! `madd` multiplies sixteen pixels and adds them in pairs; 4096 * (sum of highs) + (sum of lows) is the exact sum,
//! modulo 2^32 at every step and within 32 bits at the end.

use std::arch::x86_64::*;

use super::ROW_ALIGN;
use super::coefficients::{Taps, WEIGHT_BITS};

const LOW_BITS: i32 = 12;
/// Source rows that the horizontal pass takes at once: two to a vector, one in each half.
const ROWS: usize = super::ROW_BLOCK;
const PAIRS: usize = ROWS / 2;
/// Two taps are loaded as 16 bytes, of which 6 are their pixels.
const LOAD: usize = 16;
const _: () = assert!(ROW_ALIGN == size_of::<__m256i>());

/// The 16-bit halves of the weights of two adjacent taps, each pair packed in 32 bits.
#[derive(Clone, Copy)]
struct Pair {
    high: i32,
    low: i32,
}

impl Pair {
    /// Of one or two weights; a missing one is 0.
    fn new(weights: &[i32]) -> Self {
        let first = weights[0];
        let second = weights.get(1).copied().unwrap_or(0);
        let mask = (1 << LOW_BITS) - 1;
        let pack = |a: i32, b: i32| (a & 0xffff) | (b << 16);
        Self {
            high: pack(first >> LOW_BITS, second >> LOW_BITS),
            low: pack(first & mask, second & mask),
        }
    }
}

/// The taps of a horizontal pass laid out for `madd`.
struct Layout {
    /// First byte of the first tap of each output pixel in a row.
    offsets: Vec<usize>,
    /// As many for each output pixel: a loop whose length varies is mispredicted at most of its ends.
    pairs: Vec<Pair>,
    pairs_each: usize,
    /// Bytes from the start of a row that the loads may touch.
    reach: usize,
}

impl Layout {
    fn new(taps: &Taps) -> Self {
        let pairs_each = taps.longest().div_ceil(2);
        let mut layout = Self {
            offsets: Vec::with_capacity(taps.len()),
            pairs: Vec::with_capacity(taps.len() * pairs_each),
            pairs_each,
            reach: 0,
        };
        for index in 0..taps.len() {
            let (start, weights) = taps.at(index);
            let end = layout.pairs.len() + pairs_each;
            layout.pairs.extend(weights.chunks(2).map(Pair::new));
            layout.pairs.resize(end, Pair { high: 0, low: 0 });
            let offset = start * 3;
            layout.reach = layout.reach.max(offset + pairs_each * 2 * 3 + LOAD);
            layout.offsets.push(offset);
        }
        layout
    }
}

/// See [`super::portable::horizontal`].
///
/// `narrow` has whole blocks of `ROWS` rows, and rows have at least one byte to spare after the last pixel.
#[target_feature(enable = "avx2")]
pub(super) fn horizontal(
    source: &[u8],
    source_stride: usize,
    taps: &Taps,
    narrow: &mut [u8],
    stride: usize,
) {
    let layout = Layout::new(taps);
    let rows = source.len() / source_stride;
    let mut padded: [Vec<u8>; ROWS] = Default::default();
    for (block, out) in narrow.chunks_exact_mut(stride * ROWS).enumerate() {
        let first = block * ROWS;
        let last = first + ROWS - 1;
        if last < rows && last * source_stride + layout.reach <= source.len() {
            let inputs = std::array::from_fn(|k| &source[(first + k) * source_stride..]);
            block_of_rows(inputs, &layout, out, stride);
        } else {
            for (k, copy) in padded.iter_mut().enumerate() {
                let row = (first + k).min(rows - 1) * source_stride;
                copy.clear();
                copy.extend_from_slice(&source[row..row + source_stride]);
                copy.resize(layout.reach.max(source_stride), 0);
            }
            let inputs = std::array::from_fn(|k| padded[k].as_slice());
            block_of_rows(inputs, &layout, out, stride);
        }
    }
}

/// The `ROWS` input rows, each at least `layout.reach` bytes, into rows of `out`.
#[target_feature(enable = "avx2")]
fn block_of_rows(inputs: [&[u8]; ROWS], layout: &Layout, out: &mut [u8], stride: usize) {
    assert!(inputs.iter().all(|row| row.len() >= layout.reach));
    assert!(ROWS * stride <= out.len() && layout.offsets.len() * 3 < stride);
    let starts = inputs.map(<[u8]>::as_ptr);
    let pairs = layout.pairs.chunks_exact(layout.pairs_each);
    for (index, (&offset, pairs)) in layout.offsets.iter().zip(pairs).enumerate() {
        // SAFETY: the rows have `reach` bytes, which is past the last load for every output pixel.
        let words = unsafe { pixel_of_rows(&starts, offset, pairs) };
        for (k, word) in words.into_iter().enumerate() {
            // The fourth byte lands on the next pixel's first, which is written after it, or on the spare byte.
            let at = k * stride + index * 3;
            // SAFETY: index * 3 + 4 <= 3 * pixels + 1 <= stride, and ROWS * stride <= out.len(), asserted above.
            unsafe { out.as_mut_ptr().add(at).cast::<u32>().write_unaligned(word) };
        }
    }
}

/// One output pixel of each row: red, green, blue and a byte of no meaning, red lowest.
///
/// # Safety
/// Every row has `offset + 6 * (pairs.len() - 1) + LOAD` bytes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn pixel_of_rows(rows: &[*const u8; ROWS], offset: usize, pairs: &[Pair]) -> [u32; ROWS] {
    // The channels of two pixels as adjacent 16-bit pairs, in each half.
    let spread = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
    ));
    let mut high = [_mm256_setzero_si256(); PAIRS];
    let mut low = [_mm256_set1_epi32(1 << (WEIGHT_BITS - 1)); PAIRS];
    let mut at = offset;
    for pair in pairs {
        let high_weights = _mm256_set1_epi32(pair.high);
        let low_weights = _mm256_set1_epi32(pair.low);
        for k in 0..PAIRS {
            // SAFETY: at + LOAD is within the rows, as the caller has made sure.
            let pixels = unsafe {
                let first = _mm_loadu_si128(rows[k].add(at).cast());
                let second = _mm_loadu_si128(rows[k + PAIRS].add(at).cast());
                _mm256_shuffle_epi8(_mm256_set_m128i(second, first), spread)
            };
            high[k] = _mm256_add_epi32(high[k], _mm256_madd_epi16(pixels, high_weights));
            low[k] = _mm256_add_epi32(low[k], _mm256_madd_epi16(pixels, low_weights));
        }
        at += 6;
    }
    let mut words = [0; ROWS];
    // SAFETY: `words` is 32 bytes.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), to_pixels(high, low)) };
    words
}

/// The pixels of four vectors of sums, in the order in which `pack` interleaves them.
#[target_feature(enable = "avx2")]
#[inline]
fn to_pixels(high: [__m256i; 4], low: [__m256i; 4]) -> __m256i {
    let mut sums = low;
    for k in 0..4 {
        let sum = _mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(high[k]), low[k]);
        sums[k] = _mm256_srai_epi32::<{ WEIGHT_BITS as i32 }>(sum);
    }
    _mm256_packus_epi16(
        _mm256_packs_epi32(sums[0], sums[1]),
        _mm256_packs_epi32(sums[2], sums[3]),
    )
}

/// See [`super::portable::vertical`].
#[target_feature(enable = "avx2")]
pub(super) fn vertical(narrow: &[u8], stride: usize, taps: &Taps, index: usize, out: &mut [u8]) {
    let (start, weights) = taps.at(index);
    let first = (start - taps.sources().start) * stride;
    let rows = &narrow[first..first + weights.len() * stride];
    assert!(out.len() == stride && stride.is_multiple_of(ROW_ALIGN));
    for column in (0..stride).step_by(ROW_ALIGN) {
        // SAFETY: column + 32 <= stride, since stride is a multiple of 32, and there are as many rows as weights.
        let pixels = unsafe { column_of_rows(rows.as_ptr().add(column), stride, weights) };
        // SAFETY: column + 32 <= stride = out.len().
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(column).cast(), pixels) };
    }
}

/// 32 pixels weighted over as many rows as there are weights.
///
/// # Safety
/// 32 bytes are readable at `top` and at each further row, `stride` bytes apart.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn column_of_rows(top: *const u8, stride: usize, weights: &[i32]) -> __m256i {
    let zero = _mm256_setzero_si256();
    let mut high = [zero; 4];
    let mut low = [_mm256_set1_epi32(1 << (WEIGHT_BITS - 1)); 4];
    for (step, two) in weights.chunks(2).enumerate() {
        let weights = Pair::new(two);
        let (upper, lower) = (step * 2, step * 2 + two.len() - 1);
        // SAFETY: both are rows with a weight.
        let (upper, lower) = unsafe {
            (
                _mm256_loadu_si256(top.add(upper * stride).cast()),
                _mm256_loadu_si256(top.add(lower * stride).cast()),
            )
        };
        let first = _mm256_unpacklo_epi8(upper, lower);
        let second = _mm256_unpackhi_epi8(upper, lower);
        let pixels = [
            _mm256_unpacklo_epi8(first, zero),
            _mm256_unpackhi_epi8(first, zero),
            _mm256_unpacklo_epi8(second, zero),
            _mm256_unpackhi_epi8(second, zero),
        ];
        let high_weights = _mm256_set1_epi32(weights.high);
        let low_weights = _mm256_set1_epi32(weights.low);
        for k in 0..4 {
            high[k] = _mm256_add_epi32(high[k], _mm256_madd_epi16(pixels[k], high_weights));
            low[k] = _mm256_add_epi32(low[k], _mm256_madd_epi16(pixels[k], low_weights));
        }
    }
    to_pixels(high, low)
}
