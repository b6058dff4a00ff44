//! The two passes with AVX2, giving the bits of [`super::portable`].
//!
//! A weight w is split into w = 4096 * high + low with 0 <= low < 4096, both of which fit 16 bits, so that one
//! `madd` multiplies sixteen pixels and adds them in pairs; 4096 * (sum of highs) + (sum of lows) is the exact sum,
//! modulo 2^32 at every step and within 32 bits at the end.

use std::arch::x86_64::*;

use super::ROW_ALIGN;
use super::coefficients::{Taps, WEIGHT_BITS};

const LOW_BITS: i32 = 12;
/// Taps that one `madd` of the horizontal pass takes.
const GROUP: usize = 4;
/// Source rows that share the loads of weights in the horizontal pass.
const ROWS: usize = 4;
/// A group is loaded as 16 bytes, of which 12 are its pixels.
const LOAD: usize = 16;
const _: () = assert!(ROW_ALIGN == size_of::<__m256i>());

/// (high, low) of a weight.
fn split(weight: i32) -> (i16, i16) {
    (
        (weight >> LOW_BITS) as i16,
        (weight & ((1 << LOW_BITS) - 1)) as i16,
    )
}

/// Two 16-bit weights, `first` in the lower half.
fn pair(first: i16, second: i16) -> i32 {
    i32::from(first as u16) | (i32::from(second) << 16)
}

/// The high and low weights of four taps, each pair of them repeated for the channels it meets.
struct Group {
    high: __m256i,
    low: __m256i,
}

/// The groups of one output pixel.
struct Span {
    /// First byte of its first tap in a row.
    offset: usize,
    groups: std::ops::Range<usize>,
}

/// The taps of a horizontal pass laid out for `madd`.
struct Layout {
    spans: Vec<Span>,
    groups: Vec<Group>,
    /// Bytes from the start of a row that the loads may touch.
    reach: usize,
}

impl Layout {
    #[target_feature(enable = "avx2")]
    fn new(taps: &Taps) -> Self {
        let mut layout = Self {
            spans: Vec::with_capacity(taps.len()),
            groups: Vec::new(),
            reach: 0,
        };
        for index in 0..taps.len() {
            let (start, weights) = taps.at(index);
            let first = layout.groups.len();
            layout
                .groups
                .extend(weights.chunks(GROUP).map(|four| group(four)));
            let groups = first..layout.groups.len();
            let offset = start * 3;
            let last = offset + (groups.len() - 1) * GROUP * 3;
            layout.reach = layout.reach.max(last + LOAD);
            layout.spans.push(Span { offset, groups });
        }
        layout
    }
}

#[target_feature(enable = "avx2")]
fn group(weights: &[i32]) -> Group {
    let mut four = [(0, 0); GROUP];
    for (slot, &weight) in four.iter_mut().zip(weights) {
        *slot = split(weight);
    }
    let [a, b, c, d] = four;
    let lanes = |first, second| _mm256_set_m128i(_mm_set1_epi32(second), _mm_set1_epi32(first));
    Group {
        high: lanes(pair(a.0, b.0), pair(c.0, d.0)),
        low: lanes(pair(a.1, b.1), pair(c.1, d.1)),
    }
}

/// See [`super::portable::horizontal`].
///
/// `narrow` rows have at least one byte to spare after the last pixel.
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
    for (block, out) in narrow.chunks_mut(stride * ROWS).enumerate() {
        let first = block * ROWS;
        let used = out.len() / stride;
        let last = first + ROWS - 1;
        if last < rows && last * source_stride + layout.reach <= source.len() {
            let inputs = std::array::from_fn(|k| &source[(first + k) * source_stride..]);
            block_of_rows(inputs, &layout, out, stride, used);
        } else {
            for (k, copy) in padded.iter_mut().enumerate() {
                let row = (first + k).min(rows - 1) * source_stride;
                copy.clear();
                copy.extend_from_slice(&source[row..row + source_stride]);
                copy.resize(layout.reach.max(source_stride), 0);
            }
            let inputs = std::array::from_fn(|k| padded[k].as_slice());
            block_of_rows(inputs, &layout, out, stride, used);
        }
    }
}

