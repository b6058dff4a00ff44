//! The fused form: reads queries, keys and values where the projections left them, copies no block of keys.

use super::bias::{Order, Terms};
use super::kernel::{KEYS, QUERIES, Tile};
use super::pattern::{Pattern, Tiles};
use super::simd::{Computation, Isa, Simd};
use super::view::{Map, Number, View, load};
use crate::threads;
use half::bf16;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Columns between a key that is loaded and one that is asked for.
const AHEAD: i64 = 8;

/// Whether [`attend`] may take these tensors: CPU, f32 or bf16 alike, nothing to differentiate or to trace.
pub fn applies(tensors: &[&Tensor]) -> bool {
    let kind = tensors.first().map(|t| t.kind());
    matches!(kind, Some(Kind::Float | Kind::BFloat16))
        && !crate::inference::tracing()
        && tensors
            .iter()
            .all(|t| t.device() == Device::Cpu && Some(t.kind()) == kind && !t.requires_grad())
}

/// softmax(scale * q k^T + bias) v for each group: q and k [B, H, W, heads, D], v [B, H, W, heads, E], of any strides,
/// to a new [B, H, W, heads * E]. Keys and values may have another height and width than queries.
///
/// # Panics
/// When shapes do not fit together or a listed tile does not exist, as libtorch's operators do.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, pattern: &Pattern) -> Tensor {
    attend_with(Isa::best(), q, k, v, pattern)
}

pub(super) fn attend_with(
    isa: Isa,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    pattern: &Pattern,
) -> Tensor {
    match q.kind() {
        Kind::Float => Problem::<f32>::new(q, k, v, pattern).run(isa, q),
        Kind::BFloat16 => Problem::<bf16>::new(q, k, v, pattern).run(isa, q),
        kind => panic!("fused attention takes f32 and bf16, not {kind:?}"),
    }
}

struct Problem<'a, T> {
    q: Map<'a, T>,
    k: Map<'a, T>,
    v: Map<'a, T>,
    index: Option<View<'a, i64, 3>>,
    terms: Terms<'a>,
    gates: Option<View<'a, f32, 4>>,
    queries: Tiles,
    keys: Tiles,
    scale: f32,
}

/// One tile of queries of one head.
#[derive(Clone, Copy)]
struct Item {
    batch: usize,
    group: usize,
    first: usize,
    head: usize,
}

/// The scratch of one thread.
struct Work {
    tile: Tile,
    /// Queries as they are in the map, [QUERIES, D].
    rows: Vec<f32>,
    /// Numbers of these queries in their group.
    tokens: Vec<usize>,
}

/// Where items write; every token of every head belongs to one item.
struct Output<T>(*mut T);

// SAFETY: items write to disjoint places, and nobody reads before all are done.
unsafe impl<T: Send> Sync for Output<T> {}

/// The work on one item.
struct Step<'a, T> {
    problem: &'a Problem<'a, T>,
    item: Item,
    work: &'a mut Work,
    target: &'a Output<T>,
}

impl<T: Number> Computation for Step<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            self.problem.process::<S>(self.item, self.work, self.target);
        }
    }
}

impl<'a, T: Number> Problem<'a, T> {
    fn new(q: &'a Tensor, k: &'a Tensor, v: &'a Tensor, pattern: &Pattern<'a>) -> Self {
        for t in [q, k, v] {
            assert_eq!(t.kind(), T::KIND, "attention of mixed kinds");
            assert_eq!(t.stride().last(), Some(&1), "channels are not side by side");
        }
        let index = pattern.index.map(|t| {
            assert_eq!(t.kind(), Kind::Int64, "tile numbers are not int64");
            View::new(t)
        });
        let gates = pattern.gates.map(|t| {
            assert_eq!(t.kind(), Kind::Float, "gates are not f32");
            View::new(t)
        });
        let problem = Problem {
            gates,
            q: View::new(q),
            k: View::new(k),
            v: View::new(v),
            index,
            terms: Terms::new(&pattern.bias, pattern.scale),
            queries: pattern.queries,
            keys: pattern.keys,
            scale: pattern.scale as f32,
        };
        problem.check();
        problem
    }

