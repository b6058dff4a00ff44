//! Blocks of queries, and the haloed windows of keys around them (HaloNet, Vaswani et al., 2021).
//!
//! Everything here is a view except the zero border; the copy comes where a matrix product needs one.

use std::ops::Range;
use tch::Tensor;

/// [B, C, H, W] as blocks [B, H / block, W / block, block, block, C]: a view.
///
/// H and W must be multiples of `block`.
pub fn to_blocks(x: &Tensor, block: i64) -> Tensor {
    x.permute([0, 2, 3, 1])
        .unflatten(1, [-1, block])
        .unflatten(3, [-1, block])
        .permute([0, 1, 3, 2, 4, 5])
}

/// Blocks [B, nh, nw, bh, bw, ..] back as a map [B, C, nh bh, nw bw]; trailing axes together are the channels.
///
/// The result is stored channels-last.
pub fn from_blocks(blocks: &Tensor) -> Tensor {
    let trailing: Vec<i64> = (5..blocks.dim() as i64).collect();
    let order = [&[0, 1, 3, 2, 4], trailing.as_slice()].concat();
    blocks
        .permute(order)
        .flatten(5, -1)
        .flatten(3, 4)
        .flatten(1, 2)
        .permute([0, 3, 1, 2])
}

/// How windows lie along one side of a map: each block of `block` pixels sees `halo` more in both directions.
///
/// Lines outside of the map are keys too, all of them zero. Where a side has one block or two, they fill a large part
/// of every window, and as many lines in each: a *merged* window keeps one zero line for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HaloSide {
    block: i64,
    halo: i64,
    blocks: i64,
    merged: bool,
}

/// Lines of a window: the range inside of the map, and whether the lines outside go before it or after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Lines of the full window that are inside.
    pub lines: Range<i64>,
    /// Whether the merged line is the window's first; otherwise it is its last.
    pub outside_first: bool,
}

impl HaloSide {
    /// A side of `length` pixels, a multiple of `block`, with full windows.
    pub fn new(length: i64, block: i64, halo: i64) -> Self {
        HaloSide {
            block,
            halo,
            blocks: length / block,
            merged: false,
        }
    }

    /// The same with merged windows, where that makes them smaller.
    pub fn merged(self) -> Self {
        let outside = if self.blocks == 1 {
            2 * self.halo
        } else {
            self.halo
        };
        let alike = self.blocks == 1 || (self.blocks == 2 && self.halo <= self.block);
        HaloSide {
            merged: alike && outside > 1,
            ..self
        }
    }

    /// Whether windows are merged.
    pub fn is_merged(&self) -> bool {
        self.merged
    }

    /// Blocks along the side.
    pub fn blocks(&self) -> i64 {
        self.blocks
    }

    /// Lines inside of the map of all windows, together.
    pub fn lines_inside(&self) -> i64 {
        let length = self.blocks * self.block;
        let inside = |i: i64| {
            let (first, last) = (i * self.block - self.halo, (i + 1) * self.block + self.halo);
            last.min(length) - first.max(0)
        };
        (0..self.blocks).map(inside).sum()
    }

    /// Zero lines before and after the map, the size of a window and the step between windows.
    fn layout(&self) -> ([i64; 2], i64, i64) {
        let HaloSide { block, halo, .. } = *self;
        match (self.merged, self.blocks) {
            (true, 1) => ([0, 1], block + 1, 1),
            (true, _) => ([1, 1], block + halo + 1, block - halo + 1),
            (false, _) => ([halo, halo], block + 2 * halo, block),
        }
    }

    /// For each block of a merged side, which lines of its full window are inside of the map.
    pub fn inside(&self) -> Vec<Inside> {
        let HaloSide {
            block,
            halo,
            blocks,
            ..
        } = *self;
        let inside = |i: i64| Inside {
            lines: (halo - i * block).max(0)..(halo + (blocks - i) * block).min(block + 2 * halo),
            outside_first: blocks > 1 && i == 0,
        };
        (0..blocks).map(inside).collect()
    }
}

