//! Sums of weights by tables.
//!
//! Sixteen sums are all that four inputs can give when each is silent or fires: for 64 inputs and 32 outputs they are
//! made once, 32 KiB of them, and every row then adds one for each nibble of its list. Weights of a row that are silent
//! together cost nothing, and four that fire together cost one addition.

use super::pack::{BLOCK, Lists, NIBBLES, Plane, Unit};
use super::plan::{Chunk, Plan};
use crate::simd::{self, Kernel, LANES, Lanes};
use crate::threads;
use std::cell::RefCell;

/// Outputs of a panel.
pub(super) const PANEL: usize = 2 * LANES;

/// A row of a panel.
type Row = [[f32; LANES]; 2];

/// Sums of a panel by the bytes of [`Plane::lists`].
#[repr(align(64))]
struct Table([Row; 16 * NIBBLES]);

/// Weights as the kernel reads them: [panel, tap, block, 64 inputs, 32 outputs], with zeros where there are fewer.
#[derive(Debug)]
pub(super) struct Weights {
    values: Vec<Row>,
    pub outputs: usize,
    pub inputs: usize,
    taps: usize,
}

impl Weights {
    /// Of a weight [out, in, taps], taps row by row.
    pub fn new(weight: &[f32], [outputs, inputs, taps]: [usize; 3]) -> Self {
        let (panels, blocks) = (outputs.div_ceil(PANEL), inputs.div_ceil(BLOCK));
        let mut values = vec![[[0.0; LANES]; 2]; panels * taps * blocks * BLOCK];
        for (i, &value) in weight.iter().enumerate() {
            let (output, input, tap) = (i / taps / inputs, i / taps % inputs, i % taps);
            let row = ((output / PANEL * taps + tap) * blocks * BLOCK) + input;
            values[row][output % PANEL / LANES][output % LANES] = value;
        }
        Weights {
            values,
            outputs,
            inputs,
            taps,
        }
    }

    /// Panels of 32 outputs.
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// The 64 rows of a panel, a tap and a block.
    fn block(&self, panel: usize, tap: usize, block: usize) -> &[Row] {
        let blocks = self.inputs.div_ceil(BLOCK);
        let at = ((panel * self.taps + tap) * blocks + block) * BLOCK;
        &self.values[at..at + BLOCK]
    }
}

/// Where results go: [rows, outputs] without gaps.
pub(super) struct Output<'a> {
    pub values: *mut f32,
    pub bias: Option<&'a [f32]>,
    /// What is added, in the shape of the result.
    pub residual: Option<&'a [f32]>,
}

// SAFETY: tasks write to disjoint columns and rows, and nobody reads before all are done.
unsafe impl Sync for Output<'_> {}

/// The product of all lists with the weights.
pub(super) fn multiply(
    lists: &Lists,
    plan: &Plan,
    weights: &Weights,
    output: &Output,
    parallel: bool,
) {
    let panels = weights.panels();
    let run = |task: usize| {
        let (chunk, panel) = (task / panels, task % panels);
        SCRATCH.with_borrow_mut(|(sums, table)| {
            simd::dispatch(Task {
                units: &lists.units[chunk * lists.blocks..(chunk + 1) * lists.blocks],
                plan,
                chunk: &plan.chunks[chunk],
                weights,
                panel,
                output,
                sums,
                table,
            });
        });
    };
    let tasks = plan.chunks.len() * panels;
    if parallel {
        threads::for_each(tasks, 1, || (), |(), i| run(i));
    } else {
        (0..tasks).for_each(run);
    }
}

thread_local! {
    /// Sums of a chunk and the table: kept from task to task, so that their pages are.
    static SCRATCH: RefCell<(Vec<Row>, Box<Table>)> =
        RefCell::new((Vec::new(), Box::new(Table([[[0.0; LANES]; 2]; 16 * NIBBLES]))));
}

/// One panel of one chunk.
struct Task<'a> {
    units: &'a [Unit],
    plan: &'a Plan,
    chunk: &'a Chunk,
    weights: &'a Weights,
    panel: usize,
    output: &'a Output<'a>,
    sums: &'a mut Vec<Row>,
    table: &'a mut Table,
}

impl Kernel for Task<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let bias = self.bias();
        self.sums.clear();
        self.sums.resize(self.plan.cells(self.chunk), bias);
        for (block, unit) in self.units.iter().enumerate() {
            if unit.is_empty() {
                continue;
            }
            for tap in 0..self.weights.taps {
                fill::<L>(self.table, self.weights.block(self.panel, tap, block));
                let sums = &mut self.sums[self.plan.tap(tap)..];
                for (power, plane) in unit.iter().enumerate() {
                    add::<L>(plane, (1 << power) as f32, self.table, sums);
                }
            }
        }
        self.write::<L>();
    }
}