    /// Panics where shapes do not fit together.
    fn check(&self) {
        let (q, k, v) = (self.q.size, self.k.size, self.v.size);
        assert_eq!(k[..4], v[..4], "keys and values differ");
        assert_eq!(
            [q[0], q[3], q[4]],
            [k[0], k[3], k[4]],
            "queries and keys differ"
        );
        let map = [q[1] as i64, q[2] as i64];
        assert!(
            self.queries.partitions(map),
            "query tiles do not partition {map:?}"
        );
        if let Some(gates) = &self.gates {
            assert_eq!(gates.size, [q[0], q[1], q[2], q[3]], "shape of the gates");
        }
        let (groups, tiles) = (self.queries.len(), self.keys.len());
        match &self.index {
            None => assert_eq!(groups, tiles, "groups without a list of tiles"),
            Some(index) => {
                assert_eq!(index.size[..2], [q[0], groups], "lists of tiles");
                for at in self.places(index.size) {
                    let tile = index.data[index.offset(at)];
                    assert!((0..tiles as i64).contains(&tile), "tile {tile} of {tiles}");
                }
            }
        }
        let order = Order {
            queries: self.queries,
            keys: self.keys,
            listed: self.index.is_some(),
        };
        let pairs = [
            q[0],
            groups,
            q[3],
            self.queries.tokens(),
            self.listed() * self.keys.tokens(),
        ];
        self.terms.check(&order, pairs, q[4]);
    }

    fn places(&self, size: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
        let [a, b, c] = size;
        (0..a * b * c).map(move |i| [i / (b * c), i / c % b, i % c])
    }

    /// Key tiles of each group.
    fn listed(&self) -> usize {
        self.index.as_ref().map_or(1, |index| index.size[2])
    }