/// `used` of the `ROWS` input rows, each at least `layout.reach` bytes, into rows of `out`.
#[target_feature(enable = "avx2")]
fn block_of_rows(
    inputs: [&[u8]; ROWS],
    layout: &Layout,
    out: &mut [u8],
    stride: usize,
    used: usize,
) {
    assert!(inputs.iter().all(|row| row.len() >= layout.reach));
    assert!(used <= ROWS && used * stride <= out.len() && layout.spans.len() * 3 < stride);
    // Pixels 0 and 1 of a load in the lower half, 2 and 3 in the upper, their channels as adjacent 16-bit pairs.
    let spread = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 6, -1, 9, -1, 7, -1, 10, -1, 8,
        -1, 11, -1, -1, -1, -1, -1,
    );
    let half = _mm_set1_epi32(1 << (WEIGHT_BITS - 1));
    for (index, span) in layout.spans.iter().enumerate() {
        let mut high = [_mm256_setzero_si256(); ROWS];
        let mut low = [_mm256_setzero_si256(); ROWS];
        for (step, group) in layout.groups[span.groups.clone()].iter().enumerate() {
            let offset = span.offset + step * GROUP * 3;
            for k in 0..ROWS {
                // SAFETY: offset + 16 <= reach <= the row's length, asserted above.
                let pixels = unsafe { _mm_loadu_si128(inputs[k].as_ptr().add(offset).cast()) };
                let pixels = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(pixels), spread);
                high[k] = _mm256_add_epi32(high[k], _mm256_madd_epi16(pixels, group.high));
                low[k] = _mm256_add_epi32(low[k], _mm256_madd_epi16(pixels, group.low));
            }
        }
        let mut sums = [half; ROWS];
        for k in 0..ROWS {
            let both = _mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(high[k]), low[k]);
            let folded = _mm_add_epi32(
                _mm256_castsi256_si128(both),
                _mm256_extracti128_si256::<1>(both),
            );
            sums[k] = _mm_srai_epi32::<{ WEIGHT_BITS as i32 }>(_mm_add_epi32(folded, half));
        }
        let pixels = _mm_packus_epi16(
            _mm_packs_epi32(sums[0], sums[1]),
            _mm_packs_epi32(sums[2], sums[3]),
        );
        let words: [u32; ROWS] = [
            _mm_extract_epi32::<0>(pixels) as u32,
            _mm_extract_epi32::<1>(pixels) as u32,
            _mm_extract_epi32::<2>(pixels) as u32,
            _mm_extract_epi32::<3>(pixels) as u32,
        ];
        for (k, word) in words.iter().enumerate().take(used) {
            // The fourth byte lands on the next pixel's first, which is written after it, or on the spare byte.
            let at = k * stride + index * 3;
            // SAFETY: index * 3 + 4 <= 3 * spans + 1 <= stride, and used * stride <= out.len(), asserted above.
            unsafe {
                out.as_mut_ptr()
                    .add(at)
                    .cast::<u32>()
                    .write_unaligned(*word)
            };
        }
    }
}

/// See [`super::portable::vertical`].
#[target_feature(enable = "avx2")]
pub(super) fn vertical(narrow: &[u8], stride: usize, taps: &Taps, index: usize, out: &mut [u8]) {
    let (start, weights) = taps.at(index);
    let first = (start - taps.sources().start) * stride;
    let rows = &narrow[first..first + weights.len() * stride];
    assert!(out.len() == stride && stride.is_multiple_of(ROW_ALIGN));
    for column in (0..stride).step_by(ROW_ALIGN) {
        let pixels = column_of_rows(rows, stride, weights, column);
        // SAFETY: column + 32 <= stride = out.len(), since stride is a multiple of 32.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(column).cast(), pixels) };
    }
}

/// 32 pixels at `column`, weighted over the rows.
#[target_feature(enable = "avx2")]
#[inline]
fn column_of_rows(rows: &[u8], stride: usize, weights: &[i32], column: usize) -> __m256i {
    assert!(weights.len() * stride <= rows.len() && column + ROW_ALIGN <= stride);
    let load = |row: usize| {
        // SAFETY: row < weights.len() at every call and column + 32 <= stride, so the load ends within rows.
        unsafe { _mm256_loadu_si256(rows.as_ptr().add(row * stride + column).cast()) }
    };
    let zero = _mm256_setzero_si256();
    let mut high = [zero; 4];
    let mut low = [zero; 4];
    for (step, two) in weights.chunks(2).enumerate() {
        let row = step * 2;
        let (a, b) = (split(two[0]), two.get(1).map_or((0, 0), |&w| split(w)));
        let second = if two.len() == 2 { row + 1 } else { row };
        let (upper, lower) = (load(row), load(second));
        let bytes = [
            _mm256_unpacklo_epi8(upper, lower),
            _mm256_unpackhi_epi8(upper, lower),
        ];
        let pairs = [
            _mm256_unpacklo_epi8(bytes[0], zero),
            _mm256_unpackhi_epi8(bytes[0], zero),
            _mm256_unpacklo_epi8(bytes[1], zero),
            _mm256_unpackhi_epi8(bytes[1], zero),
        ];
        let high_weights = _mm256_set1_epi32(pair(a.0, b.0));
        let low_weights = _mm256_set1_epi32(pair(a.1, b.1));
        for k in 0..4 {
            high[k] = _mm256_add_epi32(high[k], _mm256_madd_epi16(pairs[k], high_weights));
            low[k] = _mm256_add_epi32(low[k], _mm256_madd_epi16(pairs[k], low_weights));
        }
    }
    let half = _mm256_set1_epi32(1 << (WEIGHT_BITS - 1));
    let mut sums = [zero; 4];
    for k in 0..4 {
        let both = _mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(high[k]), low[k]);
        sums[k] = _mm256_srai_epi32::<{ WEIGHT_BITS as i32 }>(_mm256_add_epi32(both, half));
    }
    _mm256_packus_epi16(
        _mm256_packs_epi32(sums[0], sums[1]),
        _mm256_packs_epi32(sums[2], sums[3]),
    )
}
