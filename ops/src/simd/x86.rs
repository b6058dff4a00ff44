//! Lanes of x86-64: one AVX-512 register, or two of AVX2.

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
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512F, by the trait's contract.
        Avx512(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn take_at_least(self, value: f32) -> (u16, Self) {
        let bits = self.at_least(value);
        // SAFETY: AVX-512F, by the trait's contract.
        let rest = unsafe { _mm512_mask_sub_ps(self.0, bits, self.0, _mm512_set1_ps(value)) };
        (bits, Avx512(rest))
    }

    #[inline(always)]
    fn is_zero(self) -> bool {
        // SAFETY: AVX-512F, by the trait's contract.
        unsafe { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(self.0, _mm512_setzero_ps()) == 0 }
    }

    #[inline(always)]
    fn nibbles(bits: u64) -> (u128, u32) {
        // SAFETY: BMI2, by the trait's contract.
        unsafe { nibbles(bits) }
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

/// [`Lanes::nibbles`] without a branch.
///
/// # Safety
/// The processor must have BMI2 and POPCNT.
#[inline(always)]
unsafe fn nibbles(bits: u64) -> (u128, u32) {
    const NIBBLE_OF_EACH_BYTE: u64 = 0x0F0F_0F0F_0F0F_0F0F;
    const LOWEST_BIT_OF_EACH_BYTE: u64 = 0x0101_0101_0101_0101;
    const POSITIONS: u64 = 0x7060_5040_3020_1000;
    let half = |bits: u64| {
        // SAFETY: BMI2 and POPCNT, by this function's contract.
        unsafe {
            let nibbles = _pdep_u64(bits, NIBBLE_OF_EACH_BYTE);
            let any = nibbles | nibbles >> 1 | nibbles >> 2 | nibbles >> 3;
            let bytes = (any & LOWEST_BIT_OF_EACH_BYTE) * 255;
            (nibbles, bytes, _popcnt64(bytes as i64) as u32)
        }
    };
    let (low, low_bytes, low_bits) = half(bits & 0xFFFF_FFFF);
    let (high, high_bytes, high_bits) = half(bits >> 32);
    // SAFETY: BMI2, by this function's contract.
    let (low, high) = unsafe {
        (
            _pext_u64(low | POSITIONS, low_bytes),
            _pext_u64(
                high | POSITIONS | (0x80 * LOWEST_BIT_OF_EACH_BYTE),
                high_bytes,
            ),
        )
    };
    let found = u128::from(low) | u128::from(high) << low_bits;
    (found, (low_bits + high_bits) / 8)
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
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2, by the trait's contract.
        unsafe {
            Avx2(
                _mm256_add_ps(self.0, other.0),
                _mm256_add_ps(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    fn take_at_least(self, value: f32) -> (u16, Self) {
        // SAFETY: AVX2, by the trait's contract.
        unsafe {
            let value = _mm256_set1_ps(value);
            let take = |x| {
                let fits = _mm256_cmp_ps::<_CMP_GE_OQ>(x, value);
                let rest = _mm256_sub_ps(x, _mm256_and_ps(fits, value));
                (_mm256_movemask_ps(fits) as u16, rest)
            };
            let ((low, a), (high, b)) = (take(self.0), take(self.1));
            (low | high << 8, Avx2(a, b))
        }
    }

    #[inline(always)]
    fn is_zero(self) -> bool {
        // SAFETY: AVX2, by the trait's contract.
        unsafe {
            let zero = _mm256_setzero_ps();
            let differ = |x| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(x, zero));
            differ(self.0) | differ(self.1) == 0
        }
    }

    #[inline(always)]
    fn nibbles(bits: u64) -> (u128, u32) {
        // SAFETY: BMI2, by the trait's contract.
        unsafe { nibbles(bits) }
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
