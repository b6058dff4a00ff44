//! The few vector operations that fused attention needs, for AVX-512, AVX2 with FMA, and whatever the compiler has.

/// A vector instruction set.
///
/// # Safety
/// Every function may be called only on a CPU that has the set, and is compiled to it only where it is inlined into
/// a function with those target features. Pointers must be valid for `LANES` values; they need no alignment.
pub(crate) trait Simd: Copy {
    type Vector: Copy;
    const LANES: usize;

    unsafe fn splat(x: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, x: Self::Vector);
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The greater; `b` where either is not a number.
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a * b + c.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// a * b.
    #[inline(always)]
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { Self::mul_add(a, b, Self::splat(0.0)) }
    }
    /// The nearest integer.
    unsafe fn round(x: Self::Vector) -> Self::Vector;
    /// The sum of all lanes.
    unsafe fn sum(x: Self::Vector) -> f32;
    /// x * 2^n for integers n from -126 to 127.
    unsafe fn scale(x: Self::Vector, n: Self::Vector) -> Self::Vector;

    /// 2^x for x <= 0, to about one unit in the last place; 2^-126 below -126.
    #[inline(always)]
    unsafe fn exp2(x: Self::Vector) -> Self::Vector {
        /// ln(2)^k / k!: 2^r for |r| <= 1/2.
        const SERIES: [f32; 7] = [
            1.540_353e-4,
            1.333_355_8e-3,
            9.618_129e-3,
            5.550_411e-2,
            0.240_226_5,
            std::f32::consts::LN_2,
            1.0,
        ];
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let x = Self::max(Self::splat(-126.0), x);
            let n = Self::round(x);
            let r = Self::sub(x, n);
            let mut power = Self::splat(SERIES[0]);
            for c in &SERIES[1..] {
                power = Self::mul_add(power, r, Self::splat(*c));
            }
            Self::scale(power, n)
        }
    }
}

/// The instruction set to use on this CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// A computation that runs with any instruction set.
pub(crate) trait Computation {
    /// # Safety
    /// The CPU has the instruction set `S`.
    unsafe fn run<S: Simd>(self);
}

impl Isa {
    /// The best this CPU has.
    pub(crate) fn best() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// Every set this CPU has, best first.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<Isa> {
        let mut sets = vec![Isa::best()];
        #[cfg(target_arch = "x86_64")]
        if sets[0] == Isa::Avx512 && is_x86_feature_detected!("fma") {
            sets.push(Isa::Avx2);
        }
        if sets[0] != Isa::Portable {
            sets.push(Isa::Portable);
        }
        sets
    }

    /// Runs `computation` with this set.
    ///
    /// # Safety
    /// The CPU has it, as it has [`Isa::best`].
    pub(crate) unsafe fn run(self, computation: impl Computation) {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        fn avx512(computation: impl Computation) {
            // SAFETY: this function has the features.
            unsafe { computation.run::<Avx512>() }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2(computation: impl Computation) {
            // SAFETY: this function has the features.
            unsafe { computation.run::<Avx2>() }
        }

        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller vouches for the instruction set.
            Isa::Avx512 => unsafe { avx512(computation) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2(computation) },
            // SAFETY: plain Rust.
            Isa::Portable => unsafe { computation.run::<Portable>() },
        }
    }
}

/// Eight values in plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type Vector = [f32; 8];
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 8] {
        [x; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 8] {
        // SAFETY: the caller gives a pointer to eight values.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: [f32; 8]) {
        // SAFETY: the caller gives a pointer to eight values.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn max(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn mul_add(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    unsafe fn round(x: [f32; 8]) -> [f32; 8] {
        // Adding and taking away 1.5 * 2^23 rounds to the nearest integer without a library call.
        const MAGIC: f32 = 12_582_912.0;
        x.map(|x| (x + MAGIC) - MAGIC)
    }

    #[inline(always)]
    unsafe fn sum(x: [f32; 8]) -> f32 {
        let [a, b, c, d, e, f, g, h] = x;
        ((a + e) + (b + f)) + ((c + g) + (d + h))
    }

    #[inline(always)]
    unsafe fn scale(x: [f32; 8], n: [f32; 8]) -> [f32; 8] {
        zip(x, n, |x, n| {
            x * f32::from_bits((n as i32 + 127).unsigned_abs() << 23)
        })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    // SAFETY (every block below): the trait's contract, that the CPU has the instructions and pointers are valid.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx2 {
        type Vector = __m256;
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            unsafe { _mm256_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, x: __m256) {
            unsafe { _mm256_storeu_ps(to, x) }
        }

        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_sub_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_max_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn round(x: __m256) -> __m256 {
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
        }

        #[inline(always)]
        unsafe fn sum(x: __m256) -> f32 {
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }

        #[inline(always)]
        unsafe fn scale(x: __m256, n: __m256) -> __m256 {
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
            }
        }
    }

    /// AVX-512F.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;

    // SAFETY (every block below): the trait's contract, that the CPU has the instructions and pointers are valid.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx512 {
        type Vector = __m512;
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, x: __m512) {
            unsafe { _mm512_storeu_ps(to, x) }
        }

        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn max(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn round(x: __m512) -> __m512 {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
        }

        #[inline(always)]
        unsafe fn sum(x: __m512) -> f32 {
            unsafe { _mm512_reduce_add_ps(x) }
        }

        #[inline(always)]
        unsafe fn scale(x: __m512, n: __m512) -> __m512 {
            unsafe { _mm512_scalef_ps(x, n) }
        }
    }
}
