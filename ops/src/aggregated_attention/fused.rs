//! The kernel: a strip of queries that are on in one head, side by side in vectors, meets pooled keys as a product of
//! matrices and its neighbours one query at a time.

use super::problem::{Item, Problem};
use super::rows::{dot, load_unit, mix, soften};
use super::{AggregatedTerms, AggregatedTokens};
use crate::grouped_attention::kernel::{STRIP, Strided, multiply};
use crate::grouped_attention::simd::{Computation, Isa, Simd};
use crate::grouped_attention::view::{Number, load};
use crate::threads;
use half::bf16;
use std::f32::consts::LOG2_E;
use tch::{Kind, Tensor};

/// Tokens of a map that are worked on together.
const CHUNK: usize = 256;

/// [B, N, heads * D].
pub(super) fn attend(
    side: i64,
    tokens: &AggregatedTokens,
    terms: &AggregatedTerms,
    gates: &Tensor,
) -> Tensor {
    attend_with(Isa::best(), side, tokens, terms, gates)
}

pub(super) fn attend_with(
    isa: Isa,
    side: i64,
    tokens: &AggregatedTokens,
    terms: &AggregatedTerms,
    gates: &Tensor,
) -> Tensor {
    match tokens.own[0].kind() {
        Kind::Float => Problem::<f32>::new(side, tokens, terms, gates).run(isa),
        Kind::BFloat16 => Problem::<bf16>::new(side, tokens, terms, gates).run(isa),
        kind => panic!("aggregated attention's kernel takes f32 and bf16, not {kind:?}"),
    }
}

/// The scratch of one thread. `stride` is the width of a head, padded.
struct Work {
    /// Tokens that are on.
    on: Vec<usize>,
    /// Unit keys and values of the chunk's tokens and what lies around, [.., stride]; the first is token `near_from`.
    near_k: Vec<f32>,
    near_v: Vec<f32>,
    near_from: usize,
    /// Unit keys [P, D] and values [P, stride].
    pooled_k: Vec<f32>,
    pooled_v: Vec<f32>,
    /// [slots, D].
    learnt: Vec<f32>,
    /// Queries as they meet keys, times log2(e): [STRIP, stride] and [D, STRIP]; unit queries [D, STRIP].
    rows: Vec<f32>,
    columns: Vec<f32>,
    units: Vec<f32>,
    /// [P + slots, STRIP], logits and then weights, not yet divided by `sum`.
    scores: Vec<f32>,
    /// What is added to the neighbours' weights, [slots, STRIP].
    added: Vec<f32>,
    sum: [f32; STRIP],
    /// [STRIP, stride].
    out: Vec<f32>,
    /// Slots and tokens of the neighbours of one query.
    neighbours: Vec<(usize, usize)>,
    /// Where these stand in `near_v`, and their weights.
    weights: Vec<(usize, f32)>,
}

/// Where items write; every token of every head belongs to one item.
struct Output<T>(*mut T);

// SAFETY: items write to disjoint places, and nobody reads before all are done.
unsafe impl<T: Send> Sync for Output<T> {}

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
        unsafe { self.problem.process::<S>(self.item, self.work, self.target) }
    }
}

