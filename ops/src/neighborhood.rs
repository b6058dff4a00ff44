//! Neighbourhood windows: every query of a map sees the keys around it.
//!
//! One definition of which keys those are, for two borders: NATTEN's, where a window at the edge is shifted inside
//! (Hassani et al., 2023; arXiv 2204.07143; the dynamic kernels of OverLoCK), and that of sliding windows whose outer keys
//! do not exist (TransNeXt). A dilated neighbourhood is the same on each of the map's residue classes.
//!
//! Nothing here copies keys or values kernel^2 times. Shifted windows: a tile of queries shares the rectangle that its
//! windows cover (the whole map where that is small); products run over rectangles, and a constant index says which of
//! a rectangle's keys belong to which query. So a query costs `span^2` products, not kernel^2: 196 for a 13 x 13
//! window of a 14 x 14 map (claimed: 169), 400 in tiles of larger maps. Cut windows: one strided view of the
//! padded map for each of the kernel's offsets, and exactly kernel^2 products.
//!
//! [`Neighborhood::attend`] has a kernel for shifted windows: exactly kernel^2 products, no map of weights, no index.

use crate::grouped_attention::{applies, simd::Isa};
use crate::{Derived, PerMap, Regions, crop, taps, work};
use tch::{Device, Kind, Tensor};

mod fused;

/// Queries along a side of a tile, where a map is tiled.
const TILE: i64 = 8;

/// What happens to a window that would reach over the edge of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Border {
    /// It is moved inside: every query sees equally many keys. The map must not be smaller than the window.
    Shifted,
    /// Its keys outside do not exist; their slots stay, to be masked by [`Neighborhood::inside`].
    Cut,
}

/// The windows of one kernel size. Slot a * width + b of a query's window is row a, column b of the window.
///
/// Tensors are maps with heads: queries [B, G, H, W, D], keys and values alike, weights [B, G, H, W, slots].
#[derive(Debug)]
pub struct Neighborhood {
    kernel: [i64; 2],
    border: Border,
    placements: Option<PerMap<Derived>>,
}

/// Where the windows of one side of a map lie.
#[derive(Debug, Clone, Copy)]
struct Side {
    length: i64,
    kernel: i64,
    /// Queries of a tile.
    tile: i64,
    /// Keys of the rectangle that a tile's windows cover.
    span: i64,
}

impl Side {
    fn new(length: i64, kernel: i64) -> Self {
        let tiles = match length < kernel + 2 * TILE {
            true => 1,
            false => (length + TILE - 1) / TILE,
        };
        let tile = (length + tiles - 1) / tiles;
        Side {
            length,
            kernel,
            tile,
            span: (tile + kernel - 1).min(length),
        }
    }

    fn tiles(&self) -> i64 {
        (self.length + self.tile - 1) / self.tile
    }

    /// The definition: the first key of each query's window. Queries beyond the map count as its last.
    fn first_keys(&self, queries: &Tensor) -> Tensor {
        (queries - self.kernel / 2).clamp(0, self.length - self.kernel)
    }

    /// The first key of each tile's rectangle, [tiles].
    fn first_of_tiles(&self, device: Device) -> Tensor {
        let first_queries = range(self.tiles(), device) * self.tile;
        (first_queries - self.kernel / 2).clamp(0, self.length - self.span)
    }

    /// The keys of all rectangles, [tiles * span].
    fn keys(&self, device: Device) -> Tensor {
        let first = self.first_of_tiles(device).unsqueeze(1);
        (first + range(self.span, device)).flatten(0, 1)
    }

    /// The position in its tile's rectangle of each slot of a query, [tiles, tile, kernel].
    fn slots(&self, device: Device) -> Tensor {
        let queries = range(self.tiles() * self.tile, device).unflatten(0, [-1, self.tile]);
        let first = self.first_keys(&queries) - self.first_of_tiles(device).unsqueeze(1);
        first.unsqueeze(2) + range(self.kernel, device)
    }

    /// Entry of a table [2 kernel - 1] of relative positions, key minus query, for each slot: [length * kernel].
    fn relative(&self, device: Device) -> Tensor {
        let queries = range(self.length, device);
        let first = self.first_keys(&queries) - queries + (self.kernel - 1);
        (first.unsqueeze(1) + range(self.kernel, device)).flatten(0, 1)
    }
}

fn range(n: i64, device: Device) -> Tensor {
    Tensor::arange(n, (Kind::Int64, device))
}

