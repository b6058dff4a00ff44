//! Euclidean projection on the probability simplex.

use crate::Derived;
use tch::{Device, Kind, Tensor};

/// The nearest point with entries >= 0 that sum to 1: max(y - lambda, 0).
///
/// With y sorted downwards and S_i the sum of its first i entries, lambda is the largest of (S_i - 1) / i: these grow
/// as long as the next entry is above them, which is the usual condition for the support, and never after.
#[derive(Debug)]
pub struct Simplex {
    /// 1, 2, .., r.
    counts: Derived,
}

impl Simplex {
    /// For vectors of `rank` entries.
    pub fn new(rank: i64) -> Self {
        let counts = Tensor::arange_start(1, rank + 1, (Kind::Double, Device::Cpu));
        Simplex {
            counts: Derived::new(counts),
        }
    }

    /// [.., r] to the same shape.
    pub fn project(&self, y: &Tensor) -> Tensor {
        let (sorted, _) = y.sort(-1, true);
        let sums = sorted.cumsum(-1, None::<Kind>);
        let lambda = ((sums - 1.0) / self.counts.like(y)).amax(-1, true);
        (y - lambda).relu()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Algorithm 1 of the paper, one vector.
    fn naive(y: &[f64]) -> Vec<f64> {
        let mut sorted = y.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let excess = |i: usize| sorted[..i].iter().sum::<f64>() - 1.0;
        let rho = (1..=y.len())
            .filter(|&i| sorted[i - 1] - excess(i) / i as f64 > 0.0)
            .max()
            .expect("i = 1 always holds");
        let lambda = excess(rho) / rho as f64;
        y.iter().map(|v| (v - lambda).max(0.0)).collect()
    }

    #[test]
    fn it_is_the_sorting_algorithm() {
        tch::manual_seed(6);
        for rank in [1, 2, 12] {
            for spread in [0.01, 1.0, 30.0] {
                let y = Tensor::randn([40, rank], (Kind::Double, Device::Cpu)) * spread;
                let projected = Simplex::new(rank).project(&y);
                for i in 0..40 {
                    let row = |t: &Tensor| Vec::<f64>::try_from(t.get(i)).expect("a row");
                    let (ours, y) = (row(&projected), row(&y));
                    assert!((ours.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                    for (a, b) in ours.iter().zip(naive(&y)) {
                        assert!((a - b).abs() < 1e-12, "{y:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn ties_share_alike() {
        let y = Tensor::from_slice(&[2.0, 2.0, -1.0, 2.0]);
        let projected = Vec::<f64>::try_from(Simplex::new(4).project(&y)).expect("a row");
        for (a, b) in projected.iter().zip([1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0]) {
            assert!((a - b).abs() < 1e-15);
        }
    }
}
