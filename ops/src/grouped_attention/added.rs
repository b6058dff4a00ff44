//! What the scores of a tile begin with.

use super::kernel::{KEYS, QUERIES, STRIP, Strided, Tile, multiply};
use super::simd::Simd;
use std::ops::Range;

/// What a tile's scores begin with, times log2(e); strips as those of the queries.
#[derive(Debug, Default)]
pub(super) enum Added {
    #[default]
    Nothing,
    /// [strips, KEYS, STRIP].
    Pairs(Vec<f32>),
    Lines(Lines),
}

/// Values of the key's row and of its column, whose sum is added.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// [strips, rows of a key tile, STRIP], and the same of columns.
    pub values: [Vec<f32>; 2],
    /// Rows and columns of a key tile.
    pub count: [usize; 2],
    /// Row and column of each key of the tile, [`KEYS`].
    pub places: Vec<[usize; 2]>,
    /// Scratch of [2 lines - 1, STRIP].
    pub products: Vec<f32>,
}

impl Lines {
    /// For key tiles of `count` rows and columns.
    pub(super) fn new(count: [usize; 2]) -> Self {
        Lines {
            values: count.map(|n| vec![0.0; n * QUERIES]),
            count,
            places: vec![[0; 2]; KEYS],
            products: vec![0.0; 2 * count[0].max(count[1]) * STRIP],
        }
    }
}

impl Tile {
    /// The products of a table [lines, dim] with the strip of queries that begins at `first`: [lines, STRIP].
    ///
    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    pub(super) unsafe fn times_queries<S: Simd>(
        &self,
        table: &[f32],
        first: usize,
        products: &mut [f32],
    ) {
        let vectors = STRIP.min(self.queries - first).div_ceil(S::LANES);
        // SAFETY: the caller vouches for the instruction set; `multiply` checks its slices.
        unsafe {
            multiply::<S>(
                [table.len() / self.dim, vectors, self.dim],
                Strided::new(table, self.dim, 1),
                (&self.q[first * self.dim..], STRIP),
                (products, STRIP),
                false,
            );
        }
    }

    /// Puts what is added to the scores of a strip in their place; false where nothing is.
    ///
    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    pub(super) unsafe fn begin_scores<S: Simd>(&mut self, first: usize, vectors: usize) -> bool {
        let scores = &mut self.scores[..self.keys * STRIP];
        match &self.added {
            Added::Nothing => return false,
            Added::Pairs(pairs) => {
                scores.copy_from_slice(&pairs[first * KEYS..][..self.keys * STRIP]);
            }
            Added::Lines(lines) => {
                let [rows, columns] = [0, 1]
                    .map(|i| &lines.values[i][first * lines.count[i]..][..lines.count[i] * STRIP]);
                let places = &lines.places[..self.keys];
                for (scores, [row, column]) in scores.chunks_exact_mut(STRIP).zip(places) {
                    let (row, column) = (
                        &rows[row * STRIP..][..STRIP],
                        &columns[column * STRIP..][..STRIP],
                    );
                    for lane in (0..vectors * S::LANES).step_by(S::LANES) {
                        assert!(lane + S::LANES <= STRIP);
                        // SAFETY: `LANES` values of a row of STRIP values, just checked.
                        unsafe {
                            let row = S::load(row.as_ptr().add(lane));
                            let column = S::load(column.as_ptr().add(lane));
                            S::store(scores.as_mut_ptr().add(lane), S::add(row, column));
                        }
                    }
                }
            }
        }
        true
    }

    /// Begins each query's softmax with the keys outside of the map, which are zero vectors: rows and columns `inside`
    /// are those of the others.
    ///
    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    pub(super) unsafe fn count_outside<S: Simd>(
        &mut self,
        lines: &Lines,
        [rows, columns]: &[Range<usize>; 2],
    ) {
        let [height, width] = lines.count;
        if (rows.clone(), columns.clone()) == (0..height, 0..width) {
            return;
        }
        for at in (0..self.queries).step_by(S::LANES) {
            let row = |parts| Part {
                lines,
                axis: 0,
                parts,
                at,
            };
            let column = |parts| Part {
                lines,
                axis: 1,
                parts,
                at,
            };
            // SAFETY: the caller vouches for the instruction set; slices are checked to have `LANES` values.
            unsafe {
                let (above, above_sum) = {
                    let (row, rows) = row([0..rows.start, rows.end..height]).weight::<S>();
                    let (column, columns) = column([0..width, 0..0]).weight::<S>();
                    (S::add(row, column), S::mul(rows, columns))
                };
                let (beside, beside_sum) = {
                    let (row, rows) = row([rows.clone(), 0..0]).weight::<S>();
                    let (column, columns) =
                        column([0..columns.start, columns.end..width]).weight::<S>();
                    (S::add(row, column), S::mul(rows, columns))
                };
                let max = S::max(above, beside);
                let sum = S::mul(above_sum, S::exp2(S::sub(above, max)));
                let sum = S::mul_add(beside_sum, S::exp2(S::sub(beside, max)), sum);
                S::store(self.max[at..at + S::LANES].as_mut_ptr(), max);
                S::store(self.sum[at..at + S::LANES].as_mut_ptr(), sum);
            }
        }
    }
}

/// Some rows or columns, for the queries from `at` on.
struct Part<'a> {
    lines: &'a Lines,
    axis: usize,
    parts: [Range<usize>; 2],
    at: usize,
}

impl Part<'_> {
    /// Their greatest value, and the sum of their weights relative to it; minus infinity and 0 where there are none.
    ///
    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    unsafe fn weight<S: Simd>(&self) -> (S::Vector, S::Vector) {
        let count = self.lines.count[self.axis];
        let strip = &self.lines.values[self.axis][self.at / STRIP * count * STRIP..];
        // SAFETY: the caller vouches for the instruction set; slices are checked to have `LANES` values.
        unsafe {
            let mut max = S::splat(f32::NEG_INFINITY);
            for line in self.parts.iter().cloned().flatten() {
                max = S::max(S::load(self.value::<S>(strip, line)), max);
            }
            let mut sum = S::splat(0.0);
            for line in self.parts.iter().cloned().flatten() {
                let value = S::load(self.value::<S>(strip, line));
                sum = S::add(sum, S::exp2(S::sub(value, max)));
            }
            (max, sum)
        }
    }

    #[inline(always)]
    fn value<S: Simd>(&self, strip: &[f32], line: usize) -> *const f32 {
        strip[line * STRIP + self.at % STRIP..][..S::LANES].as_ptr()
    }
}
