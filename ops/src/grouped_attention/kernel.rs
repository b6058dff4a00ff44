//! Softmax attention of one tile of queries over a stream of keys, in scratch memory that stays in the cache.
//!
//! Scores are held with queries along the vector, so that maxima and sums over keys need no shuffles.

use super::added::Added;
use super::simd::Simd;

/// Queries that share one pass over the keys.
pub(crate) const QUERIES: usize = 256;
/// Queries whose scores are in the first cache at a time.
pub(crate) const STRIP: usize = 32;
/// Keys worked on together.
pub(crate) const KEYS: usize = 96;

/// One tile of queries with its running softmax, and one tile of keys and values.
///
/// Widths are padded to whole vectors of the largest set.
#[derive(Debug, Default)]
pub(crate) struct Tile {
    /// Queries, at most [`QUERIES`].
    pub queries: usize,
    /// Keys in the tile, at most [`KEYS`].
    pub keys: usize,
    /// Width of queries and keys.
    pub dim: usize,
    /// Width of values.
    pub value_dim: usize,
    /// [strips, dim, STRIP], scaled by the softmax's scale times log2(e).
    pub(super) q: Vec<f32>,
    /// [KEYS, dim].
    k: Vec<f32>,
    /// [KEYS, value_stride].
    v: Vec<f32>,
    /// What is added to the scores.
    pub(super) added: Added,
    /// [KEYS, STRIP].
    pub(super) scores: Vec<f32>,
    out: Vec<f32>,
    pub(super) max: Vec<f32>,
    pub(super) sum: Vec<f32>,
    rescale: Vec<f32>,
}

const WIDEST: usize = 16;

impl Tile {
    /// Scratch for heads of width `dim` and values of width `value_dim`.
    pub(super) fn new(dim: usize, value_dim: usize, added: Added) -> Self {
        let stride = value_dim.next_multiple_of(WIDEST);
        Tile {
            dim,
            value_dim,
            q: vec![0.0; dim * QUERIES],
            k: vec![0.0; KEYS * dim],
            v: vec![0.0; KEYS * stride],
            added,
            scores: vec![0.0; KEYS * STRIP],
            out: vec![0.0; QUERIES * stride],
            max: vec![0.0; QUERIES],
            sum: vec![0.0; QUERIES],
            rescale: vec![0.0; QUERIES],
            ..Tile::default()
        }
    }

    /// Distance between the rows of values and of outputs.
    pub(crate) fn value_stride(&self) -> usize {
        self.value_dim.next_multiple_of(WIDEST)
    }

    /// Loads `rows` ([queries, width]) as queries, scaled.
    #[inline(always)]
    pub(super) fn set_queries(&mut self, rows: &[f32], scale: f32) {
        let width = self.dim;
        let padded = self.queries.next_multiple_of(4);
        for first in (0..padded).step_by(4) {
            let four = &rows[first * width..][..4 * width];
            let (low, high) = four.split_at(2 * width);
            let ((a, b), (c, d)) = (low.split_at(width), high.split_at(width));
            let strip = &mut self.q[first / STRIP * STRIP * width..][..STRIP * width];
            for (i, column) in strip.chunks_exact_mut(STRIP).enumerate() {
                let to = &mut column[first % STRIP..][..4];
                to.copy_from_slice(&[a[i] * scale, b[i] * scale, c[i] * scale, d[i] * scale]);
            }
        }
    }

    /// Loads the key and the value that come next.
    #[inline(always)]
    pub(super) fn set_key(&mut self, key: impl FnOnce(&mut [f32]), value: impl FnOnce(&mut [f32])) {
        let stride = self.value_stride();
        key(&mut self.k[self.keys * self.dim..][..self.dim]);
        value(&mut self.v[self.keys * stride..][..self.value_dim]);
    }

    /// Forgets the keys seen so far.
    pub(crate) fn begin(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        let used = self.queries * self.value_stride();
        self.out[..used].fill(0.0);
    }