    fn run(&self, isa: Isa, like: &Tensor) -> Tensor {
        let [batch, height, width, heads, _] = self.q.size;
        let value_dim = self.v.size[4];
        let shape = [batch, height, width, heads * value_dim].map(|n| n as i64);
        let options = (T::KIND, like.device());
        let out = match self.gates {
            None => Tensor::empty(shape, options),
            Some(_) => Tensor::zeros(shape, options),
        };
        let target = Output(out.data_ptr() as *mut T);
        let chunks = self.queries.tokens().div_ceil(QUERIES);
        let item = |i: usize| Item {
            head: i % heads,
            first: i / heads % chunks * QUERIES,
            group: i / heads / chunks % self.queries.len(),
            batch: i / heads / chunks / self.queries.len(),
        };
        let count = batch * self.queries.len() * chunks * heads;
        let work = || Work {
            tile: Tile::new(self.q.size[4], value_dim, self.terms.room(self.keys)),
            rows: vec![0.0; QUERIES * self.q.size[4]],
            tokens: Vec::with_capacity(QUERIES),
        };
        // Heads lie beside each other: what one reads brings the others' along.
        threads::for_each(count, heads, work, |work, i| {
            let step = Step {
                problem: self,
                item: item(i),
                work,
                target: &target,
            };
            // SAFETY: the CPU has the set, as `attend_with`'s callers found.
            unsafe { isa.run(step) }
        });
        out
    }

    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    unsafe fn process<S: Simd>(&self, item: Item, work: &mut Work, target: &Output<T>) {
        self.load_queries(item, work);
        if work.tokens.is_empty() {
            return;
        }
        let tile = &mut work.tile;
        tile.begin();
        tile.keys = 0;
        let own = self.inside(self.keys.token(item.group, 0));
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let width = self.queries.size[1] as usize;
            self.terms.begin::<S>(&work.tokens, width, &own, tile);
        }
        let per_tile = self.keys.tokens();
        for place in 0..self.listed() {
            let corner = self.keys.token(self.listed_tile(item, place), 0);
            let [rows, columns] = self.terms.loaded(self.inside(corner), self.keys.size);
            for i in rows {
                let row = corner[0] + i as i64 * self.keys.dilation[0];
                let k_row = self.k.row(item.batch, item.head, row);
                let v_row = self.v.row(item.batch, item.head, row);
                for j in columns.clone() {
                    let column = corner[1] + j as i64 * self.keys.dilation[1];
                    self.k.prefetch(k_row, column + AHEAD);
                    self.v.prefetch(v_row, column + AHEAD);
                    let (k, v) = (self.k.token(k_row, column), self.v.token(v_row, column));
                    tile.set_key(|to| copy_or_clear(k, to), |to| copy_or_clear(v, to));
                    let key = place * per_tile + i * self.keys.size[1] as usize + j;
                    let pairs = [item.batch, item.group, item.head, key];
                    self.terms.key(pairs, [i, j], &work.tokens, tile);
                    tile.keys += 1;
                    if tile.keys == KEYS {
                        // SAFETY: the caller vouches for the instruction set.
                        unsafe { tile.attend::<S>() };
                        tile.keys = 0;
                    }
                }
            }
        }
        if tile.keys > 0 {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { tile.attend::<S>() };
        }
        self.store(item, work, target);
    }

    /// The number of the `place`-th key tile of the item's group.
    #[inline(always)]
    fn listed_tile(&self, item: Item, place: usize) -> usize {
        match &self.index {
            None => item.group,
            Some(index) => index.data[index.offset([item.batch, item.group, place])] as usize,
        }
    }

    /// The rows and columns of the key tile at `corner` that are on the map.
    #[inline(always)]
    fn inside(&self, corner: [i64; 2]) -> [Range<usize>; 2] {
        [0, 1].map(|i| {
            let (size, step) = (self.keys.size[i], self.keys.dilation[i]);
            let map = self.k.size[1 + i] as i64;
            let to = |place: i64| {
                ((place - corner[i] + step - 1).div_euclid(step)).clamp(0, size) as usize
            };
            to(0)..to(map).max(to(0))
        })
    }

    /// The gate of a token inside of the map.
    #[inline(always)]
    fn gate(&self, item: Item, [row, column]: [i64; 2]) -> f32 {
        let place = [item.batch, row as usize, column as usize, item.head];
        let gate = |gates: &View<f32, 4>| gates.data[gates.offset(place)];
        self.gates.as_ref().map_or(1.0, gate)
    }

    /// Loads the queries that are inside of the map and on, and their numbers in the group.
    #[inline(always)]
    fn load_queries(&self, item: Item, work: &mut Work) {
        let last = self.queries.tokens().min(item.first + QUERIES);
        let dim = work.tile.dim;
        work.tokens.clear();
        for token in item.first..last {
            let at = self.queries.token(item.group, token);
            let row = self.q.row(item.batch, item.head, at[0]);
            if let Some(query) = self.q.token(row, at[1])
                && self.gate(item, at) != 0.0
            {
                load(query, &mut work.rows[work.tokens.len() * dim..][..dim]);
                work.tokens.push(token);
            }
        }
        work.tile.queries = work.tokens.len();
        let scale = self.scale * std::f32::consts::LOG2_E;
        work.tile.set_queries(&work.rows, scale);
    }

    #[inline(always)]
    fn store(&self, item: Item, work: &Work, target: &Output<T>) {
        let [_, height, width, heads, _] = self.q.size;
        let value_dim = self.v.size[4];
        for (i, &token) in work.tokens.iter().enumerate() {
            let [row, column] = self.queries.token(item.group, token);
            let place = (item.batch * height + row as usize) * width + column as usize;
            let start = (place * heads + item.head) * value_dim;
            let (values, weight) = work.tile.output(i);
            let by = self.gate(item, [row, column]) / weight;
            // SAFETY: `load_queries` found (row, column) inside of the map, so these `value_dim` elements are in the
            // output; `check` made sure that no other item has this token of this head.
            let out = unsafe { std::slice::from_raw_parts_mut(target.0.add(start), value_dim) };
            for (out, x) in out.iter_mut().zip(values) {
                *out = T::narrow(x * by);
            }
        }
    }
}

/// A row of the map, or zeros outside of it.
#[inline(always)]
fn copy_or_clear<T: Number>(from: Option<&[T]>, to: &mut [f32]) {
    match from {
        Some(from) => load(from, to),
        None => to.fill(0.0),
    }
}
