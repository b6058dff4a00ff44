//! The fused form of spiking self-attention: queries, keys and values as bits.
//!
//! k^T v of spikes counts the tokens at which a channel of the keys and one of the values fire together: a population
//! count of 64 tokens at a time. A query then adds the rows of its channels that fire. All of it is whole numbers below
//! 2^24, so that the result is that of the composed form, in either order, to the last bit.

use crate::simd::{self, Kernel, LANES, Lanes};
use crate::{inference, threads};
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
    let run = |index: usize| {
        SCRATCH.with_borrow_mut(|scratch| {
            simd::dispatch(Head {
                call: &call,
                index,
                scratch,
            });
        });
    };
    let count = (batch * heads) as usize;
    let work = count * call.tokens * call.width * call.width;
    if tch::get_num_threads() == 1 || work < WORTH_THREADS {
        (0..count).for_each(run);
    } else {
        threads::for_each(count, 1, || (), |(), i| run(i));
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

/// Columns of k^T v that are summed together.
const COLUMNS: usize = 2 * LANES;

#[derive(Default)]
struct Scratch {
    /// Of each channel, the tokens at which keys fire, and values.
    keys: Vec<u64>,
    values: Vec<u64>,
    /// k^T v, rows of a multiple of [`COLUMNS`].
    context: Vec<f32>,
    /// Of one token, the channels that fire, 16 of them in each.
    fires: Vec<u16>,
    row: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Head `index` of all images' heads.
struct Head<'a> {
    call: &'a Call,
    index: usize,
    scratch: &'a mut Scratch,
}

impl Kernel for Head<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let analog = &self.call.analog;
        if self.attend::<L>().is_none() {
            analog.store(true, Ordering::Relaxed);
        }
    }
}

impl Head<'_> {
    #[inline(always)]
    fn attend<L: Lanes>(self) -> Option<()> {
        let (tokens, width) = (self.call.tokens, self.call.width);
        let Scratch {
            keys,
            values,
            context,
            fires,
            row,
        } = self.scratch;
        let words = tokens.div_ceil(WORD);
        let padded = width.next_multiple_of(COLUMNS);
        self.call.by_channel::<L>(1, self.index, fires, keys)?;
        self.call.by_channel::<L>(2, self.index, fires, values)?;
        context.clear();
        context.resize(width * padded, 0.0);
        let rows = context.chunks_exact_mut(padded);
        for (row, key) in rows.zip(keys.chunks_exact(words)) {
            for (count, value) in row.iter_mut().zip(values.chunks_exact(words)) {
                let both = key.iter().zip(value).map(|(k, v)| (k & v).count_ones());
                *count = both.sum::<u32>() as f32 * self.call.scale;
            }
        }
        row.resize(padded, 0.0);
        for token in 0..tokens {
            firing::<L>(self.call.row(0, self.index, token), fires)?;
            sum_rows::<L>(fires, context, row);
            let at = self.call.at(self.index, token);
            // SAFETY: `width` values of the result that are this head's alone.
            let out = unsafe { std::slice::from_raw_parts_mut(self.call.out.add(at), width) };
            out.copy_from_slice(&row[..width]);
        }
        Some(())
    }
}

impl Call {
    /// Where the channels of head `index` are at a token.
    fn at(&self, index: usize, token: usize) -> usize {
        let (image, head) = (index / self.heads, index % self.heads);
        ((image * self.tokens + token) * self.heads + head) * self.width
    }

    fn row(&self, which: usize, index: usize, token: usize) -> &[f32] {
        // SAFETY: the tensor has `width` values there.
        unsafe {
            std::slice::from_raw_parts(self.qkv[which].add(self.at(index, token)), self.width)
        }
    }

    /// Of each channel of a head, the tokens at which it fires, one bit each.
    #[inline(always)]
    fn by_channel<L: Lanes>(
        &self,
        which: usize,
        index: usize,
        fires: &mut Vec<u16>,
        bits: &mut Vec<u64>,
    ) -> Option<()> {
        let words = self.tokens.div_ceil(WORD);
        bits.clear();
        bits.resize(self.width * words, 0);
        for token in 0..self.tokens {
            let (word, bit) = (token / WORD, 1u64 << (token % WORD));
            firing::<L>(self.row(which, index, token), fires)?;
            for (i, &some) in fires.iter().enumerate() {
                let mut some = some;
                while some != 0 {
                    let channel = LANES * i + some.trailing_zeros() as usize;
                    bits[channel * words + word] |= bit;
                    some &= some - 1;
                }
            }
        }
        Some(())
    }
}

/// Which values are 1, sixteen in each of `fires`; nothing where one is neither 0 nor 1.
#[inline(always)]
fn firing<L: Lanes>(values: &[f32], fires: &mut Vec<u16>) -> Option<()> {
    fires.clear();
    let (whole, tail) = values.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..tail.len()].copy_from_slice(tail);
    let tail = (!tail.is_empty()).then_some(&last);
    for lanes in whole.iter().chain(tail) {
        let (some, rest) = L::load(lanes).take_at_least(1.0);
        if !rest.is_zero() {
            return None;
        }
        fires.push(some);
    }
    Some(())
}

/// The sum of those rows of `context` that `fires` names.
#[inline(always)]
fn sum_rows<L: Lanes>(fires: &[u16], context: &[f32], sum: &mut [f32]) {
    let padded = sum.len();
    let (sums, _) = sum.as_chunks_mut::<LANES>();
    let (context, _) = context.as_chunks::<LANES>();
    for (pair, sums) in sums.chunks_exact_mut(2).enumerate() {
        let mut both = [L::splat(0.0); 2];
        for (i, &some) in fires.iter().enumerate() {
            let mut some = some;
            while some != 0 {
                let channel = LANES * i + some.trailing_zeros() as usize;
                let at = channel * (padded / LANES) + 2 * pair;
                both = [
                    both[0].add(L::load(&context[at])),
                    both[1].add(L::load(&context[at + 1])),
                ];
                some &= some - 1;
            }
        }
        both[0].store(&mut sums[0]);
        both[1].store(&mut sums[1]);
    }
}