    /// The attended values of query `i`, not yet divided by their weight, and that weight.
    pub(crate) fn output(&self, i: usize) -> (&[f32], f32) {
        let start = i * self.value_stride();
        (&self.out[start..start + self.value_dim], self.sum[i])
    }

    /// Attends to the keys in the tile.
    ///
    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    pub(super) unsafe fn attend<S: Simd>(&mut self) {
        let stride = self.value_stride();
        let value_vectors = self.value_dim.div_ceil(S::LANES);
        for first in (0..self.queries).step_by(STRIP) {
            let queries = STRIP.min(self.queries - first);
            let vectors = queries.div_ceil(S::LANES);
            // SAFETY: the caller vouches for the instruction set; `multiply` checks its slices.
            unsafe {
                let begun = self.begin_scores::<S>(first, vectors);
                multiply::<S>(
                    [self.keys, vectors, self.dim],
                    Strided::new(&self.k, self.dim, 1),
                    (&self.q[first * self.dim..], STRIP),
                    (&mut self.scores, STRIP),
                    begun,
                );
                for lane in (0..queries).step_by(S::LANES) {
                    self.soften::<S>(first, lane);
                }
                self.rescale_outputs(first, queries);
                multiply::<S>(
                    [queries, value_vectors, self.keys],
                    Strided::new(&self.scores, 1, STRIP),
                    (&self.v, stride),
                    (&mut self.out[first * stride..], stride),
                    true,
                );
            }
        }
    }

    /// Scores of one vector of queries, at `lane` of the strip `first`, to weights; updates their maximum and sum.
    #[inline(always)]
    unsafe fn soften<S: Simd>(&mut self, first: usize, lane: usize) {
        let at = first + lane;
        assert!(lane + S::LANES <= STRIP && at + S::LANES <= QUERIES && self.keys <= KEYS);
        assert!(self.scores.len() == KEYS * STRIP && self.max.len() == QUERIES);
        assert!(self.sum.len() == QUERIES && self.rescale.len() == QUERIES);
        let scores = self.scores.as_mut_ptr();
        // SAFETY: every access is `LANES` values, in rows of STRIP values or in all queries' values, inside the lengths
        // asserted above.
        unsafe {
            let before = S::load(self.max.as_ptr().add(at));
            let mut max = before;
            for j in 0..self.keys {
                max = S::max(S::load(scores.add(j * STRIP + lane)), max);
            }
            let mut sum = S::splat(0.0);
            for j in 0..self.keys {
                let place = scores.add(j * STRIP + lane);
                let weight = S::exp2(S::sub(S::load(place), max));
                S::store(place, weight);
                sum = S::add(sum, weight);
            }
            let rescale = S::exp2(S::sub(before, max));
            let old = S::load(self.sum.as_ptr().add(at));
            S::store(self.sum.as_mut_ptr().add(at), S::mul_add(old, rescale, sum));
            S::store(self.max.as_mut_ptr().add(at), max);
            S::store(self.rescale.as_mut_ptr().add(at), rescale);
        }
    }

    #[inline(always)]
    fn rescale_outputs(&mut self, first: usize, queries: usize) {
        let stride = self.value_stride();
        let rows = self.out[first * stride..].chunks_exact_mut(stride);
        for (row, &by) in rows.zip(&self.rescale[first..first + queries]) {
            if by != 1.0 {
                for x in row {
                    *x *= by;
                }
            }
        }
    }
}

/// A matrix whose element (i, k) is at i * row + k * column.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    data: &'a [f32],
    row: usize,
    column: usize,
}

impl<'a> Strided<'a> {
    pub(crate) fn new(data: &'a [f32], row: usize, column: usize) -> Self {
        Strided { data, row, column }
    }
}

