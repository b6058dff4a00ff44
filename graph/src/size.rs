//! Integers that may depend on the batch.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `fixed + per_image * batch`: an axis of a shape, or an integer argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// What does not depend on the batch.
    pub fixed: i64,
    /// What one more image adds.
    pub per_image: i64,
}

impl Size {
    /// A number.
    pub const fn fixed(fixed: i64) -> Size {
        Size {
            fixed,
            per_image: 0,
        }
    }

    /// The batch itself.
    pub const BATCH: Size = Size {
        fixed: 0,
        per_image: 1,
    };

    /// The number, where it does not depend on the batch.
    pub fn as_fixed(self) -> Option<i64> {
        (self.per_image == 0).then_some(self.fixed)
    }

    /// The number at this batch; the nearest that there is, where it is too large.
    pub fn at(self, batch: i64) -> i64 {
        self.fixed
            .saturating_add(self.per_image.saturating_mul(batch))
    }

    /// The sum of both.
    pub(crate) fn plus(self, other: Size) -> Size {
        Size {
            fixed: self.fixed.saturating_add(other.fixed),
            per_image: self.per_image + other.per_image,
        }
    }

    /// The size that has these values at these two batches; `None` where no such line goes through whole numbers.
    pub(crate) fn through(batches: [i64; 2], values: [i64; 2]) -> Option<Size> {
        let (run, rise) = (batches[1] - batches[0], values[1] - values[0]);
        (rise % run == 0).then(|| {
            let per_image = rise / run;
            Size {
                fixed: values[0] - per_image * batches[0],
                per_image,
            }
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.fixed, self.per_image) {
            (fixed, 0) => write!(f, "{fixed}"),
            (0, 1) => write!(f, "batch"),
            (0, n) => write!(f, "{n}*batch"),
            (fixed, 1) => write!(f, "batch{fixed:+}"),
            (fixed, n) => write!(f, "{n}*batch{fixed:+}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_points_make_a_size() {
        assert_eq!(Size::through([2, 3], [2, 3]), Some(Size::BATCH));
        assert_eq!(Size::through([2, 3], [7, 7]), Some(Size::fixed(7)));
        let tokens = Size::through([2, 3], [97, 145]).unwrap();
        assert_eq!(
            (tokens.at(1), tokens.to_string()),
            (49, "48*batch+1".into())
        );
        assert_eq!(Size::through([2, 4], [2, 3]), None);
    }
}
