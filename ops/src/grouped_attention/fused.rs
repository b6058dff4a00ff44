//! The fused form: reads queries, keys and values where the projections left them, copies no block of keys.

use super::kernel::{Isa, KEYS, QUERIES, Tile};
use super::simd::{self, Simd};
use crate::{Regions, threads};
use half::bf16;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// A grid of equal tiles of tokens on a map; tiles may reach over the map's border, and may overlap.
///
/// Token (i, j) of tile (r, c) is at `origin + (r, c) * step + (i, j) * dilation`. Tiles and their tokens are numbered
/// row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    /// Tiles along height and width.
    pub count: [i64; 2],
    /// Tokens of a tile along height and width.
    pub size: [i64; 2],
    /// Where the first tile begins.
    pub origin: [i64; 2],
    /// From a tile to the next.
    pub step: [i64; 2],
    /// From a token to the next.
    pub dilation: [i64; 2],
}

impl From<Regions> for Tiles {
    fn from(regions: Regions) -> Self {
        Tiles {
            count: regions.count,
            size: regions.size,
            origin: [0, 0],
            step: regions.size,
            dilation: [1, 1],
        }
    }
}

impl Tiles {
    /// Each tile grown by `halo` tokens on every side.
    pub fn with_halo(self, halo: i64) -> Self {
        Tiles {
            size: self.size.map(|n| n + 2 * halo),
            origin: self.origin.map(|n| n - halo),
            ..self
        }
    }

    /// Tiles of `size` tokens spread evenly over the `map` (the grid attention of MaxViT).
    pub fn spread(map: [i64; 2], size: [i64; 2]) -> Self {
        let count = [0, 1].map(|i| (map[i] + size[i] - 1) / size[i]);
        Tiles {
            count,
            size,
            origin: [0, 0],
            step: [1, 1],
            dilation: count,
        }
    }

    /// Row and column of a token.
    fn token(&self, tile: usize, token: usize) -> [i64; 2] {
        let (tile, token) = (tile as i64, token as i64);
        let tile = [tile / self.count[1], tile % self.count[1]];
        let token = [token / self.size[1], token % self.size[1]];
        [0, 1].map(|i| self.origin[i] + tile[i] * self.step[i] + token[i] * self.dilation[i])
    }

    fn len(&self) -> usize {
        (self.count[0] * self.count[1]) as usize
    }

    fn tokens(&self) -> usize {
        (self.size[0] * self.size[1]) as usize
    }

    /// Whether every token of the map is in exactly one tile.
    fn partitions(&self, map: [i64; 2]) -> bool {
        (0..2).all(|i| {
            let apart = self.dilation[i] == 1 && self.step[i] == self.size[i];
            let spread = self.step[i] == 1 && self.dilation[i] == self.count[i];
            self.origin[i] == 0
                && (apart || spread)
                && self.count[i] > 0
                && self.count[i] * self.size[i] >= map[i]
        })
    }
}

/// What is added to the scores; f32 tensors of any strides (fastest when queries are side by side in memory).
#[derive(Debug, Clone, Copy)]
pub enum Bias<'a> {
    /// Nothing.
    None,
    /// One value for each pair: [B, tiles, heads, queries, keys], expanded where it does not vary.
    Pairs(&'a Tensor),
    /// rows[.., key's row] + columns[.., key's column]: [B, tiles, heads, queries, height or width of a key tile].
    Axes(&'a Tensor, &'a Tensor),
}

/// Which keys each query sees, and how scores are made.
#[derive(Debug, Clone, Copy)]
pub struct Pattern<'a> {
    /// Groups of queries: each token of the map in one.
    pub queries: Tiles,
    /// Tiles of keys. Tokens outside of the map are zero vectors, and keep their share of the softmax.
    pub keys: Tiles,
    /// The numbers of the key tiles of each group, [B, groups, K] (int64); without it group i sees tile i.
    pub index: Option<&'a Tensor>,
    /// Factor of the dot products.
    pub scale: f64,
    /// What is added to them.
    pub bias: Bias<'a>,
}

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
    attend_with(Isa::available()[0], q, k, v, pattern)
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

/// A number format of activations.
trait Number: Copy + Send + Sync {
    const KIND: Kind;
    fn widen(self) -> f32;
    fn narrow(x: f32) -> Self;
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> f32 {
        x
    }
}

impl Number for bf16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
}

