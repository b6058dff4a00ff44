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

/// Where along one side of a map the blocks' windows lie that hold every key inside the map once.
///
/// A block of `block` pixels sees `halo` more on both sides. Pixels outside of the map are keys too (zeros), but
/// beside one block or two they fill a large part of each window, and as many of them in each: then the windows
/// can leave them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HaloSide {
    block: i64,
    halo: i64,
    blocks: i64,
}

impl HaloSide {
    /// A side of `length` pixels, a multiple of `block`.
    pub fn new(length: i64, block: i64, halo: i64) -> Self {
        HaloSide {
            block,
            halo,
            blocks: length / block,
        }
    }

    /// Blocks along the side.
    pub fn blocks(&self) -> i64 {
        self.blocks
    }

    /// The same side with every window reaching over the border, as the definition has it.
    fn step_and_window(&self, compact: bool) -> (i64, i64) {
        match (compact && self.has_compact_form(), self.blocks) {
            (true, 1) => (self.block, self.block),
            (true, _) => (self.block - self.halo, self.block + self.halo),
            (false, _) => (self.block, self.block + 2 * self.halo),
        }
    }

    /// Whether all windows hold equally many pixels of the map, fewer than their size.
    pub fn has_compact_form(&self) -> bool {
        self.halo > 0 && (self.blocks == 1 || (self.blocks == 2 && self.halo < self.block))
    }

    /// The window rows inside the map, for each block of a side with a compact form.
    pub fn inside(&self) -> Vec<Range<i64>> {
        let (block, halo) = (self.block, self.halo);
        let inside = |i: i64| {
            let from = (halo - i * block).max(0);
            let to = (halo + (self.blocks - i) * block).min(block + 2 * halo);
            from..to
        };
        (0..self.blocks).map(inside).collect()
    }
}

/// The windows of keys [B, nh, nw, C, wh, ww] around the blocks of a map [B, C, H, W].
///
/// Window (i, j) holds rows `i block - halo .. (i + 1) block + halo`, columns alike, zeros outside of the map.
/// A `compact` side leaves those zeros out where [`HaloSide::has_compact_form`]. Without padding it is a view.
pub fn halo_windows(x: &Tensor, sides: [HaloSide; 2], compact: bool) -> Tensor {
    let border = |side: HaloSide| match compact && side.has_compact_form() {
        true => 0,
        false => side.halo,
    };
    let (top, left) = (border(sides[0]), border(sides[1]));
    let padded = match (top, left) {
        (0, 0) => x.shallow_clone(),
        _ => x.constant_pad_nd([left, left, top, top]),
    };
    let (row_step, rows) = sides[0].step_and_window(compact);
    let (column_step, columns) = sides[1].step_and_window(compact);
    padded
        .permute([0, 2, 3, 1])
        .unfold(1, rows, row_step)
        .unfold(2, columns, column_step)
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
            let windows = halo_windows(&x, sides, false);
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
    fn compact_windows_are_the_inside_of_the_full_ones() {
        for (height, width) in [(4, 4), (4, 8), (8, 8), (8, 12), (12, 12)] {
            let x = map(height, width);
            let sides = [HaloSide::new(height, 4, 3), HaloSide::new(width, 4, 3)];
            let (full, compact) = (
                halo_windows(&x, sides, false),
                halo_windows(&x, sides, true),
            );
            for bi in 0..sides[0].blocks() {
                for bj in 0..sides[1].blocks() {
                    let mut expected = full.select(1, bi).select(1, bj);
                    for (axis, side, b) in [(2, sides[0], bi), (3, sides[1], bj)] {
                        if side.has_compact_form() {
                            let inside = side.inside()[b as usize].clone();
                            let length = inside.end - inside.start;
                            expected = expected.narrow(axis, inside.start, length);
                        }
                    }
                    assert!(compact.select(1, bi).select(1, bj).equal(&expected));
                }
            }
        }
    }
}