impl Neighborhood {
    /// Windows of `kernel` (height, width); those that are [`Border::Cut`] have odd sides and their query in the middle.
    pub fn new(kernel: [i64; 2], border: Border) -> Self {
        Neighborhood {
            kernel,
            border,
            placements: None,
        }
    }

    /// Keys of a window.
    pub fn slots(&self) -> i64 {
        self.kernel[0] * self.kernel[1]
    }

    /// Queries times the keys they see: [B, G, H, W, D] twice to [B, G, H, W, slots].
    ///
    /// Where a cut window has no key the product is 0.
    pub fn scores(&self, q: &Tensor, k: &Tensor) -> Tensor {
        if self.border == Border::Cut {
            let outputs = q.numel() as i64 / q.size()[4] * self.slots();
            work::elementwise(q, k, q.numel() as i64 * self.slots(), outputs);
            let products: Vec<Tensor> = self
                .offsets(k)
                .map(|key| (q * key).sum_dim_intlist(-1, false, None::<Kind>))
                .collect();
            return Tensor::stack(&products, -1);
        }
        let (map, sides) = self.sides(q);
        let (queries, keys) = (tiles_of(q, sides), rectangles_of(k, sides));
        let scores = work::matmul(&queries, &keys.transpose(-2, -1));
        if self.sees_all(sides) {
            return untiled(&scores, sides, map, q);
        }
        let index = self.placement(map, sides, q);
        let shape = [&scores.size()[..3], &[self.slots()]].concat();
        let index = index.expand(shape, false);
        untiled(&scores.gather(-1, &index, false), sides, map, q)
    }

    /// The weighted sum of the values each query sees: weights [B, G, H, W, slots] and values [B, G, H, W, D] to
    /// [B, G, H, W, D].
    pub fn mix(&self, weights: &Tensor, v: &Tensor) -> Tensor {
        if self.border == Border::Cut {
            let outputs = v.numel() as i64;
            work::elementwise(weights, v, outputs * self.slots(), outputs);
            return self
                .offsets(v)
                .zip(0..)
                .map(|(value, slot)| weights.narrow(-1, slot, 1) * value)
                .reduce(|sum, term| sum + term)
                .expect("a window has keys");
        }
        let (map, sides) = self.sides(v);
        let (weights, values) = (tiles_of(weights, sides), rectangles_of(v, sides));
        let mixed = if self.sees_all(sides) {
            work::matmul(&weights, &values)
        } else {
            let span = sides[0].span * sides[1].span;
            let index = self.placement(map, sides, v).expand_as(&weights);
            let spread = weights
                .narrow(-1, 0, 1)
                .zeros_like()
                .expand([-1, -1, -1, span], false)
                .scatter(-1, &index, &weights);
            work::matmul(&spread, &values)
        };
        untiled(&mixed, sides, map, v)
    }

    /// softmax(logits + bias) v: logits [B, G, H, W, slots], bias [G, H, W, slots], values [B, G, H, W, D]; gives
    /// [B, G, H, W, D], for shifted windows.
    ///
    /// Once fused, by a kernel where it applies: on the CPU, in f32 and bf16, without gradients, traces or records.
    /// `see` is shown the weights where there are any.
    pub fn attend(
        &self,
        logits: &Tensor,
        bias: Option<&Tensor>,
        v: &Tensor,
        see: impl FnOnce(&Tensor),
    ) -> Tensor {
        let operands = [Some(logits), bias, Some(v)];
        let operands: Vec<&Tensor> = operands.into_iter().flatten().collect();
        if self.placements.is_some()
            && self.border == Border::Shifted
            && !taps::recording()
            && applies(&operands)
        {
            let macs = (v.numel() as i64 * self.slots()) as u64;
            work::products(logits, v, [macs; 2], v.numel() as i64);
            return fused::attend(Isa::best(), self.kernel, logits, bias, v);
        }
        let weights = match bias {
            Some(bias) => (logits + bias).softmax(-1, None::<Kind>),
            None => logits.softmax(-1, None::<Kind>),
        };
        see(&weights);
        self.mix(&weights, v)
    }

    /// A table [G, 2 kh - 1, 2 kw - 1] of relative positions as a bias of the slots of a map: [G, H, W, slots].
    ///
    /// Entry (kh - 1, kw - 1) belongs to the query's own position. For shifted windows.
    pub fn position_bias(&self, table: &Tensor, map: [i64; 2]) -> Tensor {
        let [rows, columns] = [0, 1].map(|i| Side::new(map[i], self.kernel[i]));
        table
            .index_select(1, &rows.relative(table.device()))
            .index_select(2, &columns.relative(table.device()))
            .unflatten(2, [map[1], self.kernel[1]])
            .unflatten(1, [map[0], self.kernel[0]])
            .permute([0, 1, 3, 2, 4])
            .flatten(3, 4)
    }