impl Task<'_> {
    fn columns(&self) -> std::ops::Range<usize> {
        let from = self.panel * PANEL;
        from..self.weights.outputs.min(from + PANEL)
    }

    fn bias(&self) -> Row {
        let mut row = [[0.0; LANES]; 2];
        if let Some(bias) = self.output.bias {
            let columns = &bias[self.columns()];
            row.as_flattened_mut()[..columns.len()].copy_from_slice(columns);
        }
        row
    }

    /// Takes the sums out of the grid.
    #[inline(always)]
    fn write<L: Lanes>(&self) {
        let sums = self.sums.as_slice();
        let columns = self.columns();
        let [height, width] = self.plan.output;
        for image in self.chunk.first_image..self.chunk.first_image + self.chunk.images {
            for line in self.chunk.first_line..self.chunk.first_line + self.chunk.lines {
                let first = self.plan.first(self.chunk, image, line);
                for (x, sums) in sums[first..first + width].iter().enumerate() {
                    let row = (image * height + line) * width + x;
                    let at = row * self.weights.outputs + columns.start;
                    // SAFETY: the result has that many rows of `outputs` columns; these are this task's alone.
                    let out = unsafe {
                        std::slice::from_raw_parts_mut(self.output.values.add(at), columns.len())
                    };
                    let residual = self.output.residual.map(|r| &r[at..at + columns.len()]);
                    give::<L>(sums, residual, out);
                }
            }
        }
    }
}

/// A row of sums to up to 32 columns.
#[inline(always)]
fn give<L: Lanes>(sums: &Row, residual: Option<&[f32]>, out: &mut [f32]) {
    match (out.as_chunks_mut::<LANES>(), residual) {
        (([low, high], []), None) => {
            L::load(&sums[0]).store(low);
            L::load(&sums[1]).store(high);
        }
        (_, None) => out.copy_from_slice(&sums.as_flattened()[..out.len()]),
        (_, Some(residual)) => {
            for ((out, sum), more) in out.iter_mut().zip(sums.as_flattened()).zip(residual) {
                *out = sum + more;
            }
        }
    }
}

/// All sums of every four of the 64 rows but the empty one, which no list names.
#[inline(always)]
fn fill<L: Lanes>(table: &mut Table, rows: &[Row]) {
    let (groups, _) = table.0.as_chunks_mut::<16>();
    let (fours, _) = rows.as_chunks::<4>();
    for (group, four) in groups.iter_mut().zip(fours) {
        for half in 0..2 {
            let mut sums = [L::splat(0.0); 16];
            for nibble in 1usize..16 {
                let row = L::load(&four[nibble.trailing_zeros() as usize][half]);
                sums[nibble] = match nibble & (nibble - 1) {
                    0 => row,
                    rest => sums[rest].add(row),
                };
                sums[nibble].store(&mut group[nibble][half]);
            }
        }
    }
}

/// Adds `power` times what each list says to its cell.
///
/// Lists of one length follow one another, so that the loop over a list ends where it did before.
#[inline(always)]
fn add<L: Lanes>(plane: &Plane, power: f32, table: &Table, sums: &mut [Row]) {
    let power = L::splat(power);
    for length in 1..=NIBBLES {
        let those = plane.starts[length - 1]..plane.starts[length];
        for (&cell, list) in plane.cells[those.clone()].iter().zip(&plane.lists[those]) {
            let (even, odd) = sum::<L>(&list[..length], table);
            let cell = &mut sums[cell as usize];
            for half in 0..2 {
                let all = even[half].add(odd[half]);
                all.fma(power, L::load(&cell[half])).store(&mut cell[half]);
            }
        }
    }
}

/// What a list says, in two parts, so that no addition waits for the one before it.
#[inline(always)]
fn sum<L: Lanes>(list: &[u8], table: &Table) -> ([L; 2], [L; 2]) {
    let (mut even, mut odd) = ([L::splat(0.0); 2], [L::splat(0.0); 2]);
    let (pairs, last) = list.as_chunks::<2>();
    for [first, second] in pairs {
        even = plus(even, *first, table);
        odd = plus(odd, *second, table);
    }
    if let [entry] = last {
        even = plus(even, *entry, table);
    }
    (even, odd)
}

#[inline(always)]
fn plus<L: Lanes>(sums: [L; 2], entry: u8, table: &Table) -> [L; 2] {
    let row = &table.0[usize::from(entry)];
    [sums[0].add(L::load(&row[0])), sums[1].add(L::load(&row[1]))]
}

/// Additions that [`multiply`] makes: those of tables and those of lists.
pub(super) fn additions(lists: &Lists, plan: &Plan, weights: &Weights) -> u64 {
    /// Sums of four that are not one of them, or none.
    const OF_A_NIBBLE: usize = 11;
    let tables = lists.units.iter().filter(|unit| !unit.is_empty()).count();
    let taps = plan.shape.taps[0] * plan.shape.taps[1];
    let each = lists.entries + tables * NIBBLES * OF_A_NIBBLE;
    (each * taps * weights.panels() * PANEL) as u64
}
