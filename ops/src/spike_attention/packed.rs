//! The fused form of spiking self-attention: queries, keys and values as bits.
//!
//! k^T v of spikes counts the tokens at which a channel of the keys and one of the values fire together: a population
//! count of 64 tokens at a time. A query then adds the rows of its channels that fire. All of it is whole numbers below
//! 2^24, so that the result is that of the composed form, in either order, to the last bit.

use crate::simd::{self, Kernel, LANES, Lanes};
use crate::{inference, threads};
use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind, Tensor};

/// Tokens or channels of a word.
const WORD: usize = 64;
/// Products of one channel that make another thread worth waking.
const WORTH_THREADS: usize = 1 << 20;

/// scale * q (k^T v) of spikes [B, N, C] per head, joined again: [B, N, C]. Nothing where the kernel does not apply, or
/// where something is neither 0 nor 1.
pub(super) fn attend(qkv: [&Tensor; 3], heads: i64, scale: f64) -> Option<Tensor> {
    let size = qkv[0].size();
    let [batch, tokens, channels] = size.as_slice() else {
        return None;
    };
    let plain = |t: &Tensor| {
        t.device() == Device::Cpu
            && t.kind() == Kind::Float
            && !t.requires_grad()
            && t.size() == size
    };
    if !qkv.into_iter().all(plain) || qkv[0].numel() == 0 || inference::tracing() {
        return None;
    }
    let [q, k, v] = qkv.map(Tensor::contiguous);
    let out = q.empty_like();
    let values = |t: &Tensor| t.data_ptr() as *const f32;
    let call = Call {
        qkv: [values(&q), values(&k), values(&v)],
        out: out.data_ptr() as *mut f32,
        tokens: *tokens as usize,
        width: (channels / heads) as usize,
        heads: heads as usize,
        scale: scale as f32,
        analog: AtomicBool::new(false),
    };
    let run = |index: usize| simd::dispatch(Head { call: &call, index });
    let count = (batch * heads) as usize;
    let work = count * call.tokens * call.width * call.width;
    if tch::get_num_threads() == 1 || work < WORTH_THREADS {
        (0..count).for_each(run);
    } else {
        threads::install(|| (0..count).into_par_iter().for_each(run));
    }
    (!call.analog.load(Ordering::Relaxed)).then_some(out)
}

/// What all heads share: pointers to [B, N, heads * width].
struct Call {
    qkv: [*const f32; 3],
    out: *mut f32,
    tokens: usize,
    width: usize,
    heads: usize,
    scale: f32,
    /// Whether somebody met what is no spike; the result is not used then.
    analog: AtomicBool,
}

// SAFETY: inputs are only read; each head writes columns of `out` that no other writes.
unsafe impl Sync for Call {}

#[derive(Default)]
struct Scratch {
    /// Of each channel, the tokens at which keys fire, and values; then k^T v [width, width].
    keys: Vec<u64>,
    values: Vec<u64>,
    context: Vec<f32>,
    row: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Head `index` of all images' heads.
struct Head<'a> {
    call: &'a Call,
    index: usize,
}

impl Kernel for Head<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        SCRATCH.with_borrow_mut(|scratch| {
            if self.attend::<L>(scratch).is_none() {
                self.call.analog.store(true, Ordering::Relaxed);
            }
        });
    }
}

impl Head<'_> {
    /// Where this head's channels of a token are.
    fn at(&self, token: usize) -> usize {
        let (image, head) = (self.index / self.call.heads, self.index % self.call.heads);
        ((image * self.call.tokens + token) * self.call.heads + head) * self.call.width
    }

    fn row(&self, which: usize, token: usize) -> &[f32] {
        // SAFETY: the tensor has `width` values there.
        unsafe {
            std::slice::from_raw_parts(self.call.qkv[which].add(self.at(token)), self.call.width)
        }
    }

    #[inline(always)]
    fn attend<L: Lanes>(&self, scratch: &mut Scratch) -> Option<()> {
        let (tokens, width) = (self.call.tokens, self.call.width);
        let words = tokens.div_ceil(WORD);
        self.by_channel::<L>(1, words, &mut scratch.keys)?;
        self.by_channel::<L>(2, words, &mut scratch.values)?;
        let padded = width.next_multiple_of(LANES);
        scratch.context.clear();
        scratch.context.resize(width * padded, 0.0);
        let rows = scratch.context.chunks_exact_mut(padded);
        for (row, key) in rows.zip(scratch.keys.chunks_exact(words)) {
            for (count, value) in row.iter_mut().zip(scratch.values.chunks_exact(words)) {
                let both = key.iter().zip(value).map(|(k, v)| (k & v).count_ones());
                *count = both.sum::<u32>() as f32 * self.call.scale;
            }
        }
        scratch.row.resize(padded, 0.0);
        for token in 0..tokens {
            scratch.row.fill(0.0);
            for_each_spike::<L>(self.row(0, token), |channel| {
                let context = &scratch.context[channel * padded..(channel + 1) * padded];
                add::<L>(&mut scratch.row, context);
            })?;
            // SAFETY: `width` values of the result that are this head's alone.
            let out =
                unsafe { std::slice::from_raw_parts_mut(self.call.out.add(self.at(token)), width) };
            out.copy_from_slice(&scratch.row[..width]);
        }
        Some(())
    }

    /// Of each channel, the tokens at which it fires, one bit each.
    #[inline(always)]
    fn by_channel<L: Lanes>(&self, which: usize, words: usize, bits: &mut Vec<u64>) -> Option<()> {
        bits.clear();
        bits.resize(self.call.width * words, 0);
        for token in 0..self.call.tokens {
            let (word, bit) = (token / WORD, 1u64 << (token % WORD));
            for_each_spike::<L>(self.row(which, token), |channel| {
                bits[channel * words + word] |= bit;
            })?;
        }
        Some(())
    }
}

/// Calls `f` with the place of every 1, in order; nothing where a value is neither 0 nor 1.
#[inline(always)]
fn for_each_spike<L: Lanes>(values: &[f32], mut f: impl FnMut(usize)) -> Option<()> {
    let (whole, tail) = values.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..tail.len()].copy_from_slice(tail);
    let tail = (!tail.is_empty()).then_some(&last);
    for (i, lanes) in whole.iter().chain(tail).enumerate() {
        let (mut fires, rest) = L::load(lanes).take_at_least(1.0);
        if !rest.is_zero() {
            return None;
        }
        while fires != 0 {
            f(LANES * i + fires.trailing_zeros() as usize);
            fires &= fires - 1;
        }
    }
    Some(())
}

/// to += row.
#[inline(always)]
fn add<L: Lanes>(to: &mut [f32], row: &[f32]) {
    let ((to, _), (row, _)) = (to.as_chunks_mut::<LANES>(), row.as_chunks::<LANES>());
    for (to, row) in to.iter_mut().zip(row) {
        L::load(to).add(L::load(row)).store(to);
    }
}
