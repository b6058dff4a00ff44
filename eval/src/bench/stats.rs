//! Order statistics of call times. No mean appears without its percentiles.

use serde::{Deserialize, Serialize};

/// A p99 above this many times the p50 is worth a warning: something else was on the machine.
const TAIL_WARNING: f64 = 2.0;
/// Below this many calls the p99 is an interpolation towards the slowest call.
const CALLS_FOR_P99: usize = 100;
/// Standard deviations per median absolute deviation, for a normal distribution.
const SIGMA_PER_MAD: f64 = 1.4826;

/// The distribution of the times of single calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Calls timed.
    pub calls: usize,
    /// Fastest call, seconds.
    pub min_s: f64,
    /// Half of the calls took at most this, seconds.
    pub p50_s: f64,
    /// Nine of ten calls took at most this, seconds.
    pub p90_s: f64,
    /// Ninety-nine of a hundred calls took at most this, seconds.
    pub p99_s: f64,
    /// Slowest call, seconds.
    pub max_s: f64,
    /// Arithmetic mean, seconds.
    pub mean_s: f64,
    /// Median absolute deviation from the median, seconds (not scaled).
    pub mad_s: f64,
    /// `batch / p50_s`.
    pub images_per_s: f64,
    /// Share of calls, 0 to 1, slower than p50 by more than five robust standard deviations
    /// (1.4826 MAD each) and by more than a tenth of the p50.
    pub outlier_share: f64,
}

impl Stats {
    /// Statistics of `times_s` (seconds per call of `batch` images); `None` for no calls at all.
    pub fn of(times_s: &[f64], batch: usize) -> Option<Self> {
        if times_s.is_empty() {
            return None;
        }
        let sorted = sorted(times_s);
        let p50_s = percentile_of_sorted(&sorted, 50.0);
        let deviations: Vec<f64> = sorted.iter().map(|t| (t - p50_s).abs()).collect();
        let mad_s = median(&deviations)?;
        let limit = p50_s + (5.0 * SIGMA_PER_MAD * mad_s).max(0.1 * p50_s);
        let outliers = sorted.iter().filter(|&&t| t > limit).count();
        Some(Self {
            calls: sorted.len(),
            min_s: sorted[0],
            p50_s,
            p90_s: percentile_of_sorted(&sorted, 90.0),
            p99_s: percentile_of_sorted(&sorted, 99.0),
            max_s: sorted[sorted.len() - 1],
            mean_s: sorted.iter().sum::<f64>() / sorted.len() as f64,
            mad_s,
            images_per_s: batch as f64 / p50_s,
            outlier_share: outliers as f64 / sorted.len() as f64,
        })
    }

    /// What a reader of these figures must know before trusting them.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.p99_s > TAIL_WARNING * self.p50_s {
            warnings.push(format!(
                "p99 is {:.1} times p50 ({:.1} % of the calls are outliers): something else used the machine, or the \
                 clock rate changed",
                self.p99_s / self.p50_s,
                100.0 * self.outlier_share
            ));
        }
        if self.calls < CALLS_FOR_P99 {
            warnings.push(format!(
                "{} calls: p99 is little more than the slowest call; more rounds or longer blocks give a real one",
                self.calls
            ));
        }
        warnings
    }
}

/// The `p`-th percentile (0 to 100) by linear interpolation between order statistics: the value at position
/// `(n - 1) * p / 100` of the sorted values (Hyndman and Fan's type 7, numpy's default). `None` for no values.
pub fn percentile(values: &[f64], p: f64) -> Option<f64> {
    (!values.is_empty()).then(|| percentile_of_sorted(&sorted(values), p))
}

/// The middle value, or the mean of the two middle ones; `None` for no values.
pub fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50.0)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn percentile_of_sorted(sorted: &[f64], p: f64) -> f64 {
    let position = (sorted.len() - 1) as f64 * p.clamp(0.0, 100.0) / 100.0;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: [f64; 11] = [
        0.0213, 0.0197, 0.0541, 0.0201, 0.0199, 0.0205, 0.0320, 0.0198, 0.0202, 0.0200, 0.0204,
    ];

    /// `numpy.percentile(TIMES, p)` of numpy 2.4.6.
    const NUMPY: [(f64, f64); 6] = [
        (0.0, 0.0197),
        (25.0, 0.01995),
        (50.0, 0.0202),
        (90.0, 0.032),
        (99.0, 0.05189),
        (100.0, 0.0541),
    ];

    #[test]
    fn percentiles_are_numpys() {
        for (p, expected) in NUMPY {
            let found = percentile(&TIMES, p).unwrap();
            assert!((found - expected).abs() < 1e-15, "p{p}: {found}");
        }
        assert_eq!(percentile(&[], 50.0), None);
        assert_eq!(median(&[1.0, 4.0]), Some(2.5));
    }

    #[test]
    fn stats_are_those_of_numpy_too() {
        let stats = Stats::of(&TIMES, 8).unwrap();
        assert_eq!(
            (stats.calls, stats.min_s, stats.max_s),
            (11, 0.0197, 0.0541)
        );
        assert!((stats.mean_s - 0.024363636363636365).abs() < 1e-15);
        assert!((stats.mad_s - 0.0003).abs() < 1e-15);
        assert!((stats.images_per_s - 8.0 / 0.0202).abs() < 1e-9);
        // 0.0320 and 0.0541 lie beyond 0.0202 + max(5 * 1.4826 * 0.0003, 0.00202) = 0.02242.
        assert!((stats.outlier_share - 2.0 / 11.0).abs() < 1e-15);
        assert_eq!(Stats::of(&[], 8), None);
    }

    #[test]
    fn a_long_tail_and_few_calls_are_warned_of() {
        let warnings = Stats::of(&TIMES, 1).unwrap().warnings();
        assert!(
            warnings[0].starts_with("p99 is 2.6 times p50 (18.2 %"),
            "{warnings:?}"
        );
        assert!(warnings[1].starts_with("11 calls"), "{warnings:?}");
        let steady = Stats::of(&[0.01; 100], 1).unwrap();
        assert_eq!((steady.warnings(), steady.outlier_share), (vec![], 0.0));
    }
}