/// C = A B, or C += A B: `[rows, vectors, inner]` with A [rows, inner], B [inner, vectors * LANES] and C beside
/// the distances of their rows.
///
/// # Safety
/// The CPU has the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd>(
    [rows, vectors, inner]: [usize; 3],
    a: Strided,
    (b, b_row): (&[f32], usize),
    (c, c_row): (&mut [f32], usize),
    accumulate: bool,
) {
    if rows == 0 || vectors == 0 || inner == 0 {
        return;
    }
    let width = vectors * S::LANES;
    assert!(a.data.len() > (rows - 1) * a.row + (inner - 1) * a.column);
    assert!(b.len() >= (inner - 1) * b_row + width);
    assert!(c.len() >= (rows - 1) * c_row + width);
    let strides = [a.row, a.column, b_row, c_row];
    let mut i = 0;
    while i < rows {
        let height = match rows - i {
            6.. => 6,
            n => n,
        };
        let mut j = 0;
        while j < vectors {
            let pair = vectors - j >= 2;
            // SAFETY: the block of `height` rows and one or two vectors at (i, j) is inside of what was asserted.
            unsafe {
                let a = a.data.as_ptr().add(i * a.row);
                let b = b.as_ptr().add(j * S::LANES);
                let c = c.as_mut_ptr().add(i * c_row + j * S::LANES);
                match (height, pair) {
                    (6, true) => block::<S, 6, 2>(inner, a, b, c, strides, accumulate),
                    (5, true) => block::<S, 5, 2>(inner, a, b, c, strides, accumulate),
                    (4, true) => block::<S, 4, 2>(inner, a, b, c, strides, accumulate),
                    (3, true) => block::<S, 3, 2>(inner, a, b, c, strides, accumulate),
                    (2, true) => block::<S, 2, 2>(inner, a, b, c, strides, accumulate),
                    (_, true) => block::<S, 1, 2>(inner, a, b, c, strides, accumulate),
                    (6, false) => block::<S, 6, 1>(inner, a, b, c, strides, accumulate),
                    (5, false) => block::<S, 5, 1>(inner, a, b, c, strides, accumulate),
                    (4, false) => block::<S, 4, 1>(inner, a, b, c, strides, accumulate),
                    (3, false) => block::<S, 3, 1>(inner, a, b, c, strides, accumulate),
                    (2, false) => block::<S, 2, 1>(inner, a, b, c, strides, accumulate),
                    (_, false) => block::<S, 1, 1>(inner, a, b, c, strides, accumulate),
                }
            }
            j += 1 + usize::from(pair);
        }
        i += height;
    }
}

/// `M` rows and `N` vectors of a product, in registers. `strides`: of A's rows and columns, B's and C's rows.
///
/// # Safety
/// The CPU has the instruction set `S`, and all elements that the strides reach are there.
#[inline(always)]
unsafe fn block<S: Simd, const M: usize, const N: usize>(
    inner: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    [a_row, a_column, b_row, c_row]: [usize; 4],
    accumulate: bool,
) {
    // SAFETY: the caller vouches for the instruction set and for the extent of A, B and C.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; M];
        if accumulate {
            for (i, row) in sums.iter_mut().enumerate() {
                for (j, sum) in row.iter_mut().enumerate() {
                    *sum = S::load(c.add(i * c_row + j * S::LANES));
                }
            }
        }
        let (mut column, mut b) = (a, b);
        for _ in 0..inner {
            let mut vectors = [S::splat(0.0); N];
            for (j, vector) in vectors.iter_mut().enumerate() {
                *vector = S::load(b.add(j * S::LANES));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let factor = S::splat(*column.add(i * a_row));
                for (j, sum) in row.iter_mut().enumerate() {
                    *sum = S::mul_add(factor, vectors[j], *sum);
                }
            }
            column = column.wrapping_add(a_column);
            b = b.wrapping_add(b_row);
        }
        for (i, row) in sums.iter().enumerate() {
            for (j, sum) in row.iter().enumerate() {
                S::store(c.add(i * c_row + j * S::LANES), *sum);
            }
        }
    }
}
