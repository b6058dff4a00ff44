//! The fused form: every query finds its keys and attends to them while both are in cache.
//!
//! For one query at a time: softmax of the low-rank scores, the coefficients that stay, the scores of all keys as a sum
//! of that many rows of the basis, the keys that stay, and attention over these alone. Neither scores nor mask nor
//! attention map exist as tensors; scores and products of pairs that are not connected are not computed.

use super::Keep;
use super::select::{keep, max_of, sum_of};
use crate::simd::{self, Kernel, LANES, Lanes, exp_nonpositive};
use crate::threads;
use tch::{Kind, Tensor};

/// Head widths that the kernel is compiled for.
const WIDTHS: [i64; 2] = [32, 64];
/// Work units for each thread, for balance.
const UNITS_PER_THREAD: usize = 4;

/// What one call works on. Shapes as in [`super::ConnectivityPredictor::attend`].
pub(super) struct Inputs<'a> {
    /// Low-rank scores before softmax [B, H, L, K].
    pub low_rank: &'a Tensor,
    /// Columns of the basis at the keys' positions, [1 or B, K, 1 + L].
    pub basis: &'a Tensor,
    /// [B, H, 1 + L, D], the class token first.
    pub q: &'a Tensor,
    pub k: &'a Tensor,
    pub v: &'a Tensor,
    pub coefficients: Keep,
    pub connections: Keep,
    pub scale: f64,
    /// Further keys with score zero that the class token sees.
    pub absent: i64,
}

/// Whether the kernel takes these inputs.
pub(super) fn applies(q: &Tensor) -> bool {
    q.size().last().is_some_and(|d| WIDTHS.contains(d))
}

/// The merged heads [B, 1 + L, H * D].
pub(super) fn attend(inputs: &Inputs) -> Tensor {
    let size = inputs.q.size();
    let [batch, heads, tokens, width] = [0, 1, 2, 3].map(|i| size[i] as usize);
    let out = Tensor::empty(
        [size[0], size[2], size[1] * size[3]],
        (inputs.q.kind(), inputs.q.device()),
    );
    match inputs.q.kind() {
        Kind::BFloat16 => {
            let call = Call::<Bf16>::new(inputs, &out, [batch, heads, tokens, width]);
            call.run();
        }
        _ => Call::<f32>::new(inputs, &out, [batch, heads, tokens, width]).run(),
    }
    out
}

/// bfloat16, as its bits.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Bf16(u16);

/// How a number is stored; computing is in f32.
trait Stored: Copy + Send + Sync {
    fn get(self) -> f32;
    fn put(value: f32) -> Self;
}

impl Stored for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn put(value: f32) -> Self {
        value
    }
}

impl Stored for Bf16 {
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// To the nearest, ties to even. NaN stays NaN: its highest mantissa bit survives the rounding.
    #[inline(always)]
    fn put(value: f32) -> Self {
        let bits = value.to_bits();
        if value.is_nan() {
            return Bf16((bits >> 16) as u16 | 0x40);
        }
        Bf16((bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16)
    }
}

/// A rank-4 tensor [B, H, N, D] with unit stride over D.
#[derive(Clone, Copy)]
struct Heads<T> {
    data: *const T,
    stride: [usize; 3],
}

impl<T: Stored> Heads<T> {
    /// `t` must be kept alive by the caller, hold elements of `T` and have unit stride in its last dimension.
    fn new(t: &Tensor) -> Self {
        let stride = t.stride();
        Heads {
            data: t.data_ptr() as *const T,
            stride: [0, 1, 2].map(|i| stride[i] as usize),
        }
    }