/// Copies a row; whole vectors at a time, because rows are too short for a call of memcpy.
#[inline(always)]
fn load<T: Number>(from: &[T], to: &mut [f32]) {
    const STEP: usize = 16;
    let mut steps = from.chunks_exact(STEP).zip(to.chunks_exact_mut(STEP));
    for (from, to) in &mut steps {
        let from: &[T; STEP] = from.try_into().expect("a whole step");
        let to: &mut [f32; STEP] = to.try_into().expect("a whole step");
        *to = from.map(T::widen);
    }
    let done = from.len() / STEP * STEP;
    for (from, to) in from[done..].iter().zip(&mut to[done..]) {
        *to = from.widen();
    }
}

/// The memory of a tensor of rank `N`, kept alive by `tensor`.
struct View<'a, T, const N: usize> {
    data: &'a [T],
    size: [usize; N],
    stride: [usize; N],
}

impl<'a, T, const N: usize> View<'a, T, N> {
    /// The kind must have been checked to be T's.
    fn new(t: &'a Tensor) -> Self {
        assert_eq!(t.device(), Device::Cpu);
        let to_usize = |v: Vec<i64>| -> [usize; N] {
            let v: Vec<usize> = v.into_iter().map(|n| n as usize).collect();
            v.try_into()
                .unwrap_or_else(|_| panic!("attention takes rank {N}, not {:?}", t.size()))
        };
        let (size, stride) = (to_usize(t.size()), to_usize(t.stride()));
        let extent = if size.contains(&0) {
            0
        } else {
            1 + (0..N).map(|i| (size[i] - 1) * stride[i]).sum::<usize>()
        };
        let data = if extent == 0 {
            &[][..]
        } else {
            // SAFETY: the tensor lives as long as the view, holds T, and its sizes and (non-negative) strides reach
            // exactly `extent` elements from its data pointer; nobody writes to it meanwhile.
            unsafe { std::slice::from_raw_parts(t.data_ptr() as *const T, extent) }
        };
        View { data, size, stride }
    }

    fn offset(&self, at: [usize; N]) -> usize {
        (0..N).map(|i| at[i] * self.stride[i]).sum()
    }
}

/// Queries, keys or values: [B, H, W, heads, D] with the channels side by side.
type Map<'a, T> = View<'a, T, 5>;

impl<T: Number> Map<'_, T> {
    /// Where the columns of a row begin in memory, for one head; `None` outside of the map.
    #[inline(always)]
    fn row(&self, batch: usize, head: usize, row: i64) -> Option<usize> {
        let row = usize::try_from(row).ok().filter(|&r| r < self.size[1])?;
        Some(self.offset([batch, row, 0, head, 0]))
    }

    /// A head's vector at a column of a row, `None` outside of the map.
    #[inline(always)]
    fn token(&self, row: Option<usize>, column: i64) -> Option<&[T]> {
        let column = usize::try_from(column).ok().filter(|&c| c < self.size[2])?;
        let start = row? + column * self.stride[2];
        Some(&self.data[start..start + self.size[4]])
    }
}

/// One view of the bias, and what selects its last axis.
struct Term<'a> {
    view: View<'a, f32, 5>,
    axis: Axis,
}

#[derive(Clone, Copy)]
enum Axis {
    Key,
    Row,
    Column,
}

struct Problem<'a, T> {
    q: Map<'a, T>,
    k: Map<'a, T>,
    v: Map<'a, T>,
    index: Option<View<'a, i64, 3>>,
    terms: Vec<Term<'a>>,
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

impl<'a, T: Number> Problem<'a, T> {
    fn new(q: &'a Tensor, k: &'a Tensor, v: &'a Tensor, pattern: &Pattern<'a>) -> Self {
        for t in [q, k, v] {
            assert_eq!(t.kind(), T::KIND, "attention of mixed kinds");
            assert_eq!(t.stride().last(), Some(&1), "channels are not side by side");
        }
        let terms = match pattern.bias {
            Bias::None => Vec::new(),
            Bias::Pairs(t) => vec![(t, Axis::Key)],
            Bias::Axes(rows, columns) => vec![(rows, Axis::Row), (columns, Axis::Column)],
        };
        let term = |(t, axis): (&'a Tensor, Axis)| {
            assert_eq!(t.kind(), Kind::Float, "the bias is not f32");
            Term {
                view: View::new(t),
                axis,
            }
        };
        let index = pattern.index.map(|t| {
            assert_eq!(t.kind(), Kind::Int64, "tile numbers are not int64");
            View::new(t)
        });
        let problem = Problem {
            q: View::new(q),
            k: View::new(k),
            v: View::new(v),
            index,
            terms: terms.into_iter().map(term).collect(),
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
        let listed = self.listed();
        for Term { view, axis } in &self.terms {
            let last = match axis {
                Axis::Key => listed * self.keys.tokens(),
                Axis::Row => self.keys.size[0] as usize,
                Axis::Column => self.keys.size[1] as usize,
            };
            let wanted = [q[0], groups, q[3], self.queries.tokens(), last];
            assert_eq!(view.size, wanted, "shape of the bias");
        }
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
        let out = Tensor::empty(shape, (T::KIND, like.device()));
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
            tile: Tile::new(self.q.size[4], value_dim, !self.terms.is_empty()),
            rows: vec![0.0; QUERIES * self.q.size[4]],
            tokens: Vec::with_capacity(QUERIES),
        };
        threads::install(|| {
            (0..count)
                .into_par_iter()
                .with_min_len(heads)
                .for_each_init(work, |work, i| {
                    self.process_with(isa, item(i), work, &target)
                });
        });
        out
    }