impl<T: Number> Problem<'_, T> {
    fn scratch(&self) -> Work {
        let (width, stride, slots) = (self.q.size[3], self.stride(), self.slots());
        let pooled = self.pooled();
        let near = (CHUNK + 2 * self.reach()).min(self.q.size[2]) * stride;
        Work {
            on: Vec::with_capacity(CHUNK),
            near_k: vec![0.0; near],
            near_v: vec![0.0; near],
            near_from: 0,
            pooled_k: vec![0.0; pooled * width],
            pooled_v: vec![0.0; pooled * stride],
            learnt: vec![0.0; slots * width],
            rows: vec![0.0; STRIP * stride],
            columns: vec![0.0; width * STRIP],
            units: vec![0.0; width * STRIP],
            scores: vec![0.0; (pooled + slots) * STRIP],
            added: vec![0.0; slots * STRIP],
            sum: [0.0; STRIP],
            out: vec![0.0; STRIP * stride],
            neighbours: Vec::with_capacity(slots),
            weights: Vec::with_capacity(slots),
        }
    }

    fn run(&self, isa: Isa) -> Tensor {
        let [batch, heads, count, width] = self.q.size;
        let shape = [batch, count, heads * width].map(|n| n as i64);
        let out = Tensor::zeros(shape, (T::KIND, tch::Device::Cpu));
        let target = Output(out.data_ptr() as *mut T);
        let chunks = count.div_ceil(CHUNK);
        let item = |i: usize| Item {
            head: i % heads,
            first: i / heads % chunks * CHUNK,
            batch: i / heads / chunks,
        };
        let scratch = || self.scratch();
        threads::for_each(batch * chunks * heads, heads, scratch, |work, i| {
            let step = Step {
                problem: self,
                item: item(i),
                work,
                target: &target,
            };
            // SAFETY: `attend` and the tests give sets that the CPU has.
            unsafe { isa.run(step) }
        });
        out
    }

    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    unsafe fn process<S: Simd>(&self, item: Item, work: &mut Work, target: &Output<T>) {
        let last = (item.first + CHUNK).min(self.q.size[2]);
        work.on.clear();
        let on = |&token: &usize| self.gate(item, token) != 0.0;
        work.on.extend((item.first..last).filter(on));
        if work.on.is_empty() {
            return;
        }
        self.load_keys(item, last, work);
        for first in (0..work.on.len()).step_by(STRIP) {
            let strip = first..(first + STRIP).min(work.on.len());
            let on = std::mem::take(&mut work.on);
            // SAFETY: the caller vouches for the instruction set.
            unsafe { self.attend_strip::<S>(item, &on[strip], work, target) };
            work.on = on;
        }
    }

    /// Loads what all strips of a chunk read.
    #[inline(always)]
    fn load_keys(&self, item: Item, last: usize, work: &mut Work) {
        let (width, stride) = (self.q.size[3], self.stride());
        work.near_from = item.first.saturating_sub(self.reach());
        let near_to = (last + self.reach()).min(self.q.size[2]);
        for (token, row) in (work.near_from..near_to).zip(0..) {
            let (k, v) = (
                self.row(&self.k, item, token),
                self.row(&self.v, item, token),
            );
            load_unit(k, &mut work.near_k[row * stride..][..width]);
            load(v, &mut work.near_v[row * stride..][..width]);
        }
        for token in 0..self.pooled() {
            let k = self.row(&self.pooled_k, item, token);
            load_unit(k, &mut work.pooled_k[token * width..][..width]);
            let v = self.row(&self.pooled_v, item, token);
            load(v, &mut work.pooled_v[token * stride..][..width]);
        }
        for (slot, row) in work.learnt.chunks_exact_mut(width).enumerate() {
            for (d, x) in row.iter_mut().enumerate() {
                *x = self.local_tokens.data[self.local_tokens.offset([item.head, d, slot])];
            }
        }
    }

    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    unsafe fn attend_strip<S: Simd>(
        &self,
        item: Item,
        on: &[usize],
        work: &mut Work,
        target: &Output<T>,
    ) {
        let (width, stride, pooled) = (self.q.size[3], self.stride(), self.pooled());
        let vectors = on.len().div_ceil(S::LANES);
        self.load_queries(item, on, work);
        // SAFETY: the caller vouches for the instruction set; the functions check their slices.
        unsafe {
            multiply::<S>(
                [pooled, vectors, width],
                Strided::new(&work.pooled_k, width, 1),
                (&work.columns, STRIP),
                (&mut work.scores, STRIP),
                false,
            );
            self.add_pooled_bias(item, on, work);
            self.score_neighbours::<S>(item, on, work);
            multiply::<S>(
                [self.slots(), vectors, width],
                Strided::new(&work.learnt, width, 1),
                (&work.units, STRIP),
                (&mut work.added, STRIP),
                false,
            );
            soften::<S>(&mut work.scores, vectors, &mut work.sum);
            multiply::<S>(
                [on.len(), stride / S::LANES, pooled],
                Strided::new(&work.scores, 1, STRIP),
                (&work.pooled_v, stride),
                (&mut work.out, stride),
                false,
            );
            self.mix_neighbours::<S>(item, on, work);
        }
        self.store(item, on, work, target);
    }

    /// Unit queries, and queries as they meet keys.
    #[inline(always)]
    fn load_queries(&self, item: Item, on: &[usize], work: &mut Work) {
        let (width, stride) = (self.q.size[3], self.stride());
        let embedding = &self.embedding.data[self.embedding.offset([item.head, 0, 0])..];
        let step = self.embedding.stride[2];
        for (i, &token) in on.iter().enumerate() {
            let row = &mut work.rows[i * stride..][..width];
            load_unit(self.row(&self.q, item, token), row);
            let sharpness = self.sharpness.data[self.sharpness.offset([item.head, token, 0])];
            let by = sharpness * LOG2_E;
            for (d, x) in row.iter_mut().enumerate() {
                work.units[d * STRIP + i] = *x;
                *x = (*x + embedding[d * step]) * by;
                work.columns[d * STRIP + i] = *x;
            }
        }
    }

    #[inline(always)]
    fn add_pooled_bias(&self, item: Item, on: &[usize], work: &mut Work) {
        let step = self.pooled_bias.stride[1];
        let together = step == 1 && on[on.len() - 1] - on[0] == on.len() - 1;
        let rows = work.scores.chunks_exact_mut(STRIP).take(self.pooled());
        for (key, row) in rows.enumerate() {
            let from = &self.pooled_bias.data[self.pooled_bias.offset([item.head, 0, key])..];
            if together {
                for (x, bias) in row.iter_mut().zip(&from[on[0]..][..on.len()]) {
                    *x += bias * LOG2_E;
                }
            } else {
                for (x, &token) in row.iter_mut().zip(on) {
                    *x += from[token * step] * LOG2_E;
                }
            }
        }
    }

    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    unsafe fn score_neighbours<S: Simd>(&self, item: Item, on: &[usize], work: &mut Work) {
        let (stride, columns) = (self.stride(), self.map[1]);
        let scores = &mut work.scores[self.pooled() * STRIP..];
        for (i, &token) in on.iter().enumerate() {
            let place = [item.head, token / columns, token % columns, 0];
            let bias = &self.local_bias.data[self.local_bias.offset(place)..];
            let query = &work.rows[i * stride..][..stride];
            for slot in scores[i..].iter_mut().step_by(STRIP) {
                *slot = f32::NEG_INFINITY;
            }
            self.neighbours(token, &mut work.neighbours);
            for &(slot, at) in &work.neighbours {
                let key = &work.near_k[(at - work.near_from) * stride..][..stride];
                // SAFETY: the caller vouches for the instruction set.
                let product = unsafe { dot::<S>(query, key) };
                scores[slot * STRIP + i] =
                    product + bias[slot * self.local_bias.stride[3]] * LOG2_E;
            }
        }
    }

    /// Divides by the softmax's sum, adds the neighbours' values and applies the gate, in `out`.
    ///
    /// # Safety
    /// The CPU has the instruction set `S`.
    #[inline(always)]
    unsafe fn mix_neighbours<S: Simd>(&self, item: Item, on: &[usize], work: &mut Work) {
        let (stride, local) = (self.stride(), self.pooled() * STRIP);
        let offset = &self.local_offset.data[self.local_offset.offset([item.head, 0, 0])..];
        for (i, &token) in on.iter().enumerate() {
            let gate = self.gate(item, token);
            let share = 1.0 / work.sum[i];
            self.neighbours(token, &mut work.neighbours);
            work.weights.clear();
            for &(slot, at) in &work.neighbours {
                let weight = work.scores[local + slot * STRIP + i] * share
                    + work.added[slot * STRIP + i]
                    + offset[slot * self.local_offset.stride[2]];
                let place = (at - work.near_from) * stride;
                work.weights.push((place, weight * gate));
            }
            let row = &mut work.out[i * stride..][..stride];
            // SAFETY: the caller vouches for the instruction set.
            unsafe { mix::<S>(row, share * gate, &work.near_v, &work.weights) };
        }
    }

    #[inline(always)]
    fn store(&self, item: Item, on: &[usize], work: &Work, target: &Output<T>) {
        let [_, heads, count, width] = self.q.size;
        for (i, &token) in on.iter().enumerate() {
            let start = ((item.batch * count + token) * heads + item.head) * width;
            // SAFETY: these `width` elements are in the output, [B, N, heads, width], and no other item has this token
            // of this head.
            let out = unsafe { std::slice::from_raw_parts_mut(target.0.add(start), width) };
            for (out, &x) in out.iter_mut().zip(&work.out[i * self.stride()..]) {
                *out = T::narrow(x);
            }
        }
    }
}