    /// Whether a slot's key is inside of the map, Bool [H, W, slots].
    pub fn inside(&self, map: [i64; 2], device: Device) -> Tensor {
        let [rows, columns] = [0, 1].map(|i| {
            let first = range(map[i], device) - self.kernel[i] / 2;
            let key = match self.border {
                Border::Cut => first,
                Border::Shifted => first.clamp(0, map[i] - self.kernel[i]),
            };
            let key = key.unsqueeze(1) + range(self.kernel[i], device);
            key.ge(0).logical_and(&key.lt(map[i]))
        });
        let rows = rows.unsqueeze(1).unsqueeze(3);
        let columns = columns.unsqueeze(0).unsqueeze(2);
        rows.logical_and(&columns).flatten(2, 3)
    }

    /// Keeps what follows from a map's size from now on.
    pub fn fuse(&mut self) {
        self.placements.get_or_insert_with(PerMap::default);
    }

    /// For each slot the zero-padded map [B, G, H, W, D] as its queries see it: views of one padded copy.
    fn offsets<'a>(&'a self, x: &Tensor) -> impl Iterator<Item = Tensor> + 'a {
        let (height, width) = (x.size()[2], x.size()[3]);
        let [kh, kw] = self.kernel;
        let padded = x.constant_pad_nd([0, 0, kw / 2, kw / 2, kh / 2, kh / 2]);
        (0..kh * kw).map(move |slot| {
            padded
                .narrow(2, slot / kw, height)
                .narrow(3, slot % kw, width)
        })
    }

    fn sides(&self, x: &Tensor) -> ([i64; 2], [Side; 2]) {
        let map = [x.size()[2], x.size()[3]];
        (map, [0, 1].map(|i| Side::new(map[i], self.kernel[i])))
    }

    /// Whether every window is the whole map, in its order.
    fn sees_all(&self, sides: [Side; 2]) -> bool {
        sides.iter().all(|s| s.kernel == s.length)
    }

    /// The position in its tile's rectangle of each slot: [tiles, queries of a tile, slots].
    fn placement(&self, map: [i64; 2], sides: [Side; 2], x: &Tensor) -> Tensor {
        let device = x.device();
        let make = || {
            let [rows, columns] = sides.map(|s| s.slots(device));
            let rows = rows.unsqueeze(1).unsqueeze(3).unsqueeze(5) * sides[1].span;
            let columns = columns.unsqueeze(0).unsqueeze(2).unsqueeze(4);
            (rows + columns).flatten(4, 5).flatten(2, 3).flatten(0, 1)
        };
        match &self.placements {
            None => make(),
            Some(kept) => kept.get(map, || Derived::new(make()), |index| index.beside(x)),
        }
    }
}

fn regions(sides: [Side; 2]) -> Regions {
    Regions {
        count: sides.map(|s| s.tiles()),
        size: sides.map(|s| s.tile),
        spread: false,
    }
}

/// [B, G, H, W, D] to [B G, tiles, queries of a tile, D], zeros where tiles stick out.
fn tiles_of(x: &Tensor, sides: [Side; 2]) -> Tensor {
    let regions = regions(sides);
    regions.partition(&regions.pad(&x.flatten(0, 1)))
}

/// The inverse of [`tiles_of`], with the B and G of `like`.
fn untiled(x: &Tensor, sides: [Side; 2], map: [i64; 2], like: &Tensor) -> Tensor {
    crop(&regions(sides).merge(x), map).unflatten(0, [-1, like.size()[1]])
}

/// Keys [B, G, H, W, D] of all tiles' rectangles: [B G, tiles, keys of a rectangle, D]. A view where there is one tile.
fn rectangles_of(x: &Tensor, sides: [Side; 2]) -> Tensor {
    let mut x = x.flatten(0, 1);
    for (axis, side) in (1..).zip(sides) {
        if side.span < side.length {
            x = x.index_select(axis, &side.keys(x.device()));
        }
    }
    let rectangles = Regions {
        count: sides.map(|s| s.tiles()),
        size: sides.map(|s| s.span),
        spread: false,
    };
    rectangles.partition(&x)
}

#[cfg(test)]
mod tests;