    /// `width` elements of one row.
    ///
    /// # Safety
    /// The indices must be inside the tensor, and `width` at most its last dimension.
    unsafe fn row(&self, b: usize, h: usize, n: usize, width: usize) -> &[T] {
        let at = b * self.stride[0] + h * self.stride[1] + n * self.stride[2];
        // SAFETY: inside the tensor, by this function's contract; unit stride, by the constructor's.
        unsafe { std::slice::from_raw_parts(self.data.add(at), width) }
    }
}

/// One call: everything that is the same for all work units.
struct Call<T> {
    low_rank: Heads<T>,
    q: Heads<T>,
    k: Heads<T>,
    v: Heads<T>,
    out: *mut T,
    /// Rows of the basis in f32, padded to whole lanes: [1 or B, K, padded].
    basis: Vec<f32>,
    basis_per_image: bool,
    entries: usize,
    batch: usize,
    heads: usize,
    tokens: usize,
    width: usize,
    coefficients: Keep,
    connections: Keep,
    scale: f32,
    absent: i64,
    /// What the pointers point into.
    _alive: [Tensor; 5],
}

// SAFETY: the inputs are only read; each work unit writes rows of `out` that no other writes.
unsafe impl<T: Stored> Sync for Call<T> {}

/// The queries of one head from `start` to before `end`.
#[derive(Clone, Copy)]
struct Unit {
    image: usize,
    head: usize,
    start: usize,
    end: usize,
}

impl<T: Stored> Call<T> {
    fn new(inputs: &Inputs, out: &Tensor, [batch, heads, tokens, width]: [usize; 4]) -> Self {
        let last_unit = |t: &Tensor| {
            if t.stride().last() == Some(&1) {
                t.shallow_clone()
            } else {
                t.contiguous()
            }
        };
        let kind = inputs.q.kind();
        let [q, k, v] = [inputs.q, inputs.k, inputs.v].map(last_unit);
        let low_rank = inputs.low_rank.to_kind(kind).contiguous();
        let entries = low_rank.size()[3] as usize;
        Call {
            low_rank: Heads::new(&low_rank),
            q: Heads::new(&q),
            k: Heads::new(&k),
            v: Heads::new(&v),
            out: out.data_ptr() as *mut T,
            basis: padded_rows(inputs.basis),
            basis_per_image: inputs.basis.size()[0] > 1,
            entries,
            batch,
            heads,
            tokens,
            width,
            coefficients: inputs.coefficients,
            connections: inputs.connections,
            scale: inputs.scale as f32,
            absent: inputs.absent,
            _alive: [q, k, v, low_rank, out.shallow_clone()],
        }
    }

    fn run(&self) {
        let threads = tch::get_num_threads().max(1) as usize;
        let units = self.units(threads);
        threads::for_each(units.len(), 1, Scratch::default, |scratch, i| {
            self.run_unit(units[i], scratch);
        });
    }

    fn units(&self, threads: usize) -> Vec<Unit> {
        let heads = self.batch * self.heads;
        let parts = if threads == 1 {
            1
        } else {
            (threads * UNITS_PER_THREAD).div_ceil(heads.max(1))
        };
        let rows = self.tokens.div_ceil(parts).max(1);
        let mut units = Vec::new();
        for (image, head) in (0..self.batch).flat_map(|b| (0..self.heads).map(move |h| (b, h))) {
            for start in (0..self.tokens).step_by(rows) {
                let end = (start + rows).min(self.tokens);
                units.push(Unit {
                    image,
                    head,
                    start,
                    end,
                });
            }
        }
        units
    }

    fn run_unit(&self, unit: Unit, scratch: &mut Scratch) {
        let call = self;
        if self.width == 32 {
            simd::dispatch(Rows::<T, 32, 2> {
                call,
                unit,
                scratch,
            });
        } else {
            simd::dispatch(Rows::<T, 64, 4> {
                call,
                unit,
                scratch,
            });
        }
    }
}

/// [A, K, M] to f32 with each row padded by zeros to whole lanes.
fn padded_rows(basis: &Tensor) -> Vec<f32> {
    let columns = basis.size()[2];
    let padding = (columns as usize).next_multiple_of(LANES) as i64 - columns;
    let padded = basis
        .to_kind(Kind::Float)
        .constant_pad_nd([0, padding])
        .contiguous();
    let mut rows = vec![0f32; padded.numel()];
    let count = rows.len();
    padded.copy_data(&mut rows, count);
    rows
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    row: RowScratch,
}

#[derive(Default)]
struct RowScratch {
    coefficients: Vec<f32>,
    kept_entries: Vec<u32>,
    kept_coefficients: Vec<f32>,
    scores: Vec<f32>,
    kept_keys: Vec<u32>,
    weights: Vec<f32>,
    /// The last borders, of coefficients and of scores.
    guesses: [f32; 2],
}

/// One unit of work for heads of width D = 16 * V.
struct Rows<'a, T, const D: usize, const V: usize> {
    call: &'a Call<T>,
    unit: Unit,
    scratch: &'a mut Scratch,
}

