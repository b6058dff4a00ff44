//! Spikes as short lists: which nibbles of inputs are not all silent.
//!
//! Of every row, 64 inputs at a time become the list of their nibbles (groups of four inputs) that hold a spike: a byte
//! each, 16 * position + nibble, which is the place of that nibble's sum in a table. Whole numbers above 1 become
//! several planes, of ones, twos, fours and so on. Lists of one length lie together, so that nothing branches on it.

use super::plan::{Chunk, Plan};
use crate::simd::{self, Kernel, LANES, Lanes};
use crate::threads;
use std::sync::atomic::{AtomicBool, Ordering};

/// Inputs of one list.
pub(super) const BLOCK: usize = 64;
/// Nibbles of a block.
pub(super) const NIBBLES: usize = BLOCK / 4;
/// Bits of a value: counts up to 31 are spikes to us. Spikformer's deepest residual stream reaches 18.
const PLANES: usize = 5;

/// Lists of one block of inputs and one power of two.
#[derive(Debug, Default)]
pub(super) struct Plane {
    /// Cells of [`Plan::cell`].
    pub cells: Vec<u32>,
    /// The list of each.
    pub lists: Vec<[u8; NIBBLES]>,
    /// Where lists of length 1 begin, of length 2, ..; the last is the end.
    pub starts: [usize; NIBBLES + 1],
}

impl Plane {
    /// Entries of all lists.
    fn entries(&self) -> usize {
        (1..=NIBBLES)
            .map(|length| length * (self.starts[length] - self.starts[length - 1]))
            .sum()
    }
}

/// One block of inputs of one chunk: planes of ones, twos, fours, ..
pub(super) type Unit = Vec<Plane>;

/// Every unit, those of a chunk together.
#[derive(Debug)]
pub(super) struct Lists {
    pub units: Vec<Unit>,
    /// Blocks of a chunk.
    pub blocks: usize,
    pub entries: usize,
    /// Lists that are not empty.
    pub lists: usize,
}

/// Rows of activations, each without gaps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub values: &'a [f32],
    /// Inputs of a row.
    pub width: usize,
}

/// The lists of `rows`, or nothing where something is no whole number from 0 to 31.
pub(super) fn pack(rows: Rows, plan: &Plan, parallel: bool) -> Option<Lists> {
    let blocks = rows.width.div_ceil(BLOCK);
    let analog = AtomicBool::new(false);
    let unit = |index: usize| {
        let chunk = &plan.chunks[index / blocks];
        let mut found = None;
        if !analog.load(Ordering::Relaxed) {
            simd::dispatch(Packing {
                rows,
                plan,
                chunk,
                block: index % blocks,
                found: &mut found,
            });
        }
        if found.is_none() {
            analog.store(true, Ordering::Relaxed);
        }
        found
    };
    let count = plan.chunks.len() * blocks;
    let units = if parallel {
        threads::map(count, unit)
    } else {
        (0..count).map(unit).collect()
    };
    let units: Vec<Unit> = units.into_iter().collect::<Option<_>>()?;
    let planes = || units.iter().flatten();
    Some(Lists {
        entries: planes().map(Plane::entries).sum(),
        lists: planes().map(|plane| plane.cells.len()).sum(),
        blocks,
        units,
    })
}

/// One unit.
struct Packing<'a> {
    rows: Rows<'a>,
    plan: &'a Plan,
    chunk: &'a Chunk,
    block: usize,
    found: &'a mut Option<Unit>,
}

/// Spikes of one plane before they are sorted.
#[derive(Debug, Default)]
struct Spikes {
    cells: Vec<u32>,
    bits: Vec<u64>,
}

impl Kernel for Packing<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let mut planes: [Spikes; PLANES] = Default::default();
        let from = self.block * BLOCK;
        let count = BLOCK.min(self.rows.width - from);
        let [height, width] = self.plan.shape.input;
        for image in self.chunk.first_image..self.chunk.first_image + self.chunk.images {
            for line in self.plan.input_lines(self.chunk) {
                let first = self.plan.cell(self.chunk, image, line);
                for x in 0..width {
                    let row = (image * height + line) * width + x;
                    let at = row * self.rows.width + from;
                    let values = &self.rows.values[at..at + count];
                    let Some(bits) = bits_of::<L>(values) else {
                        return;
                    };
                    for (plane, &bits) in planes.iter_mut().zip(&bits) {
                        if bits != 0 {
                            plane.cells.push((first + x) as u32);
                            plane.bits.push(bits);
                        }
                    }
                }
            }
        }
        let used = PLANES
            - planes
                .iter()
                .rev()
                .take_while(|p| p.bits.is_empty())
                .count();
        let mut unit = Vec::with_capacity(used);
        for plane in &planes[..used] {
            unit.push(sort::<L>(plane));
        }
        *self.found = Some(unit);
    }
}

/// Bit by bit what up to 64 values are made of, or nothing where one is no whole number from 0 to 31.
#[inline(always)]
fn bits_of<L: Lanes>(values: &[f32]) -> Option<[u64; PLANES]> {
    let mut bits = [0; PLANES];
    let (whole, tail) = values.as_chunks::<LANES>();
    for (i, lanes) in whole.iter().enumerate() {
        sixteen(L::load(lanes), LANES * i, &mut bits)?;
    }
    if !tail.is_empty() {
        let mut lanes = [0.0; LANES];
        lanes[..tail.len()].copy_from_slice(tail);
        sixteen(L::load(&lanes), LANES * whole.len(), &mut bits)?;
    }
    Some(bits)
}

#[inline(always)]
fn sixteen<L: Lanes>(values: L, at: usize, bits: &mut [u64; PLANES]) -> Option<()> {
    let (ones, rest) = values.take_at_least(1.0);
    if rest.is_zero() {
        bits[0] |= u64::from(ones) << at;
        return Some(());
    }
    let mut rest = values;
    for plane in (0..PLANES).rev() {
        let (found, less) = rest.take_at_least((1 << plane) as f32);
        bits[plane] |= u64::from(found) << at;
        rest = less;
    }
    rest.is_zero().then_some(())
}

/// The lists of a plane, sorted by length.
#[inline(always)]
fn sort<L: Lanes>(spikes: &Spikes) -> Plane {
    let length = |bits: u64| {
        let any = bits | bits >> 1 | bits >> 2 | bits >> 3;
        (any & 0x1111_1111_1111_1111).count_ones() as usize
    };
    let mut starts = [0; NIBBLES + 1];
    for &bits in &spikes.bits {
        starts[length(bits)] += 1;
    }
    for i in 1..=NIBBLES {
        starts[i] += starts[i - 1];
    }
    let mut next = starts;
    let count = spikes.bits.len();
    let (mut cells, mut lists) = (vec![0; count], vec![[0; NIBBLES]; count]);
    for (&cell, &bits) in spikes.cells.iter().zip(&spikes.bits) {
        let (list, length) = L::nibbles(bits);
        let at = &mut next[length as usize - 1];
        (cells[*at], lists[*at]) = (cell, list.to_le_bytes());
        *at += 1;
    }
    Plane {
        cells,
        lists,
        starts,
    }
}
