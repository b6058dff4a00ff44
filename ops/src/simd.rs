//! Sixteen f32 lanes: AVX-512, AVX2 with FMA, or plain Rust, chosen at run time.
//!
//! Kernels are generic over [`Lanes`], `#[inline(always)]` throughout, and entered through [`dispatch`].

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
    fn sum(self) -> f32;
    /// Bit i: lane i >= value.
    fn at_least(self, value: f32) -> u16;
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

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, LANES, Lanes};
    use std::arch::x86_64::*;

    /// AVX2 and the scalar instructions that came with it.
    pub(super) fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
    }

    #[target_feature(enable = "avx512f,avx2,fma,popcnt,bmi1,bmi2")]
    pub(super) fn with_avx512(kernel: impl Kernel) {
        kernel.run::<Avx512>();
    }

    #[target_feature(enable = "avx2,fma,popcnt,bmi1,bmi2")]
    pub(super) fn with_avx2(kernel: impl Kernel) {
        kernel.run::<Avx2>();
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx512(__m512);

    impl Lanes for Avx512 {
        type Counts = __m512i;

        #[inline(always)]
        fn load(from: &[f32; LANES]) -> Self {
            // SAFETY: sixteen floats are there; AVX-512F, by the trait's contract.
            Avx512(unsafe { _mm512_loadu_ps(from.as_ptr()) })
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: AVX-512F, by the trait's contract.
            Avx512(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; LANES]) {
            // SAFETY: room for sixteen floats; AVX-512F, by the trait's contract.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        fn fma(self, by: Self, plus: Self) -> Self {
            // SAFETY: AVX-512F, by the trait's contract.
            Avx512(unsafe { _mm512_fmadd_ps(self.0, by.0, plus.0) })
        }

        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: AVX-512F, by the trait's contract.
            unsafe { _mm512_reduce_add_ps(self.0) }
        }

        #[inline(always)]
        fn at_least(self, value: f32) -> u16 {
            // SAFETY: AVX-512F, by the trait's contract.
            unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(self.0, _mm512_set1_ps(value)) }
        }

        #[inline(always)]
        fn no_counts() -> Self::Counts {
            // SAFETY: AVX-512F, by the trait's contract.
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        fn count_at_least(self, value: Self, counts: Self::Counts) -> Self::Counts {
            // SAFETY: AVX-512F, by the trait's contract.
            unsafe {
                let bits = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(self.0, value.0);
                _mm512_mask_add_epi32(counts, bits, counts, _mm512_set1_epi32(1))
            }
        }

        #[inline(always)]
        fn total(counts: Self::Counts) -> u32 {
            // SAFETY: AVX-512F, by the trait's contract.
            unsafe { _mm512_reduce_add_epi32(counts) as u32 }
        }

        #[inline(always)]
        fn indices(bits: u16, base: u32, to: &mut [u32; LANES]) {
            // SAFETY: sixteen integers are read and written; AVX-512F, by the trait's contract.
            unsafe {
                let positions = _mm512_loadu_si512(POSITIONS.as_ptr().cast());
                let positions = _mm512_add_epi32(positions, _mm512_set1_epi32(base as i32));
                let front = _mm512_maskz_compress_epi32(bits, positions);
                _mm512_storeu_si512(to.as_mut_ptr().cast(), front);
            }
        }
    }

    /// 0, 1, .. 15.
    static POSITIONS: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    #[derive(Clone, Copy)]
    pub(super) struct Avx2(__m256, __m256);

    impl Lanes for Avx2 {
        type Counts = (__m256i, __m256i);

        #[inline(always)]
        fn load(from: &[f32; LANES]) -> Self {
            let p = from.as_ptr();
            // SAFETY: sixteen floats are there; AVX2, by the trait's contract.
            unsafe { Avx2(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: AVX2, by the trait's contract.
            unsafe { Avx2(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; LANES]) {
            let p = to.as_mut_ptr();
            // SAFETY: room for sixteen floats; AVX2, by the trait's contract.
            unsafe {
                _mm256_storeu_ps(p, self.0);
                _mm256_storeu_ps(p.add(8), self.1);
            }
        }

        #[inline(always)]
        fn fma(self, by: Self, plus: Self) -> Self {
            // SAFETY: FMA, by the trait's contract.
            unsafe {
                Avx2(
                    _mm256_fmadd_ps(self.0, by.0, plus.0),
                    _mm256_fmadd_ps(self.1, by.1, plus.1),
                )
            }
        }

        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: AVX2, by the trait's contract.
            unsafe {
                let eight = _mm256_add_ps(self.0, self.1);
                let four = _mm_add_ps(
                    _mm256_castps256_ps128(eight),
                    _mm256_extractf128_ps::<1>(eight),
                );
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }

        #[inline(always)]
        fn at_least(self, value: f32) -> u16 {
            // SAFETY: AVX2, by the trait's contract.
            unsafe {
                let value = _mm256_set1_ps(value);
                let bits = |x| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(x, value)) as u16;
                bits(self.0) | bits(self.1) << 8
            }
        }

        #[inline(always)]
        fn no_counts() -> Self::Counts {
            // SAFETY: AVX2, by the trait's contract.
            unsafe { (_mm256_setzero_si256(), _mm256_setzero_si256()) }
        }

        #[inline(always)]
        fn count_at_least(self, value: Self, counts: Self::Counts) -> Self::Counts {
            // SAFETY: AVX2, by the trait's contract.
            unsafe {
                let ones = |x, v| _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GE_OQ>(x, v));
                (
                    _mm256_sub_epi32(counts.0, ones(self.0, value.0)),
                    _mm256_sub_epi32(counts.1, ones(self.1, value.1)),
                )
            }
        }

        #[inline(always)]
        fn total(counts: Self::Counts) -> u32 {
            let mut lanes = [0u32; 8];
            // SAFETY: room for eight integers; AVX2, by the trait's contract.
            unsafe {
                let sum = _mm256_add_epi32(counts.0, counts.1);
                _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum);
            }
            lanes.iter().sum()
        }
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
