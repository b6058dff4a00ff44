//! Which keys a group of queries sees.

use crate::Regions;
use tch::Tensor;

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
            step: if regions.spread { [1, 1] } else { regions.size },
            dilation: if regions.spread {
                regions.count
            } else {
                [1, 1]
            },
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

    /// Row and column of a token.
    pub(super) fn token(&self, tile: usize, token: usize) -> [i64; 2] {
        let (tile, token) = (tile as i64, token as i64);
        let tile = [tile / self.count[1], tile % self.count[1]];
        let token = [token / self.size[1], token % self.size[1]];
        [0, 1].map(|i| self.origin[i] + tile[i] * self.step[i] + token[i] * self.dilation[i])
    }

    pub(super) fn len(&self) -> usize {
        (self.count[0] * self.count[1]) as usize
    }

    pub(super) fn tokens(&self) -> usize {
        (self.size[0] * self.size[1]) as usize
    }

    /// Whether every token of the map is in exactly one tile.
    pub(super) fn partitions(&self, map: [i64; 2]) -> bool {
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

/// What is added to the scores, in f32.
#[derive(Debug, Clone, Copy)]
pub enum Bias<'a> {
    /// Nothing.
    None,
    /// One value for each pair: [B, tiles, heads, queries, keys] of any strides, expanded where it does not vary (fastest
    /// when queries are side by side in memory).
    Pairs(&'a Tensor),
    /// `q . rows[i - r + h - 1] + q . columns[j - c + w - 1]` for a query at (r, c) of its tile and a key at (i, j) of its
    /// tile of h x w: tables [2 h - 1, D] and [2 w - 1, D]. The queries are those given, not scaled.
    Relative(&'a Tensor, &'a Tensor),
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
    /// Factors of what leaves the heads, f32 [B, H, W, heads]; where one is 0 nothing is computed.
    pub gates: Option<&'a Tensor>,
}
