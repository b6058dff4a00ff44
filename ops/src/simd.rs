//! Sixteen f32 lanes: AVX-512, AVX2 with FMA, or plain Rust, chosen at run time.
//!
//! Kernels are generic over [`Lanes`], `#[inline(always)]` throughout, and entered through [`dispatch`]. Lanes must not be
//! used inside of a closure, a function that is passed on or a thread-local's `with`: those are compiled for the
//! instructions every processor has, and each operation becomes a call.

#[cfg(target_arch = "x86_64")]
mod x86;

/// Lanes of a [`Lanes`] value.
pub(crate) const LANES: usize = 16;

/// Sixteen f32, and what kernels do with them.
///
/// Methods may use instructions that the processor must have: call them below [`dispatch`] only.
pub(crate) trait Lanes: Copy {
    /// A count for every lane.
    type Counts: Copy;
    fn load(from: &[f32; LANES]) -> Self;
    fn splat(value: f32) -> Self;
    fn store(self, to: &mut [f32; LANES]);
    /// self * by + plus.
    fn fma(self, by: Self, plus: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sum(self) -> f32;
    /// Bit i: lane i >= value.
    fn at_least(self, value: f32) -> u16;
    /// The same, and `value` taken from those lanes.
    fn take_at_least(self, value: f32) -> (u16, Self);
    /// Whether every lane is 0.
    fn is_zero(self) -> bool;
    fn no_counts() -> Self::Counts;
    /// Adds one in every lane that is at least `value`'s.
    fn count_at_least(self, value: Self, counts: Self::Counts) -> Self::Counts;
    /// The sum of all lanes.
    fn total(counts: Self::Counts) -> u32;

    /// `base` plus the position of every set bit, ascending, in front; what follows them is unspecified.
    #[inline(always)]
    fn indices(bits: u16, base: u32, to: &mut [u32; LANES]) {
        let mut rest = bits;
        for index in to.iter_mut().take(bits.count_ones() as usize) {
            *index = base + rest.trailing_zeros();
            rest &= rest - 1;
        }
    }

    /// The nibbles of `bits` that are not zero, 16 * position + nibble each, ascending, and how many; zeros follow them.
    #[inline(always)]
    fn nibbles(bits: u64) -> (u128, u32) {
        let (mut found, mut count) = (0, 0);
        for position in 0..16 {
            let nibble = bits >> (4 * position) & 15;
            if nibble != 0 {
                found |= u128::from(16 * position + nibble) << (8 * count);
                count += 1;
            }
        }
        (found, count)
    }
}

/// A computation that runs with any kind of lanes.
pub(crate) trait Kernel {
    fn run<L: Lanes>(self);
}

#[cfg(test)]
thread_local! {
    /// Tests set these to see the other kinds of lanes.
    pub(crate) static PLAIN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    pub(crate) static NARROW: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs `f` with each kind of lanes that this processor has.
#[cfg(test)]
pub(crate) fn with_all_lanes(f: impl Fn()) {
    f();
    PLAIN.set(true);
    f();
    PLAIN.set(false);
    NARROW.set(true);
    f();
    NARROW.set(false);
}

#[cfg(target_arch = "x86_64")]
fn narrow() -> bool {
    #[cfg(test)]
    return NARROW.get();
    #[cfg(not(test))]
    false
}

/// Runs `kernel` with the widest lanes this processor has.
pub(crate) fn dispatch(kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    {
        #[cfg(test)]
        if PLAIN.get() {
            return kernel.run::<[f32; LANES]>();
        }
        if x86::has_avx2() && is_x86_feature_detected!("avx512f") && !narrow() {
            // SAFETY: the processor has AVX-512F and what comes with AVX2.
            return unsafe { x86::with_avx512(kernel) };
        }
        if x86::has_avx2() {
            // SAFETY: the processor has all that is asked for.
            return unsafe { x86::with_avx2(kernel) };
        }
    }
    kernel.run::<[f32; LANES]>();
}

impl Lanes for [f32; LANES] {
    type Counts = [u32; LANES];

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        *from
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self;
    }

    #[inline(always)]
    fn fma(self, by: Self, plus: Self) -> Self {
        std::array::from_fn(|i| self[i] * by[i] + plus[i])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    fn take_at_least(self, value: f32) -> (u16, Self) {
        let bits = self.at_least(value);
        let rest = self.map(|lane| if lane >= value { lane - value } else { lane });
        (bits, rest)
    }

    #[inline(always)]
    fn is_zero(self) -> bool {
        self.iter().all(|lane| *lane == 0.0)
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = self;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        lanes[0]
    }

    #[inline(always)]
    fn at_least(self, value: f32) -> u16 {
        (0..LANES).fold(0, |bits, i| bits | u16::from(self[i] >= value) << i)
    }

    #[inline(always)]
    fn no_counts() -> Self::Counts {
        [0; LANES]
    }

    #[inline(always)]
    fn count_at_least(self, value: Self, counts: Self::Counts) -> Self::Counts {
        std::array::from_fn(|i| counts[i] + u32::from(self[i] >= value[i]))
    }

    #[inline(always)]
    fn total(counts: Self::Counts) -> u32 {
        counts.iter().sum()
    }
}

/// exp(x) for x <= 0, to about 2e-7 of its value; below -87 it stays at exp(-87).
#[inline(always)]
pub(crate) fn exp_nonpositive(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4 * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let scale = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    value * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_close_everywhere() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_nonpositive(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "{x}: {error}");
        }
        assert!(exp_nonpositive(-1e30) < 2e-38);
    }

    struct Check;

    impl Kernel for Check {
        fn run<L: Lanes>(self) {
            let a: [f32; LANES] = std::array::from_fn(|i| i as f32 - 4.5);
            let x = L::load(&a);
            assert_eq!(x.sum(), 48.0);
            assert_eq!(x.at_least(8.5), 0b1110_0000_0000_0000);
            assert_eq!(x.at_least(-4.5), u16::MAX);
            let mut counts = x.count_at_least(L::splat(8.5), L::no_counts());
            counts = x.count_at_least(L::splat(-1.0), counts);
            assert_eq!(L::total(counts), 3 + 12);
            let mut indices = [0; LANES];
            L::indices(0b1000_0000_0010_0001, 32, &mut indices);
            assert_eq!(indices[..3], [32, 37, 47]);
            let (bits, rest) = L::splat(9.0).take_at_least(8.0);
            assert_eq!((bits, rest.sum(), rest.is_zero()), (u16::MAX, 16.0, false));
            assert!(rest.take_at_least(1.0).1.is_zero());
            assert!(!x.take_at_least(f32::INFINITY).1.is_zero());
            assert!(!L::splat(f32::NAN).is_zero());
            assert_eq!(x.add(x).sum(), 96.0);
            for bits in [0, 1, 0x8000_0000_0000_0000, 0x0120_0f00_3000_0001, u64::MAX] {
                assert_eq!(L::nibbles(bits), <[f32; LANES]>::nibbles(bits));
            }
            let (found, count) = L::nibbles(0x3000_0000_0000_0020);
            assert_eq!((found, count), (0xF312, 2));
            let mut y = [0.0; LANES];
            x.fma(L::splat(2.0), x).store(&mut y);
            assert_eq!(y, a.map(|v| 3.0 * v));
        }
    }

    #[test]
    fn all_kinds_of_lanes_agree() {
        dispatch(Check);
        Check.run::<[f32; LANES]>();
        #[cfg(target_arch = "x86_64")]
        if x86::has_avx2() {
            // SAFETY: just checked.
            unsafe { x86::with_avx2(Check) }
        }
    }
}