impl<T: Stored, const D: usize, const V: usize> Kernel for Rows<'_, T, D, V> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (call, unit) = (self.call, self.unit);
        let Scratch { keys, values, row } = self.scratch;
        call.pack::<D>(&call.k, unit, keys);
        call.pack::<D>(&call.v, unit, values);
        let (keys, values) = (keys.as_chunks::<D>().0, values.as_chunks::<D>().0);
        for n in unit.start..unit.end {
            let absent = if n == 0 {
                row.connect_all(call.tokens);
                call.absent
            } else {
                call.connect::<L>(unit, n, row);
                0
            };
            let query: [f32; D] = {
                // SAFETY: image, head and row are inside the tensor, whose last dimension is D.
                let stored = unsafe { call.q.row(unit.image, unit.head, n, D) };
                std::array::from_fn(|i| stored[i].get() * call.scale)
            };
            let mixed = row.attend::<L, D, V>(&query, keys, values, absent);
            call.write(unit, n, &mixed);
        }
    }
}

impl<T: Stored> Call<T> {
    /// One head's rows, dense and in f32.
    #[inline(always)]
    fn pack<const D: usize>(&self, from: &Heads<T>, unit: Unit, to: &mut Vec<f32>) {
        to.clear();
        for n in 0..self.tokens {
            // SAFETY: image, head and row are inside the tensor, whose last dimension is D.
            let row = unsafe { from.row(unit.image, unit.head, n, D) };
            to.extend(row.iter().map(|x| x.get()));
        }
    }

    /// Fills `row.kept_keys` for query `n` >= 1.
    #[inline(always)]
    fn connect<L: Lanes>(&self, unit: Unit, n: usize, row: &mut RowScratch) {
        // SAFETY: image, head and row are inside the tensor, whose last dimension is `entries`.
        let low_rank = unsafe {
            self.low_rank
                .row(unit.image, unit.head, n - 1, self.entries)
        };
        softmax_into(low_rank, &mut row.coefficients);
        let entries = self.entries;
        keep::<L>(
            self.coefficients,
            &row.coefficients,
            entries,
            &mut row.guesses[0],
            &mut row.kept_entries,
        );
        let coefficient = |&entry: &u32| row.coefficients[entry as usize];
        row.kept_coefficients.clear();
        row.kept_coefficients
            .extend(row.kept_entries.iter().map(coefficient));
        let stride = self.tokens.next_multiple_of(LANES);
        let image = if self.basis_per_image { unit.image } else { 0 };
        let basis = &self.basis[image * entries * stride..][..entries * stride];
        row.score::<L>(basis, stride, self.tokens);
        keep::<L>(
            self.connections,
            &row.scores,
            self.tokens,
            &mut row.guesses[1],
            &mut row.kept_keys,
        );
    }

    #[inline(always)]
    fn write<const D: usize>(&self, unit: Unit, n: usize, mixed: &[f32; D]) {
        let row = (unit.image * self.tokens + n) * self.heads + unit.head;
        // SAFETY: `out` is [B, tokens, heads * D], contiguous; this row and head are this unit's alone.
        let out = unsafe { std::slice::from_raw_parts_mut(self.out.add(row * D), D) };
        for (to, &value) in out.iter_mut().zip(mixed) {
            *to = T::put(value);
        }
    }
}

/// softmax, padded with -1 to whole lanes.
#[inline(always)]
fn softmax_into<T: Stored>(scores: &[T], out: &mut Vec<f32>) {
    out.clear();
    out.extend(scores.iter().map(|s| s.get()));
    let max = max_of(f32::NEG_INFINITY, out);
    out.iter_mut().for_each(|x| *x = exp_nonpositive(*x - max));
    let inverse = 1.0 / sum_of(out);
    out.iter_mut().for_each(|x| *x *= inverse);
    out.resize(scores.len().next_multiple_of(LANES), -1.0);
}

impl RowScratch {
    /// Every key stays.
    #[inline(always)]
    fn connect_all(&mut self, tokens: usize) {
        self.kept_keys.clear();
        self.kept_keys.extend(0..tokens as u32);
    }

    /// Scores of all keys: the kept coefficients times their rows of the basis, padded with -1 to whole lanes.
    #[inline(always)]
    fn score<L: Lanes>(&mut self, basis: &[f32], stride: usize, tokens: usize) {
        self.scores.resize(stride, 0.0);
        let basis = basis.as_chunks::<LANES>().0;
        let columns = stride / LANES;
        let scores = self.scores.as_chunks_mut::<LANES>().0;
        let kept = (&self.kept_entries[..], &self.kept_coefficients[..]);
        let (blocks, rest) = scores.as_chunks_mut::<4>();
        for (i, block) in blocks.iter_mut().enumerate() {
            weighted_sum::<L, 4>(basis, columns, 4 * i, kept, block);
        }
        let done = columns - rest.len();
        for (i, lanes) in rest.iter_mut().enumerate() {
            weighted_sum::<L, 1>(basis, columns, done + i, kept, std::array::from_mut(lanes));
        }
        self.scores[tokens..].fill(-1.0);
    }

