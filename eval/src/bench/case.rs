//! What a run records: blocks, by subject and batch size.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{LoadUnavailable, median};

/// How a warm-up went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WarmUp {
    /// Calls made.
    pub calls: usize,
    /// Seconds spent.
    pub seconds: f64,
    /// Whether times settled before the limit.
    pub settled: bool,
}

/// Back-to-back calls of one subject at one batch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// The round it belongs to, from 0.
    pub round: usize,
    /// Seconds of the first call. It finds caches and thread pools as the subject before left them, so it says what
    /// a call after a pause costs, and counts for nothing else.
    pub first_s: f64,
    /// Seconds of each call after the first.
    pub times_s: Vec<f64>,
    /// Cores used by other processes meanwhile; `None` where that cannot be told.
    pub other_load: Option<f64>,
    /// Whether it counts: not when other processes used too much of the machine.
    pub kept: bool,
}

/// All blocks of one subject at one batch size.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The subject's name.
    pub subject: String,
    /// Images per call.
    pub batch: usize,
    /// Its warm-up; `None` when the run was stopped before it.
    pub warm_up: Option<WarmUp>,
    /// Its blocks, in the order they ran.
    pub blocks: Vec<Block>,
}

impl Case {
    /// Seconds per call: the median of each round's kept block, by round.
    pub fn round_medians(&self) -> BTreeMap<usize, f64> {
        let kept = self.blocks.iter().filter(|b| b.kept);
        kept.filter_map(|b| Some((b.round, median(&b.times_s)?)))
            .collect()
    }
}

/// How a run came to its end; whatever it measured until then stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All rounds were run.
    Complete,
    /// It was stopped from outside.
    Stopped,
    /// It reached [`Schedule::max_s`](super::Schedule::max_s).
    TimeLimit,
}

/// What a run measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// One case for each subject and batch size.
    pub cases: Vec<Case>,
    /// Whether all rounds were run.
    pub ended: Ended,
    /// Why no block could be judged by other processes' load; all blocks are kept then.
    pub load_unavailable: Option<LoadUnavailable>,
}
