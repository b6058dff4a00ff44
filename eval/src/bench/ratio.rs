//! How much faster one subject is than another, with an interval that assumes no distribution.

use serde::{Deserialize, Serialize};

use super::{Case, median};

/// The coverage asked of the interval; with fewer than six rounds it cannot be had.
const COVERAGE: f64 = 0.95;

/// A speed-up over a base, paired by round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Median over rounds of (base's block median / subject's block median): above 1 the subject is faster.
    pub median: f64,
    /// Lower end of the interval for that median.
    pub low: f64,
    /// Upper end of the interval for that median.
    pub high: f64,
    /// The interval's real coverage, 0 to 1: at least 0.95 where the rounds suffice, else that of [min, max].
    pub coverage: f64,
    /// Rounds in which both had a block that was kept.
    pub rounds: usize,
}

/// The speed-up of `case` over `base`, from the rounds that kept a block of both; `None` where there are none.
///
/// Blocks of one round ran within seconds of each other, so a slow drift of the machine cancels in their ratio.
pub fn paired_speed_up(base: &Case, case: &Case) -> Option<Ratio> {
    let ratios = base
        .round_medians()
        .into_iter()
        .filter_map(|(round, base_s)| Some(base_s / case.round_medians().get(&round)?))
        .collect();
    interval(ratios)
}

/// Median and its order-statistic (sign test) interval: of all `[x(k), x(n+1-k)]` that reach [`COVERAGE`] the
/// narrowest, or `[min, max]`. Coverage is `1 - 2 P(Binomial(n, 1/2) < k)`, whatever the distribution.
fn interval(mut values: Vec<f64>) -> Option<Ratio> {
    let middle = median(&values)?;
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let mut k = 1;
    while 2 * (k + 1) <= n && coverage(n, k + 1) >= COVERAGE {
        k += 1;
    }
    Some(Ratio {
        median: middle,
        low: values[k - 1],
        high: values[n - k],
        coverage: coverage(n, k),
        rounds: n,
    })
}

/// In logarithms, since `0.5^n` underflows past a thousand rounds.
fn coverage(n: usize, k: usize) -> f64 {
    let mut log_probability = n as f64 * 0.5f64.ln();
    let mut below_k = 0.0;
    for i in 0..k {
        below_k += log_probability.exp();
        log_probability += ((n - i) as f64 / (i + 1) as f64).ln();
    }
    1.0 - 2.0 * below_k
}

#[cfg(test)]
mod tests {
    use super::super::Block;
    use super::*;

    fn case(medians: &[(usize, f64, bool)]) -> Case {
        let block = |&(round, time_s, kept): &(usize, f64, bool)| Block {
            round,
            first_s: time_s,
            times_s: vec![time_s; 3],
            other_load: None,
            kept,
        };
        Case {
            subject: "x".into(),
            batch: 1,
            warm_up: None,
            blocks: medians.iter().map(block).collect(),
        }
    }

    #[test]
    fn coverage_is_the_binomials() {
        // 1 - 2 * sum(C(n, i), i < k) / 2^n
        for (n, k, expected) in [
            (5, 1, 0.9375),
            (9, 2, 0.9609375),
            (12, 3, 0.96142578125),
            (20, 6, 0.9586105346679688),
            (3000, 1446, 0.9534335506179172),
        ] {
            assert!((coverage(n, k) - expected).abs() < 1e-10, "{n} {k}");
        }
    }

    #[test]
    fn the_interval_is_the_narrowest_that_covers() {
        let ratio = interval((1..=12).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            (ratio.median, ratio.low, ratio.high, ratio.rounds),
            (6.5, 3.0, 10.0, 12)
        );
        let few = interval(vec![3.0, 1.0, 2.0, 4.0, 5.0]).unwrap();
        assert_eq!((few.low, few.high, few.coverage), (1.0, 5.0, 0.9375));
        let one = interval(vec![2.0]).unwrap();
        assert_eq!((one.low, one.high, one.coverage), (2.0, 2.0, 0.0));
        assert_eq!(interval(Vec::new()), None);
    }

    #[test]
    fn only_rounds_that_kept_both_are_paired() {
        let base = case(&[
            (0, 4.0, true),
            (1, 40.0, true),
            (2, 9.0, false),
            (3, 6.0, true),
        ]);
        let other = case(&[
            (0, 2.0, true),
            (1, 20.0, true),
            (2, 1.0, true),
            (4, 1.0, true),
        ]);
        let ratio = paired_speed_up(&base, &other).unwrap();
        assert_eq!((ratio.median, ratio.rounds), (2.0, 2));
        let lost = case(&[(0, 1.0, false)]);
        assert_eq!(paired_speed_up(&base, &lost), None);
    }
}