    /// Works on one item with the instruction set `isa`, which comes from [`Isa::available`].
    fn process_with(&self, isa: Isa, item: Item, work: &mut Work, target: &Output<T>) {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        fn avx512<T: Number>(p: &Problem<T>, item: Item, work: &mut Work, target: &Output<T>) {
            // SAFETY: this function has the features.
            unsafe { p.process::<simd::Avx512>(item, work, target) }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2<T: Number>(p: &Problem<T>, item: Item, work: &mut Work, target: &Output<T>) {
            // SAFETY: this function has the features.
            unsafe { p.process::<simd::Avx2>(item, work, target) }
        }

        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists the set only after detecting it.
            Isa::Avx512 => unsafe { avx512(self, item, work, target) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2(self, item, work, target) },
            // SAFETY: plain Rust.
            Isa::Portable => unsafe { self.process::<simd::Portable>(item, work, target) },
        }
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
        let per_tile = self.keys.tokens();
        for place in 0..self.listed() {
            let corner = self.keys.token(self.listed_tile(item, place), 0);
            let mut key = place * per_tile;
            for i in 0..self.keys.size[0] {
                let row = corner[0] + i * self.keys.dilation[0];
                let k_row = self.k.row(item.batch, item.head, row);
                let v_row = self.v.row(item.batch, item.head, row);
                for j in 0..self.keys.size[1] {
                    let column = corner[1] + j * self.keys.dilation[1];
                    let (k, v) = (self.k.token(k_row, column), self.v.token(v_row, column));
                    tile.set_key(|to| copy_or_clear(k, to), |to| copy_or_clear(v, to));
                    self.load_bias(item, key, &work.tokens, tile);
                    key += 1;
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

    /// Loads the queries that are inside of the map, and their numbers in the group.
    #[inline(always)]
    fn load_queries(&self, item: Item, work: &mut Work) {
        let last = self.queries.tokens().min(item.first + QUERIES);
        let dim = work.tile.dim;
        work.tokens.clear();
        for token in item.first..last {
            let [row, column] = self.queries.token(item.group, token);
            let row = self.q.row(item.batch, item.head, row);
            if let Some(query) = self.q.token(row, column) {
                load(query, &mut work.rows[work.tokens.len() * dim..][..dim]);
                work.tokens.push(token);
            }
        }
        work.tile.queries = work.tokens.len();
        let scale = self.scale * std::f32::consts::LOG2_E;
        work.tile.set_queries(&work.rows, scale);
    }

    /// Sums the bias of the `key`-th key for the queries `tokens`.
    #[inline(always)]
    fn load_bias(&self, item: Item, key: usize, tokens: &[usize], tile: &mut Tile) {
        if self.terms.is_empty() {
            return;
        }
        let bias = &mut tile.bias[tile.keys * QUERIES..][..tokens.len()];
        bias.fill(0.0);
        let columns = self.keys.size[1] as usize;
        let inside = key % self.keys.tokens();
        for Term { view, axis } in &self.terms {
            let last = match axis {
                Axis::Key => key,
                Axis::Row => inside / columns,
                Axis::Column => inside % columns,
            };
            let start = view.offset([item.batch, item.group, item.head, 0, last]);
            for (sum, &token) in bias.iter_mut().zip(tokens) {
                *sum += view.data[start + token * view.stride[3]];
            }
        }
        for b in bias {
            *b *= std::f32::consts::LOG2_E;
        }
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
            let by = 1.0 / weight;
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
