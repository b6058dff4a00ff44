//! Where the time of an evaluation went, and what limited it.

use serde::Serialize;

use crate::bench::percentile;
use crate::evaluation::Place;
use crate::journal::{BatchRecord, Header, Took};

/// Where the time went. Not reproducible; summed over all runs of a journal and all journals of a merge.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timings {
    /// Wall seconds from the start of a run to its last finished batch, summed over runs and shards.
    pub wall_s: f64,
    /// Images a second of wall time.
    pub images_per_s: f64,
    /// `read+decode`, `preprocess`, `model`, `metrics+journal`.
    pub stages: Vec<Stage>,
    /// The stage that a faster run has to make faster.
    pub limited_by: &'static str,
    /// How long the model took for a full batch. The first batches warm up: this is no benchmark.
    pub batch_ms: BatchMillis,
    /// Where it ran, shard by shard.
    pub ran_on: Vec<Place>,
}

/// One stage of the pipeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Threads that it had; `read+decode` and `preprocess` share theirs. The mean where runs differed.
    pub threads: f64,
    /// Seconds of work, summed over its threads.
    pub busy_s: f64,
    /// `busy_s` over what its threads had: wall seconds times threads.
    pub busy_share: f64,
    /// Images a second that its threads get through when they do nothing else.
    pub images_per_s: f64,
}

/// Percentiles (interpolated, as in [`percentile`]) of milliseconds a batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BatchMillis {
    /// Batches that the percentiles are over: full ones, or all where none is full.
    pub batches: usize,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Timings {
    pub(super) fn new(header: &Header, batches: &[BatchRecord], places: &[Place]) -> Option<Self> {
        let sum = |part: fn(&Took) -> f64| batches.iter().map(|b| part(&b.took)).sum::<f64>();
        let images: usize = batches.iter().map(|b| b.rows.len()).sum();
        let wall = sum(|took| took.span);
        let model = sum(|took| took.model);
        let rest = (wall - model - sum(|took| took.wait)).max(0.0);
        let workers = rate(sum(|took| took.span * took.workers as f64), wall);
        let stage = |name, threads: f64, busy: f64| Stage {
            name,
            threads,
            busy_s: busy,
            busy_share: rate(busy, wall * threads),
            images_per_s: rate(images as f64 * threads, busy),
        };
        let stages = vec![
            stage("read+decode", workers, sum(|took| took.decode)),
            stage("preprocess", workers, sum(|took| took.preprocess)),
            stage("model", 1.0, model),
            stage("metrics+journal", 1.0, rest),
        ];
        Some(Timings {
            wall_s: wall,
            images_per_s: rate(images as f64, wall),
            limited_by: limit(&stages)?,
            stages,
            batch_ms: BatchMillis::new(header, batches)?,
            ran_on: places.to_vec(),
        })
    }
}

/// The larger stage of the busier side: worker threads, or the model's thread.
fn limit(stages: &[Stage]) -> Option<&'static str> {
    let (workers, caller) = stages.split_at_checked(2)?;
    let share = |side: &[Stage]| side.iter().map(|s| s.busy_share).sum::<f64>();
    let side = if share(workers) > share(caller) {
        workers
    } else {
        caller
    };
    side.iter()
        .max_by(|a, b| a.busy_share.total_cmp(&b.busy_share))
        .map(|stage| stage.name)
}

impl BatchMillis {
    fn new(header: &Header, batches: &[BatchRecord]) -> Option<Self> {
        let millis = |only_full: bool| -> Vec<f64> {
            batches
                .iter()
                .filter(|b| b.classes.is_some() && (!only_full || b.rows.len() == header.batch))
                .map(|b| b.took.model * 1e3)
                .collect()
        };
        let mut times = millis(true);
        if times.is_empty() {
            times = millis(false);
        }
        Some(BatchMillis {
            batches: times.len(),
            p50: percentile(&times, 50.0)?,
            p90: percentile(&times, 90.0)?,
            p99: percentile(&times, 99.0)?,
        })
    }
}

/// `amount / per`, and 0 where nothing was measured: JSON has no infinity.
fn rate(amount: f64, per: f64) -> f64 {
    if per > 0.0 { amount / per } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{header, record};

    fn took(decode: f64, preprocess: f64, model: f64, wait: f64, span: f64) -> Took {
        Took {
            decode,
            preprocess,
            model,
            wait,
            span,
            workers: 2,
        }
    }

    fn timings(took: &[Took]) -> Timings {
        let batches: Vec<_> = took
            .iter()
            .enumerate()
            .map(|(k, &took)| record(k, took))
            .collect();
        Timings::new(&header(4, 4 * took.len()), &batches, &[]).unwrap()
    }

    #[test]
    fn stages_are_rated_and_the_limit_is_named() {
        let t = timings(&[took(1.0, 0.5, 3.0, 0.5, 4.0), took(1.0, 0.5, 1.0, 2.5, 4.0)]);
        assert_eq!(t.wall_s, 8.0);
        assert_eq!(t.images_per_s, 1.0);
        let decode = &t.stages[0];
        assert_eq!((decode.name, decode.threads), ("read+decode", 2.0));
        assert_eq!((decode.busy_s, decode.busy_share), (2.0, 0.125));
        assert_eq!(decode.images_per_s, 8.0);
        assert_eq!(
            (t.stages[2].busy_share, t.stages[2].images_per_s),
            (0.5, 2.0)
        );
        assert_eq!(t.stages[3].busy_s, 1.0);
        assert_eq!(t.limited_by, "model");
        assert_eq!((t.batch_ms.batches, t.batch_ms.p50), (2, 2000.0));
        assert_eq!(t.batch_ms.p90, 2800.0);
    }

    #[test]
    fn the_busier_side_is_the_limit() {
        let slow_decode = timings(&[took(6.0, 1.5, 1.0, 3.0, 4.0)]);
        assert_eq!(slow_decode.limited_by, "read+decode");
        let slow_preprocess = timings(&[took(1.5, 6.0, 1.0, 3.0, 4.0)]);
        assert_eq!(slow_preprocess.limited_by, "preprocess");
        let slow_disk = timings(&[took(1.0, 1.0, 1.0, 0.0, 4.0)]);
        assert_eq!(slow_disk.limited_by, "metrics+journal");
    }

    #[test]
    fn no_batch_has_no_timings() {
        assert_eq!(Timings::new(&header(4, 4), &[], &[]), None);
    }
}
