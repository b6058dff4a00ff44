//! What is added to the scores, as the kernel loads it.
//!
//! With relative positions, keys outside of the map are never loaded: they are zero vectors, so that their scores are sums of a
//! row's and a column's value, and the sum of their weights is a product of two short sums.

use super::added::{Added, Lines};
use super::kernel::{KEYS, QUERIES, STRIP, Tile};
use super::pattern::{Bias, Tiles};
use super::simd::Simd;
use super::view::View;
use std::f32::consts::LOG2_E;
use std::ops::Range;
use tch::{Kind, Tensor};

/// [`Bias`] as the kernel reads it.
pub(super) enum Terms<'a> {
    None,
    Pairs(View<'a, f32, 5>),
    /// Tables of rows and columns, [2 lines - 1, D], for queries that have been scaled.
    Relative([Vec<f32>; 2]),
}

/// How queries and keys are numbered.
pub(super) struct Order {
    pub queries: Tiles,
    pub keys: Tiles,
    /// Whether groups see other tiles than their own.
    pub listed: bool,
}

impl<'a> Terms<'a> {
    /// For scores of `scale` times the dot product.
    pub fn new(bias: &Bias<'a>, scale: f64) -> Self {
        match bias {
            Bias::None => Terms::None,
            Bias::Pairs(t) => {
                assert_eq!(t.kind(), Kind::Float, "the bias is not f32");
                Terms::Pairs(View::new(t))
            }
            Bias::Relative(rows, columns) => {
                Terms::Relative([rows, columns].map(|t| numbers(&(*t / scale))))
            }
        }
    }

    /// Panics where shapes do not fit: `pairs` is [B, tiles, heads, queries, keys], `dim` the width of queries.
    pub fn check(&self, order: &Order, pairs: [usize; 5], dim: usize) {
        match self {
            Terms::None => {}
            Terms::Pairs(view) => assert_eq!(view.size, pairs, "shape of the bias"),
            Terms::Relative(tables) => {
                assert!(!order.listed, "positions relative to one tile");
                let (lines, queries) = (order.keys.size, order.queries.size);
                for axis in 0..2 {
                    let wanted = (2 * lines[axis] - 1) as usize * dim;
                    assert_eq!(tables[axis].len(), wanted, "size of a table of positions");
                    assert!(
                        queries[axis] <= lines[axis],
                        "tiles of keys smaller than those of queries"
                    );
                }
            }
        }
    }

    /// Room for it in a tile.
    pub fn room(&self, keys: Tiles) -> Added {
        match self {
            Terms::None => Added::Nothing,
            Terms::Pairs(_) => Added::Pairs(vec![0.0; KEYS * QUERIES]),
            Terms::Relative(_) => Added::Lines(Lines::new(keys.size.map(|n| n as usize))),
        }
    }

    /// The rows and columns of a key tile that are to be loaded, of those `inside` of the map and all that there are.
    #[inline(always)]
    pub fn loaded(&self, inside: [Range<usize>; 2], all: [i64; 2]) -> [Range<usize>; 2] {
        match self {
            Terms::Relative(_) => inside,
            _ => all.map(|n| 0..n as usize),
        }
    }

    /// Prepares the tile for its queries, of these numbers in a tile of `width` columns; what is outside of the map is
    /// counted in.
    ///
    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    pub unsafe fn begin<S: Simd>(
        &self,
        tokens: &[usize],
        width: usize,
        inside: &[Range<usize>; 2],
        tile: &mut Tile,
    ) {
        let Terms::Relative(tables) = self else {
            return;
        };
        let Added::Lines(mut lines) = std::mem::take(&mut tile.added) else {
            return;
        };
        let mut products = std::mem::take(&mut lines.products);
        for (strip, tokens) in tokens.chunks(STRIP).enumerate() {
            for (axis, table) in tables.iter().enumerate() {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { tile.times_queries::<S>(table, strip * STRIP, &mut products) };
                let count = lines.count[axis];
                let mut from = [0; STRIP];
                for ((lane, from), token) in from.iter_mut().enumerate().zip(tokens) {
                    let at = if axis == 0 {
                        token / width
                    } else {
                        token % width
                    };
                    *from = (count - 1 - at) * STRIP + lane;
                }
                let values = &mut lines.values[axis][strip * count * STRIP..][..count * STRIP];
                for (line, values) in values.chunks_exact_mut(STRIP).enumerate() {
                    let products = &products[line * STRIP..];
                    for (value, from) in values.iter_mut().zip(&from[..tokens.len()]) {
                        *value = products[*from];
                    }
                }
            }
        }
        lines.products = products;
        // SAFETY: as above.
        unsafe { tile.count_outside::<S>(&lines, inside) };
        tile.added = Added::Lines(lines);
    }

    /// Loads what is added for the key that comes next: `pairs` is its [batch, tile, head, key], (row, column) its place in
    /// its tile.
    #[inline(always)]
    pub fn key(&self, pairs: [usize; 4], place: [usize; 2], tokens: &[usize], tile: &mut Tile) {
        let key = tile.keys;
        match (self, &mut tile.added) {
            (Terms::Pairs(view), Added::Pairs(values)) => {
                let [batch, group, head, at] = pairs;
                let data = &view.data[view.offset([batch, group, head, 0, at])..];
                for (strip, tokens) in tokens.chunks(STRIP).enumerate() {
                    let to = &mut values[(strip * KEYS + key) * STRIP..][..tokens.len()];
                    copy_scaled(data, view.stride[3], tokens, to);
                }
            }
            (_, Added::Lines(lines)) => lines.places[key] = place,
            _ => {}
        }
    }
}

/// Values of `tokens`, `stride` apart, times log2(e).
#[inline(always)]
fn copy_scaled(data: &[f32], stride: usize, tokens: &[usize], to: &mut [f32]) {
    let (first, last) = (tokens[0], tokens[tokens.len() - 1]);
    if stride == 1 && last - first + 1 == tokens.len() {
        for (to, value) in to.iter_mut().zip(&data[first..=last]) {
            *to = value * LOG2_E;
        }
    } else {
        for (to, token) in to.iter_mut().zip(tokens) {
            *to = data[token * stride] * LOG2_E;
        }
    }
}

/// A small table's numbers.
fn numbers(table: &Tensor) -> Vec<f32> {
    let flat = table.to_kind(Kind::Float).contiguous().view(-1);
    Vec::<f32>::try_from(flat).expect("a flat f32 tensor")
}
