//! Tensors' memory as the kernel reads it: through their strides.

use half::bf16;
use tch::{Device, Kind, Tensor};

/// A number format of activations.
pub(crate) trait Number: Copy + Send + Sync {
    const KIND: Kind;
    fn widen(self) -> f32;
    fn narrow(x: f32) -> Self;
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> f32 {
        x
    }
}

impl Number for bf16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
}

/// Copies a row; whole vectors at a time, because rows are too short for a call of memcpy.
#[inline(always)]
pub(crate) fn load<T: Number>(from: &[T], to: &mut [f32]) {
    const STEP: usize = 16;
    let mut steps = from.chunks_exact(STEP).zip(to.chunks_exact_mut(STEP));
    for (from, to) in &mut steps {
        let from: &[T; STEP] = from.try_into().expect("a whole step");
        let to: &mut [f32; STEP] = to.try_into().expect("a whole step");
        *to = from.map(T::widen);
    }
    let done = from.len() / STEP * STEP;
    for (from, to) in from[done..].iter().zip(&mut to[done..]) {
        *to = from.widen();
    }
}

/// The memory of a tensor of rank `N`, which outlives it.
pub(crate) struct View<'a, T, const N: usize> {
    pub data: &'a [T],
    pub size: [usize; N],
    pub stride: [usize; N],
}

impl<'a, T, const N: usize> View<'a, T, N> {
    /// The kind must have been checked to be T's.
    pub(crate) fn new(t: &'a Tensor) -> Self {
        assert_eq!(t.device(), Device::Cpu);
        let to_usize = |v: Vec<i64>| -> [usize; N] {
            let v: Vec<usize> = v.into_iter().map(|n| n as usize).collect();
            v.try_into()
                .unwrap_or_else(|_| panic!("attention takes rank {N}, not {:?}", t.size()))
        };
        let (size, stride) = (to_usize(t.size()), to_usize(t.stride()));
        let extent = if size.contains(&0) {
            0
        } else {
            1 + (0..N).map(|i| (size[i] - 1) * stride[i]).sum::<usize>()
        };
        let data = if extent == 0 {
            &[][..]
        } else {
            // SAFETY: the tensor lives as long as the view, holds T, and its sizes and (non-negative) strides reach
            // exactly `extent` elements from its data pointer; nobody writes to it meanwhile.
            unsafe { std::slice::from_raw_parts(t.data_ptr() as *const T, extent) }
        };
        View { data, size, stride }
    }

    pub(crate) fn offset(&self, at: [usize; N]) -> usize {
        (0..N).map(|i| at[i] * self.stride[i]).sum()
    }
}

/// Queries, keys or values: [B, H, W, heads, D] with the channels side by side.
pub(crate) type Map<'a, T> = View<'a, T, 5>;

impl<T: Number> Map<'_, T> {
    /// Where the columns of a row begin in memory, for one head; `None` outside of the map.
    #[inline(always)]
    pub(crate) fn row(&self, batch: usize, head: usize, row: i64) -> Option<usize> {
        let row = usize::try_from(row).ok().filter(|&r| r < self.size[1])?;
        Some(self.offset([batch, row, 0, head, 0]))
    }

    /// A head's vector at a column of a row, `None` outside of the map.
    #[inline(always)]
    pub(crate) fn token(&self, row: Option<usize>, column: i64) -> Option<&[T]> {
        let column = usize::try_from(column).ok().filter(|&c| c < self.size[2])?;
        let start = row? + column * self.stride[2];
        Some(&self.data[start..start + self.size[4]])
    }

    /// Asks for a vector that is read soon: heads are far apart in memory, where no processor foresees them.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: Option<usize>, column: i64) {
        if let Some(token) = self.token(row, column) {
            for line in token.chunks(CACHE_LINE / size_of::<T>()) {
                prefetch(line);
            }
        }
    }
}

/// Bytes that travel together.
const CACHE_LINE: usize = 64;

#[inline(always)]
fn prefetch<T>(line: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: part of every x86-64, and a hint: it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
