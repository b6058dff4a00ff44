//! What an evaluation depends on, and how two of them differ.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Everything that a result depends on, plus where it was computed.
///
/// A journal can be resumed only with an equal header (but for `machine`), and journals can be
/// merged only with equal headers (but for `machine`, `threads` and the shard's index).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the program.
    pub version: String,
    /// Canonical name of the model.
    pub model: String,
    /// Where the weights came from, for people.
    pub weights: String,
    /// What the weights are: `sha256:…` of the file, or the name of the formula and its seed.
    pub weights_identity: String,
    /// Whether the weights were trained; formula weights are not.
    pub trained: bool,
    /// Name of the data set, for people.
    pub data_set: String,
    /// How its images and labels are laid out on disk.
    pub layout: String,
    /// Fingerprint of its ids and labels, in order.
    pub fingerprint: String,
    /// Number of images of the whole data set, not only of this shard.
    pub images: usize,
    /// How images become inputs.
    pub preprocessing: Preprocessing,
    /// Floating-point type that the model computed in.
    pub dtype: String,
    /// Engine that ran the model.
    pub engine: String,
    /// Device that it ran on.
    pub device: String,
    /// Images a batch; batch `k` is always the images `k * batch .. (k + 1) * batch`.
    pub batch: usize,
    /// Threads of the engine.
    pub threads: usize,
    /// Which part of the batches this journal is about.
    pub shard: Shard,
    /// Name of the machine that began the journal.
    pub machine: String,
    /// The accuracy that others reported for these weights.
    pub reported: Option<Reported>,
}

/// How images become inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Height and width of the input in pixels.
    pub size: [usize; 2],
    /// Share of the resized image's edge that the centre crop keeps.
    pub crop_pct: f64,
    /// Filter of the resize, e.g. `bicubic`.
    pub interpolation: String,
    /// Mean that is subtracted, a channel (RGB, of values in 0..1).
    pub mean: Vec<f64>,
    /// Standard deviation that is divided by, a channel (RGB, of values in 0..1).
    pub std: Vec<f64>,
}

/// An accuracy that was reported elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reported {
    /// Top-1 accuracy in percent.
    pub top1: f64,
    /// Paper, table or page that says so.
    pub source: String,
}

/// Shard `index` of `count`, counted from 1; takes the batches `k` with `k % count == index - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard {
    /// 1..=count.
    pub index: usize,
    /// Number of shards.
    pub count: usize,
}

/// A shard that is none.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a shard: write i/n with 1 <= i <= n, for example 2/4")]
pub struct ShardError(String);

impl Shard {
    /// The whole data set.
    pub const WHOLE: Shard = Shard { index: 1, count: 1 };

    /// Whether the batch belongs to this shard.
    pub fn takes(self, batch: usize) -> bool {
        self.count > 0 && batch % self.count + 1 == self.index
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let bad = || ShardError(text.to_owned());
        let (index, count) = text.split_once('/').ok_or_else(bad)?;
        let index = index.parse().map_err(|_| bad())?;
        let count = count.parse().map_err(|_| bad())?;
        if index == 0 || index > count {
            return Err(bad());
        }
        Ok(Shard { index, count })
    }
}

impl Header {
    /// The batches of this header's shard, ascending.
    pub fn batches(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.images.div_ceil(self.batch.max(1))).filter(|&k| self.shard.takes(k))
    }

    /// The indices of the images of batch `k`.
    pub fn images_of(&self, k: usize) -> std::ops::Range<usize> {
        let start = k.saturating_mul(self.batch).min(self.images);
        start..start.saturating_add(self.batch).min(self.images)
    }

    /// Number of images of this header's shard.
    pub fn images_of_shard(&self) -> usize {
        self.batches().map(|k| self.images_of(k).len()).sum()
    }
}

/// A setting that two headers disagree on.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Name of the setting, e.g. `preprocessing.crop_pct`.
    pub setting: String,
    /// Its value in the first header, as JSON.
    pub first: String,
    /// Its value in the second header, as JSON.
    pub second: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} and {}", self.setting, self.first, self.second)
    }
}

/// The settings that the headers disagree on, but for those named in `ignore`.
pub fn differences(first: &Header, second: &Header, ignore: &[&str]) -> Vec<Difference> {
    let value = |header| serde_json::to_value(header).unwrap_or_default();
    let mut found = Vec::new();
    compare("", &value(first), &value(second), &mut found);
    found.retain(|d| !ignore.contains(&d.setting.as_str()));
    found
}

fn compare(
    name: &str,
    first: &serde_json::Value,
    second: &serde_json::Value,
    found: &mut Vec<Difference>,
) {
    use serde_json::Value::Object;
    match (first, second) {
        (Object(a), Object(b)) if a.keys().eq(b.keys()) => {
            for (key, value) in a {
                let dot = if name.is_empty() { "" } else { "." };
                compare(&format!("{name}{dot}{key}"), value, &b[key], found);
            }
        }
        _ if first == second => {}
        _ => found.push(Difference {
            setting: name.to_owned(),
            first: first.to_string(),
            second: second.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_read_and_refused() {
        let shard: Shard = "2/4".parse().unwrap();
        assert_eq!(shard, Shard { index: 2, count: 4 });
        assert_eq!(shard.to_string(), "2/4");
        for bad in [
            "", "2", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/4", "1/4 ", "1.0/4",
        ] {
            assert!(bad.parse::<Shard>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn shards_take_every_batch_once() {
        for count in 1..9 {
            for batch in 0..100 {
                let takers = (1..=count)
                    .filter(|&index| Shard { index, count }.takes(batch))
                    .count();
                assert_eq!(takers, 1, "batch {batch} of {count} shards");
            }
        }
        assert!(Shard { index: 1, count: 4 }.takes(0));
        assert!(Shard { index: 4, count: 4 }.takes(7));
    }
}
