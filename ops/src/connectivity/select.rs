//! Which entries of a row stay: exact, without sorting.

use super::Keep;
use crate::simd::{LANES, Lanes};

/// The first of `count` entries of `x` (non-negative; padded with -1 to whole lanes) that stay, ascending.
#[inline(always)]
pub(super) fn keep<L: Lanes>(
    rule: Keep,
    x: &[f32],
    count: usize,
    guess: &mut f32,
    kept: &mut Vec<u32>,
) {
    kept.clear();
    match rule {
        Keep::Above(threshold) => {
            let above = threshold as f32;
            kept.extend((0..count as u32).filter(|&i| x[i as usize] > above));
        }
        Keep::Largest(budget) if budget as usize >= count => kept.extend(0..count as u32),
        Keep::Largest(budget) => largest::<L>(budget as usize, x, guess, kept),
    }
}

/// Pivots that a pass over the row compares with at once.
const PIVOTS: usize = 8;

/// Exactly `budget` >= 1 entries, fewer than there are; of equal ones at the border the first.
///
/// `guess` is where the border was last time: rows of one head are alike. It costs passes when wrong, never changes
/// what is kept.
#[inline(always)]
fn largest<L: Lanes>(budget: usize, x: &[f32], guess: &mut f32, kept: &mut Vec<u32>) {
    let lanes = x.as_chunks::<LANES>().0;
    // Bits of non-negative floats are ordered as the floats are. At `low` at least `budget` entries remain, at `high` fewer.
    let (mut low, mut high) = (0u32, max_of(0.0, x).to_bits() + 1);
    let (mut at_low, mut at_high) = (count_from::<L, 1>(lanes, &[0.0])[0], 0);
    let mut pass = 0;
    while at_low > budget && high - low > 1 {
        let pivots = match pass {
            0 => around(*guess, low, high),
            odd if odd % 2 == 1 => evenly_in_value(low, high),
            _ => evenly_in_bits(low, high),
        };
        let counts = count_from::<L, PIVOTS>(lanes, &pivots.map(f32::from_bits));
        let below = counts.iter().filter(|&&count| count >= budget).count();
        if below > 0 {
            (low, at_low) = (pivots[below - 1], counts[below - 1]);
        }
        if below < PIVOTS {
            (high, at_high) = (pivots[below], counts[below]);
        }
        pass += 1;
    }
    *guess = f32::from_bits(low);
    take_from::<L>(lanes, f32::from_bits(low), kept);
    if kept.len() > budget {
        // More entries equal the border than fit.
        let (border, mut ties) = (f32::from_bits(low), budget - at_high);
        kept.retain(|&i| {
            let tied = x[i as usize] == border;
            let stays = !tied || ties > 0;
            ties -= usize::from(tied && stays);
            stays
        });
    }
}

/// Ascending bit patterns around those of `guess`, all strictly between `low` and `high`, which are at least 2 apart.
#[inline(always)]
fn around(guess: f32, low: u32, high: u32) -> [u32; PIVOTS] {
    const STEPS: [f32; PIVOTS] = [0.8, 0.9, 0.95, 0.985, 1.015, 1.05, 1.1, 1.2];
    STEPS.map(|step| (guess * step).to_bits().clamp(low + 1, high - 1))
}

/// The same, evenly spaced in value.
#[inline(always)]
fn evenly_in_value(low: u32, high: u32) -> [u32; PIVOTS] {
    let (from, to) = (f32::from_bits(low), f32::from_bits(high));
    let step = (to - from) / (PIVOTS + 1) as f32;
    std::array::from_fn(|i| {
        let pivot = from + step * (i + 1) as f32;
        pivot.to_bits().clamp(low + 1, high - 1)
    })
}

/// The same, evenly spaced in bits: certain to narrow down to one pattern.
#[inline(always)]
fn evenly_in_bits(low: u32, high: u32) -> [u32; PIVOTS] {
    let step = ((high - low) / (PIVOTS + 1) as u32).max(1);
    std::array::from_fn(|i| (low + step * (i + 1) as u32).min(high - 1))
}

/// How many entries are at least each of `values`.
#[inline(always)]
fn count_from<L: Lanes, const C: usize>(lanes: &[[f32; LANES]], values: &[f32; C]) -> [usize; C] {
    let mut counts = [L::no_counts(); C];
    let mut borders = [L::splat(0.0); C];
    for i in 0..C {
        borders[i] = L::splat(values[i]);
    }
    for chunk in lanes {
        let x = L::load(chunk);
        for i in 0..C {
            counts[i] = x.count_at_least(borders[i], counts[i]);
        }
    }
    let mut totals = [0; C];
    for i in 0..C {
        totals[i] = L::total(counts[i]) as usize;
    }
    totals
}

/// The indices of all entries that are at least `value`, ascending.
#[inline(always)]
fn take_from<L: Lanes>(lanes: &[[f32; LANES]], value: f32, kept: &mut Vec<u32>) {
    let mut count = 0;
    kept.resize((lanes.len() + 1) * LANES, 0);
    for (i, chunk) in lanes.iter().enumerate() {
        let bits = L::load(chunk).at_least(value);
        let room = kept[count..].first_chunk_mut().expect("one chunk to spare");
        L::indices(bits, (i * LANES) as u32, room);
        count += bits.count_ones() as usize;
    }
    kept.truncate(count);
}

/// The largest of `x` and `start`.
#[inline(always)]
pub(super) fn max_of(start: f32, x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [start; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], chunk[i]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, value);
    }
    lanes.into_iter().fold(start, larger)
}

/// The sum of `x`.
#[inline(always)]
pub(super) fn sum_of(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += value;
    }
    lanes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{self, Kernel};
    use proptest::prelude::*;

    /// Runs [`largest`] on `x`, padded.
    struct Select<'a> {
        budget: usize,
        x: &'a [f32],
        guess: f32,
        kept: &'a mut Vec<u32>,
    }

    impl Kernel for Select<'_> {
        #[inline(always)]
        fn run<L: Lanes>(mut self) {
            let mut padded = self.x.to_vec();
            padded.resize(self.x.len().next_multiple_of(LANES), -1.0);
            largest::<L>(self.budget, &padded, &mut self.guess, self.kept);
        }
    }

    /// A stable sort, largest first.
    fn expected(budget: usize, x: &[f32]) -> Vec<u32> {
        let mut order: Vec<u32> = (0..x.len() as u32).collect();
        order.sort_by(|&a, &b| x[b as usize].total_cmp(&x[a as usize]));
        order.truncate(budget);
        order.sort_unstable();
        order
    }

    fn values() -> impl Strategy<Value = f32> {
        prop_oneof![
            Just(0.0),
            (0u8..4).prop_map(|i| f32::from(i) * 0.25),
            0.0f32..1.0,
            1e-38f32..1e-30,
            (0u32..5).prop_map(|ulps| f32::from_bits(0.5f32.to_bits() + ulps)),
        ]
    }

    proptest! {
        #[test]
        fn the_largest_are_kept_whatever_the_guess(
            x in prop::collection::vec(values(), 2..220),
            share in 0.0f64..1.0,
            guess in values(),
        ) {
            let budget = ((x.len() as f64 * share) as usize).clamp(1, x.len() - 1);
            let mut kept = Vec::new();
            simd::dispatch(Select { budget, x: &x, guess, kept: &mut kept });
            prop_assert_eq!(&kept, &expected(budget, &x));
            Select { budget, x: &x, guess, kept: &mut kept }.run::<[f32; LANES]>();
            prop_assert_eq!(&kept, &expected(budget, &x));
        }
    }
}
