//! The orthonormal Haar transform along the sides of maps.

use crate::work::{self, Site};
use crate::{Derived, PerMap};
use tch::Tensor;

/// The Haar matrix of side `n`, a power of two, with rows of length 1, in float64.
///
/// Row 0 is constant; each further half of the rows compares neighbours at a finer scale.
pub fn haar_matrix(n: i64) -> Tensor {
    let side = n as usize;
    let mut rows: Vec<Vec<f64>> = vec![vec![1.0]];
    while rows.len() < side {
        let coarse = rows.len();
        let upper = rows
            .iter()
            .map(|row| row.iter().flat_map(|&v| [v, v]).collect());
        let lower = (0..coarse).map(|i| {
            let mut row = vec![0.0; 2 * coarse];
            (row[2 * i], row[2 * i + 1]) = (1.0, -1.0);
            row
        });
        rows = upper.chain(lower).collect();
    }
    for row in &mut rows {
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter_mut().for_each(|v| *v /= length);
    }
    let flat: Vec<f64> = rows.concat();
    Tensor::from_slice(&flat).reshape([n, n])
}

/// Which side of a map is transformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Each column.
    Height,
    /// Each row.
    Width,
}

/// The transform of maps [B, C, H, W] along one side, or its inverse.
#[derive(Debug)]
pub struct Haar {
    site: Site,
    inverse: bool,
    matrices: PerMap<Derived>,
}

impl Haar {
    /// The transform; `inverse` is its inverse, which is its transpose.
    pub fn new(site: Site, inverse: bool) -> Self {
        Haar {
            site,
            inverse,
            matrices: PerMap::default(),
        }
    }

    /// [B, C, H, W] to the same shape. The side's length is a power of two.
    pub fn forward(&self, x: &Tensor, side: Side) -> Tensor {
        let size = x.size();
        let n = match side {
            Side::Height => size[2],
            Side::Width => size[3],
        };
        let make = || {
            let matrix = haar_matrix(n);
            Derived::new(if self.inverse { matrix.tr() } else { matrix })
        };
        let matrix = self.matrices.get([n, n], make, |matrix| matrix.like(x));
        match side {
            // The products as they are published: maps times a matrix, a matrix times maps.
            Side::Width if work::recording() => self.site.matmul(x, &matrix.tr()),
            Side::Height if work::recording() => self.site.matmul(&matrix, x),
            // Channels stay innermost, where layers keep them.
            Side::Width => matrix
                .matmul(&x.permute([0, 2, 3, 1]))
                .permute([0, 3, 1, 2]),
            Side::Height => matrix
                .matmul(&x.permute([0, 2, 3, 1]).flatten(2, 3))
                .unflatten(2, [size[3], size[1]])
                .permute([0, 3, 1, 2]),
        }
    }
}

/// Whether `n` is the length of a side that [`Haar`] takes.
pub fn is_haar_side(n: i64) -> bool {
    n > 0 && n & (n - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn};

    const EXACT: f64 = 1e-14;

    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn the_matrix_of_side_four_is_the_textbooks() {
        let r = 0.5f64.sqrt();
        let expected = [
            0.5, 0.5, 0.5, 0.5, 0.5, 0.5, -0.5, -0.5, r, -r, 0.0, 0.0, 0.0, 0.0, r, -r,
        ];
        let expected = Tensor::from_slice(&expected).reshape([4, 4]);
        assert!(apart(&haar_matrix(4), &expected) < EXACT);
        let m = haar_matrix(16);
        let identity = Tensor::eye(16, (Kind::Double, Device::Cpu));
        assert!(apart(&m.matmul(&m.tr()), &identity) < EXACT);
    }

    #[test]
    fn both_forms_agree_and_the_inverse_undoes() {
        tch::manual_seed(4);
        let vs = nn::VarStore::new(Device::Cpu);
        let [forward, back] = [false, true].map(|i| Haar::new(Site::at(&vs.root()), i));
        let x = Tensor::randn([3, 5, 8, 4], (Kind::Double, Device::Cpu));
        for side in [Side::Height, Side::Width] {
            let y = forward.forward(&x, side);
            let (published, _) = work::record(|| forward.forward(&x, side));
            assert!(apart(&y, &published) < EXACT);
            assert!(apart(&back.forward(&y, side), &x) < EXACT);
        }
        assert!(is_haar_side(1) && is_haar_side(8) && !is_haar_side(12) && !is_haar_side(0));
    }
}