    /// softmax(q k^T) v over the kept keys and `absent` more with score and value zero; zeros where there are none.
    #[inline(always)]
    fn attend<L: Lanes, const D: usize, const V: usize>(
        &mut self,
        query: &[f32; D],
        keys: &[[f32; D]],
        values: &[[f32; D]],
        absent: i64,
    ) -> [f32; D] {
        let q: [L; V] = lanes_of(query);
        self.weights.resize(self.kept_keys.len(), 0.0);
        let weights = self.weights.as_mut_slice();
        for (weight, &n) in weights.iter_mut().zip(&self.kept_keys) {
            let k: [L; V] = lanes_of(&keys[n as usize]);
            let mut sum = L::splat(0.0);
            for i in 0..V {
                sum = q[i].fma(k[i], sum);
            }
            *weight = sum.sum();
        }
        let start = if absent > 0 { 0.0 } else { f32::NEG_INFINITY };
        let max = max_of(start, weights);
        for weight in weights.iter_mut() {
            *weight = exp_nonpositive(*weight - max);
        }
        let mut total = sum_of(weights);
        if absent > 0 {
            total += absent as f32 * exp_nonpositive(-max);
        }
        let inverse = L::splat(if total > 0.0 { 1.0 / total } else { 0.0 });
        let (mut even, mut odd) = ([L::splat(0.0); V], [L::splat(0.0); V]);
        let (pairs, last) = self.kept_keys.as_chunks::<2>();
        let (weight_pairs, last_weight) = weights.as_chunks::<2>();
        for (at, weight) in pairs.iter().zip(weight_pairs) {
            accumulate(&mut even, &values[at[0] as usize], weight[0]);
            accumulate(&mut odd, &values[at[1] as usize], weight[1]);
        }
        for (&at, &weight) in last.iter().zip(last_weight) {
            accumulate(&mut even, &values[at as usize], weight);
        }
        let mut out = [0.0; D];
        for (i, to) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let sum = even[i].fma(L::splat(1.0), odd[i]);
            sum.fma(inverse, L::splat(0.0)).store(to);
        }
        out
    }
}

/// C lanes from lane `start` of the sum of the given rows, times their weights, of a table with `columns` lanes a row.
#[inline(always)]
fn weighted_sum<L: Lanes, const C: usize>(
    table: &[[f32; LANES]],
    columns: usize,
    start: usize,
    (rows, weights): (&[u32], &[f32]),
    out: &mut [[f32; LANES]; C],
) {
    let mut sums = [L::splat(0.0); C];
    for (&row, &weight) in rows.iter().zip(weights) {
        let part = &table[row as usize * columns + start..][..C];
        let weight = L::splat(weight);
        for i in 0..C {
            sums[i] = L::load(&part[i]).fma(weight, sums[i]);
        }
    }
    for i in 0..C {
        sums[i].store(&mut out[i]);
    }
}

/// sum += row * weight.
#[inline(always)]
fn accumulate<L: Lanes, const D: usize, const V: usize>(
    sum: &mut [L; V],
    row: &[f32; D],
    weight: f32,
) {
    let weight = L::splat(weight);
    let row: [L; V] = lanes_of(row);
    for i in 0..V {
        sum[i] = row[i].fma(weight, sum[i]);
    }
}

/// A row as lanes.
#[inline(always)]
fn lanes_of<L: Lanes, const D: usize, const V: usize>(row: &[f32; D]) -> [L; V] {
    let chunks = row.as_chunks::<LANES>().0;
    let mut lanes = [L::splat(0.0); V];
    for (to, chunk) in lanes.iter_mut().zip(chunks) {
        *to = L::load(chunk);
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_the_nearest_even() {
        let through = |x: f32| Bf16::put(x).get();
        assert_eq!(through(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(through(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        assert_eq!(through(-1.0 - 1.0 / 300.0), -1.0);
        assert!(through(f32::NAN).is_nan());
        assert_eq!(through(f32::INFINITY), f32::INFINITY);
    }
}
