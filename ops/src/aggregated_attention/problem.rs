//! What the kernel reads, through the tensors' strides.

use super::{AggregatedTerms, AggregatedTokens};
use crate::grouped_attention::view::{Number, View};
use tch::{Kind, Tensor};

/// Rows of scratch are padded to whole vectors of the largest set.
const WIDEST: usize = 16;

pub(super) struct Problem<'a, T> {
    pub q: View<'a, T, 4>,
    pub k: View<'a, T, 4>,
    pub v: View<'a, T, 4>,
    pub pooled_k: View<'a, T, 4>,
    pub pooled_v: View<'a, T, 4>,
    pub gates: View<'a, f32, 3>,
    pub embedding: View<'a, f32, 3>,
    pub sharpness: View<'a, f32, 3>,
    pub local_bias: View<'a, f32, 4>,
    pub pooled_bias: View<'a, f32, 3>,
    pub local_tokens: View<'a, f32, 3>,
    pub local_offset: View<'a, f32, 3>,
    pub map: [usize; 2],
    pub side: usize,
}

/// The tokens from `first`, at most a chunk of them, in one head.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub batch: usize,
    pub head: usize,
    pub first: usize,
}

impl<'a, T: Number> Problem<'a, T> {
    pub(super) fn new(
        side: i64,
        tokens: &AggregatedTokens<'a>,
        terms: &AggregatedTerms<'a>,
        gates: &'a Tensor,
    ) -> Self {
        for t in tokens.own.iter().chain(&tokens.pooled) {
            assert_eq!(t.kind(), T::KIND, "attention of mixed kinds");
            assert_eq!(t.stride().last(), Some(&1), "channels are not side by side");
        }
        for t in terms.all().iter().chain([&gates]) {
            assert_eq!(t.kind(), Kind::Float, "terms and gates are f32");
        }
        let problem = Problem {
            q: View::new(tokens.own[0]),
            k: View::new(tokens.own[1]),
            v: View::new(tokens.own[2]),
            pooled_k: View::new(tokens.pooled[0]),
            pooled_v: View::new(tokens.pooled[1]),
            gates: View::new(gates),
            embedding: View::new(terms.embedding),
            sharpness: View::new(terms.sharpness),
            local_bias: View::new(terms.local_bias),
            pooled_bias: View::new(terms.pooled_bias),
            local_tokens: View::new(terms.local_tokens),
            local_offset: View::new(terms.local_offset),
            map: tokens.map.map(|n| n as usize),
            side: side as usize,
        };
        problem.check();
        problem
    }

    /// Panics where shapes do not fit together.
    fn check(&self) {
        let [batch, heads, count, width] = self.q.size;
        let [height, columns] = self.map;
        let (pooled, slots) = (self.pooled(), self.slots());
        assert_eq!(height * columns, count, "tokens of the map");
        assert_eq!([self.k.size, self.v.size], [self.q.size; 2], "keys, values");
        let far = [batch, heads, pooled, width];
        assert_eq!([self.pooled_k.size, self.pooled_v.size], [far; 2], "pooled");
        assert_eq!(self.gates.size, [batch, count, heads], "gates");
        assert_eq!(self.embedding.size, [heads, 1, width], "embedding");
        assert_eq!(self.sharpness.size, [heads, count, 1], "sharpness");
        let near = [heads, height, columns, slots];
        assert_eq!(self.local_bias.size, near, "bias of neighbours");
        assert_eq!(self.pooled_bias.size, [heads, count, pooled], "pooled bias");
        assert_eq!(self.local_tokens.size, [heads, width, slots], "tokens");
        assert_eq!(self.local_offset.size, [heads, 1, slots], "offsets");
    }

    pub(super) fn pooled(&self) -> usize {
        self.pooled_k.size[2]
    }

    pub(super) fn slots(&self) -> usize {
        self.side * self.side
    }

    /// Width of a head, padded.
    pub(super) fn stride(&self) -> usize {
        self.q.size[3].next_multiple_of(WIDEST)
    }

    /// How many tokens before and after its own a chunk may read.
    pub(super) fn reach(&self) -> usize {
        self.side / 2 * (self.map[1] + 1)
    }

    #[inline(always)]
    pub(super) fn gate(&self, item: Item, token: usize) -> f32 {
        self.gates.data[self.gates.offset([item.batch, token, item.head])]
    }

    #[inline(always)]
    pub(super) fn row<'v>(&self, view: &View<'v, T, 4>, item: Item, token: usize) -> &'v [T] {
        let start = view.offset([item.batch, item.head, token, 0]);
        &view.data[start..start + view.size[3]]
    }

    /// Lists the neighbours of a token that the map has: slot and token.
    #[inline(always)]
    pub(super) fn neighbours(&self, token: usize, list: &mut Vec<(usize, usize)>) {
        let ([height, width], half) = (self.map, self.side / 2);
        let (row, column) = (token / width, token % width);
        list.clear();
        for r in row.saturating_sub(half)..(row + half + 1).min(height) {
            for c in column.saturating_sub(half)..(column + half + 1).min(width) {
                let slot = (r + half - row) * self.side + c + half - column;
                list.push((slot, r * width + c));
            }
        }
    }
}