/// The windows of keys [B, nh, nw, C, wh, ww] around the blocks of a map [B, C, H, W]: a view of the padded map.
///
/// The full window of block (i, j) holds rows `i block - halo .. (i + 1) block + halo`, columns alike, zeros outside of
/// the map.
pub fn halo_windows(x: &Tensor, sides: [HaloSide; 2]) -> Tensor {
    let [(rows, height, row_step), (columns, width, column_step)] = sides.map(|s| s.layout());
    // Channels last before anything is copied: windows are then copied pixel by pixel, not number by number.
    x.permute([0, 2, 3, 1])
        .constant_pad_nd([0, 0, columns[0], columns[1], rows[0], rows[1]])
        .unfold(1, height, row_step)
        .unfold(2, width, column_step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn map(height: i64, width: i64) -> Tensor {
        let n = 2 * 3 * height * width;
        Tensor::arange(n, (Kind::Double, Device::Cpu)).reshape([2, 3, height, width])
    }

    #[test]
    fn blocks_and_back_is_the_identity() {
        let x = map(8, 12);
        let blocks = to_blocks(&x, 4);
        assert_eq!(blocks.size(), [2, 2, 3, 4, 4, 3]);
        let at = |t: &Tensor, index: &[i64]| t.double_value(index);
        assert_eq!(at(&blocks, &[1, 1, 2, 3, 0, 1]), at(&x, &[1, 1, 7, 8]));
        assert!(from_blocks(&blocks).equal(&x));
    }

    #[test]
    fn windows_hold_the_block_and_its_halo() {
        let (block, halo) = (4, 3);
        for (height, width) in [(4, 4), (4, 8), (8, 8), (12, 8), (16, 12)] {
            let x = map(height, width);
            let sides = [
                HaloSide::new(height, block, halo),
                HaloSide::new(width, block, halo),
            ];
            let windows = halo_windows(&x, sides);
            let (nh, nw) = (height / block, width / block);
            assert_eq!(windows.size(), [2, nh, nw, 3, 10, 10]);
            for (bi, bj, i, j) in [(0, 0, 0, 9), (nh - 1, nw - 1, 4, 6), (0, nw - 1, 9, 0)] {
                let (row, column) = (bi * block - halo + i, bj * block - halo + j);
                let inside = (0..height).contains(&row) && (0..width).contains(&column);
                let expected = match inside {
                    true => x.double_value(&[1, 2, row, column]),
                    false => 0.0,
                };
                assert_eq!(windows.double_value(&[1, bi, bj, 2, i, j]), expected);
            }
        }
    }

    #[test]
    fn merged_windows_are_the_inside_of_the_full_ones_and_one_zero_line() {
        for (height, width) in [(4, 4), (4, 8), (8, 8), (8, 12), (12, 12)] {
            let x = map(height, width);
            let full = [HaloSide::new(height, 4, 3), HaloSide::new(width, 4, 3)];
            let merged = full.map(HaloSide::merged);
            let windows = halo_windows(&x, full);
            let smaller = halo_windows(&x, merged);
            for (bi, bj) in (0..height / 4).flat_map(|i| (0..width / 4).map(move |j| (i, j))) {
                let mut expected = windows.select(1, bi).select(1, bj);
                for (axis, side, b) in [(2, merged[0], bi), (3, merged[1], bj)] {
                    if side.is_merged() {
                        let Inside {
                            lines,
                            outside_first,
                        } = side.inside()[b as usize].clone();
                        let inside = expected.narrow(axis, lines.start, lines.end - lines.start);
                        let zeros = inside.narrow(axis, 0, 1).zeros_like();
                        expected = match outside_first {
                            true => Tensor::cat(&[zeros, inside], axis),
                            false => Tensor::cat(&[inside, zeros], axis),
                        };
                    }
                }
                assert!(smaller.select(1, bi).select(1, bj).equal(&expected));
            }
        }
    }

    #[test]
    fn windows_are_merged_only_where_that_makes_them_smaller() {
        let merged = |length, halo| HaloSide::new(length, 4, halo).merged().is_merged();
        assert!(merged(4, 1) && merged(8, 2) && merged(8, 4));
        assert!(!merged(4, 0) && !merged(8, 1) && !merged(12, 3) && !merged(8, 5));
    }
}
