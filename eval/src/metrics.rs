//! From logits to figures: top-k, cross-entropy, accuracy with its interval, chance.

use serde::Serialize;

use crate::journal::RowResult;

/// How many of the best classes are kept of each image.
pub const KEPT: usize = 5;

/// 97.5 % quantile of the standard normal distribution.
const Z95: f64 = 1.959_963_984_540_054;

/// Below this probability something is held not to be luck.
const LUCK: f64 = 0.001;

/// The result of one image from its logits. A label must be smaller than `logits.len()`.
pub fn score(logits: &[f64], label: Option<usize>) -> RowResult {
    if let Some(found) = describe_non_finite(logits) {
        return RowResult::NonFinite(found);
    }
    let nll = label.map(|label| cross_entropy(logits, label));
    if nll.is_some_and(|nll| !nll.is_finite()) {
        return RowResult::NonFinite("logits so large that the loss is not finite".to_owned());
    }
    let top = top_k(logits, KEPT);
    let logits = top.iter().map(|&class| logits[class]).collect();
    RowResult::Scored { top, logits, nll }
}

fn describe_non_finite(logits: &[f64]) -> Option<String> {
    let nan = logits.iter().filter(|x| x.is_nan()).count();
    let infinite = logits.iter().filter(|x| x.is_infinite()).count();
    (nan + infinite > 0).then(|| {
        let of = logits.len();
        format!("{nan} NaN and {infinite} infinite of {of} logits")
    })
}

/// The classes of the `k` largest logits, best first; equal logits by the lower class.
pub fn top_k(logits: &[f64], k: usize) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::with_capacity(k + 1);
    for (class, &logit) in logits.iter().enumerate() {
        let place = best.partition_point(|&other| logits[other] >= logit);
        if place < k {
            best.insert(place, class);
            best.truncate(k);
        }
    }
    best
}

/// Cross-entropy of a label in nats: `ln sum exp(logits) - logits[label]`, shifted by the largest logit.
pub fn cross_entropy(logits: &[f64], label: usize) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|&x| (x - max).exp()).sum();
    sum.ln() + (max - logits[label])
}

/// A share of images, with its 95 % Wilson interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accuracy {
    /// Images that were right.
    pub correct: usize,
    /// Images that were asked.
    pub of: usize,
    /// `100 * correct / of`.
    pub percent: f64,
    /// Lower and upper bound of the interval in percent.
    pub interval95: [f64; 2],
}

impl Accuracy {
    /// `None` where nothing was asked.
    pub fn new(correct: usize, of: usize) -> Option<Self> {
        (of > 0).then(|| Accuracy {
            correct,
            of,
            percent: 100.0 * correct as f64 / of as f64,
            interval95: wilson95(correct, of).map(|share| 100.0 * share),
        })
    }
}

/// Wilson's score interval (Wilson 1927, JASA 22:209) at 95 %, as shares in 0..=1.
pub fn wilson95(correct: usize, of: usize) -> [f64; 2] {
    let n = of as f64;
    let p = correct as f64 / n;
    let z2 = Z95 * Z95;
    let centre = p + z2 / (2.0 * n);
    let half = Z95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    // At 0 and n one bound is exactly the edge; rounding must not push it past.
    let low = if correct == 0 {
        0.0
    } else {
        (centre - half) / scale
    };
    let high = if correct == of {
        1.0
    } else {
        (centre + half) / scale
    };
    [low, high]
}

/// Whether so few hits are what guessing gives, with enough images to tell.
///
/// Two binomial bounds at 0.1 %: guessing among `classes` reaches `correct` hits of `of` at least
/// that often, and a model that knows a quarter of what there is to know (right with probability
/// `1/classes + (1 - 1/classes) / 4`) stays that low less often.
pub fn at_chance(correct: usize, of: usize, classes: usize) -> bool {
    if classes < 2 || of == 0 {
        return false;
    }
    let guess = 1.0 / classes as f64;
    let weak = guess + (1.0 - guess) / 4.0;
    let guessing_reaches = 1.0 - below(correct, of, guess);
    let weak_stays = below(correct + 1, of, weak);
    guessing_reaches > LUCK && weak_stays < LUCK
}

/// Probability of fewer than `k` hits in `n` trials that each hit with probability `p`, 0 < p < 1.
fn below(k: usize, n: usize, p: f64) -> f64 {
    let odds = (p / (1.0 - p)).ln();
    // Logarithm of the probability of exactly i hits: the probability itself underflows.
    let mut ln_exactly = n as f64 * (1.0 - p).ln();
    let mut sum = 0.0;
    for i in 0..k.min(n + 1) {
        sum += ln_exactly.exp();
        ln_exactly += ((n - i) as f64 / (i + 1) as f64).ln() + odds;
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests;
