//! A tensor as a strided view into a storage.

use std::borrow::Cow;

use crate::dtype::Dtype;
use crate::error::{Problem, within};
use crate::limits::Limits;

/// Where the elements of a tensor lie in its storage, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

impl Layout {
    /// Row-major from the start of the storage; strides wrap for shapes that [`Layout::check`] refuses.
    pub(crate) fn contiguous(shape: Vec<usize>) -> Layout {
        let mut strides = vec![1; shape.len()];
        for d in (1..shape.len()).rev() {
            strides[d - 1] = shape[d].max(1).wrapping_mul(strides[d]);
        }
        Layout {
            offset: 0,
            shape,
            strides,
        }
    }

    /// Number of elements, `None` where it does not fit.
    pub(crate) fn numel(&self) -> Option<usize> {
        numel(&self.shape)
    }

    /// One past the last element touched.
    fn end(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let steps = self.shape.iter().zip(&self.strides);
        let last = steps
            .map(|(n, s)| (n - 1).checked_mul(*s))
            .try_fold(self.offset, |at, step| at.checked_add(step?))?;
        last.checked_add(1)
    }

    /// Whether elements lie one after the other in row-major order.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (n, stride) in self.shape.iter().zip(&self.strides).rev() {
            match n {
                0 => return true,
                1 => {}
                _ if *stride != expected => return false,
                _ => expected *= n,
            }
        }
        true
    }

    /// Checks that the view stays in a storage of `storage_bytes` and within the limits. Returns its bytes once contiguous.
    pub(crate) fn check(
        &self,
        tensor: &str,
        dtype: Dtype,
        storage_bytes: usize,
        limits: &Limits,
    ) -> Result<u64, Problem> {
        within(
            "dimensions of a tensor",
            self.shape.len() as u64,
            limits.rank,
        )?;
        let too_big = || {
            Problem::geometry(
                tensor,
                format!("claims an impossible shape {:?}", self.shape),
            )
        };
        let bytes = self
            .numel()
            .and_then(|n| n.checked_mul(dtype.size()))
            .ok_or_else(too_big)? as u64;
        within("bytes of a tensor", bytes, limits.tensor_bytes)?;
        let reach = self.end().and_then(|e| e.checked_mul(dtype.size()));
        match reach {
            Some(reach) if reach <= storage_bytes => Ok(bytes),
            _ => Err(Problem::geometry(
                tensor,
                format!(
                    "with shape {:?}, strides {:?} and offset {} leaves its storage of {storage_bytes} bytes",
                    self.shape, self.strides, self.offset
                ),
            )),
        }
    }

    /// The elements in row-major order: borrowed where they already lie so. The layout must have been checked.
    pub(crate) fn read<'a>(&self, storage: &'a [u8], width: usize) -> Cow<'a, [u8]> {
        let bytes = self.numel().unwrap_or(0) * width;
        if bytes == 0 {
            Cow::Borrowed(&[])
        } else if self.is_contiguous() {
            Cow::Borrowed(&storage[self.offset * width..][..bytes])
        } else {
            Cow::Owned(self.gather(storage, width, bytes))
        }
    }

    fn gather(&self, storage: &[u8], width: usize, bytes: usize) -> Vec<u8> {
        let (outer, run) = self.split_runs();
        let mut out = Vec::with_capacity(bytes);
        let mut index = vec![0; outer.len()];
        let mut at = self.offset;
        while out.len() < bytes {
            out.extend_from_slice(&storage[at * width..(at + run) * width]);
            for (i, (n, stride)) in index.iter_mut().zip(&outer).rev() {
                *i += 1;
                at += stride;
                if *i < *n {
                    break;
                }
                at -= *i * stride;
                *i = 0;
            }
        }
        out
    }

    /// The outer dimensions (size, stride), and how many elements lie together inside them.
    fn split_runs(&self) -> (Vec<(usize, usize)>, usize) {
        let mut outer: Vec<_> = self
            .shape
            .iter()
            .copied()
            .zip(self.strides.iter().copied())
            .filter(|(n, _)| *n != 1)
            .collect();
        let mut run = 1;
        while let Some(&(n, stride)) = outer.last() {
            if stride != run {
                break;
            }
            run *= n;
            outer.pop();
        }
        (outer, run)
    }
}

/// Product of the dimensions, `None` where it does not fit. An empty dimension makes it 0 whatever the others claim.
pub(crate) fn numel(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(offset: usize, shape: &[usize], strides: &[usize]) -> Layout {
        Layout {
            offset,
            shape: shape.into(),
            strides: strides.into(),
        }
    }

    #[test]
    fn a_transposed_view_is_gathered_row_by_row() {
        let storage: Vec<u8> = (0..6).collect();
        assert_eq!(
            *layout(0, &[3, 2], &[1, 3]).read(&storage, 1),
            [0, 3, 1, 4, 2, 5]
        );
    }

    #[test]
    fn a_row_slice_is_borrowed_and_a_column_slice_is_not() {
        let storage: Vec<u8> = (0..12).collect();
        assert!(matches!(
            layout(4, &[2, 4], &[4, 1]).read(&storage, 1),
            Cow::Borrowed([4, 5, 6, 7, 8, 9, 10, 11])
        ));
        assert_eq!(
            *layout(1, &[3, 2], &[4, 1]).read(&storage, 1),
            [1, 2, 5, 6, 9, 10]
        );
    }

    #[test]
    fn views_that_leave_their_storage_are_refused() {
        let limits = Limits::default();
        assert!(
            layout(0, &[2, 3], &[3, 1])
                .check("w", Dtype::F32, 24, &limits)
                .is_ok()
        );
        assert!(
            layout(1, &[2, 3], &[3, 1])
                .check("w", Dtype::F32, 24, &limits)
                .is_err()
        );
        assert!(
            layout(0, &[2, 3], &[usize::MAX, 1])
                .check("w", Dtype::F32, 24, &limits)
                .is_err()
        );
        assert!(
            layout(0, &[usize::MAX, usize::MAX], &[0, 0])
                .check("w", Dtype::F32, 24, &limits)
                .is_err()
        );
        assert!(
            layout(99, &[0, 3], &[3, 1])
                .check("w", Dtype::F32, 0, &limits)
                .is_ok()
        );
    }

    /// Element by element from the definition of a stride.
    fn slow(l: &Layout, storage: &[u8]) -> Vec<u8> {
        let total = l.numel().unwrap();
        let element = |mut i: usize| {
            let mut at = l.offset;
            for (n, s) in l.shape.iter().zip(&l.strides).rev() {
                at += i % n * s;
                i /= n;
            }
            storage[at]
        };
        (0..total).map(element).collect()
    }

    proptest! {
        #[test]
        fn any_view_reads_as_its_strides_define(
            dims in prop::collection::vec((0usize..5, 0usize..9), 0..5), offset in 0usize..7,
        ) {
            let (shape, strides): (Vec<_>, Vec<_>) = dims.into_iter().unzip();
            let l = layout(offset, &shape, &strides);
            let storage: Vec<u8> = (0..=255).collect();
            prop_assume!(l.check("w", Dtype::U8, storage.len(), &Limits::default()).is_ok());
            prop_assert_eq!(l.read(&storage, 1).into_owned(), slow(&l, &storage));
        }
    }
}
