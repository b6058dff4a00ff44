//! Warm-up, then rounds of interleaved blocks.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::{
    Block, Calls, Case, Clock, CpuMeter, Ended, LoadUnavailable, Measured, ProcMeter, Subject,
    SystemClock, WarmUp, median, other_load,
};
use crate::PredictError;

/// Calls in one window of a warm-up.
const WARM_UP_WINDOW: usize = 5;

/// Why a benchmark could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A figure of the schedule makes no sense.
    #[error("{what} is {value}: it must be {must}")]
    Schedule {
        /// Which figure.
        what: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        must: &'static str,
    },
    /// Two subjects under one name would be one row of the report.
    #[error("two subjects are called {0}: give them different names")]
    DuplicateName(String),
    /// The engine failed while it was timed.
    #[error("{subject} failed at batch {batch}: {source}")]
    Subject {
        /// The subject's name.
        subject: String,
        /// Images per call.
        batch: usize,
        /// The engine's own words.
        source: PredictError,
    },
}

/// How long to call a subject before its times count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WarmUpLimits {
    /// At least this long, seconds.
    pub min_s: f64,
    /// At most this long, seconds (the call in flight is finished).
    pub max_s: f64,
    /// Settled when the medians of two windows of five calls in a row differ by less than this share.
    pub settled: f64,
}

/// How subjects are timed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Rounds; in each, every subject has one block at every batch size.
    pub rounds: usize,
    /// Length of a block, seconds: after a first call, calls are timed until it is over, one at least. 0.25 or more
    /// for a load that the 10 ms ticks of `/proc/stat` can tell.
    pub block_s: f64,
    /// A block during which other processes used more cores than this is discarded.
    pub max_other_load: f64,
    /// Times a block is tried in one round until it is one to keep.
    pub attempts: usize,
    /// No block is begun later than this after the warm-ups, seconds: a busy machine can make a run endless.
    pub max_s: f64,
    /// Warm-up of each subject at each batch size.
    pub warm_up: WarmUpLimits,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            rounds: 12,
            block_s: 0.25,
            max_other_load: 0.25,
            attempts: 3,
            max_s: 300.0,
            warm_up: WarmUpLimits {
                min_s: 0.5,
                max_s: 10.0,
                settled: 0.05,
            },
        }
    }
}

/// What a run reads time and load from.
pub struct Instruments {
    /// Times calls and blocks.
    pub clock: Box<dyn Clock>,
    /// Tells other processes' load.
    pub meter: Box<dyn CpuMeter>,
}

impl Default for Instruments {
    /// This machine's clock and `/proc`.
    fn default() -> Self {
        Self {
            clock: Box::new(SystemClock::default()),
            meter: Box::new(ProcMeter::default()),
        }
    }
}

/// How a run is followed and stopped from outside.
pub struct Watch<'a> {
    /// Set it (on Ctrl-C, say) and the run ends after the call in flight, with what was measured so far.
    pub stop: &'a AtomicBool,
    /// Told of every warm-up and block.
    pub progress: &'a mut dyn FnMut(&Progress<'_>),
}

impl Watch<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress<'a> {
    /// A warm-up ended.
    WarmedUp {
        /// The subject's name.
        subject: &'a str,
        /// Images per call.
        batch: usize,
        /// How it went.
        warm_up: WarmUp,
    },
    /// A block ended.
    Timed {
        /// The subject's name.
        subject: &'a str,
        /// Images per call.
        batch: usize,
        /// The block.
        block: &'a Block,
        /// Rounds planned.
        rounds: usize,
    },
}

impl Schedule {
    /// Times every subject at every batch size.
    ///
    /// # Errors
    /// A schedule that makes no sense, no subject, no batch size or a batch of 0, two subjects of one name, or the
    /// first failure of a subject.
    pub fn run(
        &self,
        subjects: &mut [&mut dyn Subject],
        batches: &[usize],
        instruments: &mut Instruments,
        watch: &mut Watch<'_>,
    ) -> Result<Measured, BenchError> {
        self.check(subjects, batches)?;
        let cases = cases(subjects_names(subjects), batches);
        let mut run = Run {
            end_s: f64::INFINITY,
            schedule: self,
            subjects,
            cases,
            instruments,
            watch,
            ended: Ended::Complete,
            load_unavailable: None,
        };
        run.warm_up()?;
        run.end_s = run.instruments.clock.now_s() + self.max_s;
        for round in 0..self.rounds {
            if run.over() != Ended::Complete {
                break;
            }
            run.round(round)?;
        }
        Ok(Measured {
            ended: run.ended,
            load_unavailable: run.load_unavailable,
            cases: run.cases.into_iter().map(|(_, case)| case).collect(),
        })
    }

    fn check(&self, subjects: &[&mut dyn Subject], batches: &[usize]) -> Result<(), BenchError> {
        let wrong = |what, value: String, must| Err(BenchError::Schedule { what, value, must });
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if subjects.is_empty() {
            return wrong("the number of subjects", "0".into(), "1 or more");
        }
        if batches.is_empty() || batches.contains(&0) {
            return wrong(
                "the list of batch sizes",
                format!("{batches:?}"),
                "one or more sizes of 1 or more",
            );
        }
        if !positive(self.max_s) {
            return wrong(
                "the time limit",
                self.max_s.to_string(),
                "more than 0 seconds",
            );
        }
        if self.rounds == 0 || self.attempts == 0 {
            let value = format!("{} and {}", self.rounds, self.attempts);
            return wrong("the number of rounds and attempts", value, "1 or more each");
        }
        if !positive(self.block_s) {
            return wrong(
                "the length of a block",
                self.block_s.to_string(),
                "more than 0 seconds",
            );
        }
        if self.max_other_load.is_nan() || self.max_other_load < 0.0 {
            return wrong(
                "the load allowed to others",
                self.max_other_load.to_string(),
                "0 or more cores",
            );
        }
        if !(positive(self.warm_up.max_s) && self.warm_up.min_s <= self.warm_up.max_s) {
            let value = format!("{} to {} s", self.warm_up.min_s, self.warm_up.max_s);
            return wrong(
                "the warm-up",
                value,
                "from a least to a greatest positive number of seconds",
            );
        }
        let mut names = subjects_names(subjects);
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(BenchError::DuplicateName(pair[0].clone())),
            None => Ok(()),
        }
    }
}

fn subjects_names(subjects: &[&mut dyn Subject]) -> Vec<String> {
    subjects.iter().map(|s| s.name().to_owned()).collect()
}

/// Every subject at every batch size, with the subject's index.
fn cases(names: Vec<String>, batches: &[usize]) -> Vec<(usize, Case)> {
    let at_batch = |batch: usize| {
        names.iter().enumerate().map(move |(index, name)| {
            let case = Case {
                subject: name.clone(),
                batch,
                warm_up: None,
                blocks: Vec::new(),
            };
            (index, case)
        })
    };
    batches.iter().flat_map(|&batch| at_batch(batch)).collect()
}

/// A run under way.
struct Run<'r, 's, 'w> {
    end_s: f64,
    schedule: &'r Schedule,
    subjects: &'r mut [&'s mut dyn Subject],
    cases: Vec<(usize, Case)>,
    instruments: &'r mut Instruments,
    watch: &'r mut Watch<'w>,
    ended: Ended,
    load_unavailable: Option<LoadUnavailable>,
}

impl Run<'_, '_, '_> {
    /// Notes and says whether the run must end now: `Complete` while it need not.
    fn over(&mut self) -> Ended {
        if self.watch.stopped() {
            self.ended = Ended::Stopped;
        } else if self.instruments.clock.now_s() >= self.end_s {
            self.ended = Ended::TimeLimit;
        }
        self.ended
    }

    fn warm_up(&mut self) -> Result<(), BenchError> {
        for (index, case) in &mut self.cases {
            if self.watch.stopped() {
                return Ok(());
            }
            let clock = &*self.instruments.clock;
            let stop = || self.watch.stopped();
            let subject = &mut *self.subjects[*index];
            let limits = &self.schedule.warm_up;
            let warm_up = warm_up(subject, case.batch, limits, clock, stop)
                .map_err(|source| subject_error(case, source))?;
            case.warm_up = Some(warm_up);
            (self.watch.progress)(&Progress::WarmedUp {
                subject: &case.subject,
                batch: case.batch,
                warm_up,
            });
        }
        Ok(())
    }

    /// One block of every case, starting one case later each round; those to discard are tried again after the
    /// others, so that the load has time to go.
    fn round(&mut self, round: usize) -> Result<(), BenchError> {
        let n = self.cases.len();
        let mut due: Vec<usize> = (0..n).map(|i| (i + round) % n).collect();
        for _ in 0..self.schedule.attempts {
            let mut again = Vec::new();
            for case in due {
                if self.over() != Ended::Complete {
                    return Ok(());
                }
                if !self.block(case, round)? {
                    again.push(case);
                }
            }
            due = again;
        }
        Ok(())
    }

    /// Times one block; says whether it is kept. A block cut short by a stop is dropped.
    fn block(&mut self, case: usize, round: usize) -> Result<bool, BenchError> {
        let (index, case) = &mut self.cases[case];
        let clock = &*self.instruments.clock;
        let meter = &mut *self.instruments.meter;
        let subject = &mut *self.subjects[*index];
        let before = meter.read();
        let start_s = clock.now_s();
        let stop = || self.watch.stopped();
        let calls = subject
            .block(case.batch, self.schedule.block_s, clock, &stop)
            .map_err(|source| subject_error(case, source))?;
        if self.watch.stopped() {
            return Ok(true);
        }
        let wall_s = clock.now_s() - start_s;
        let load = before.and_then(|before| Ok(other_load(before, meter.read()?, wall_s)));
        let other_load = match load {
            Ok(load) => Some(load),
            Err(why) => {
                self.load_unavailable = Some(why);
                None
            }
        };
        let block = Block {
            round,
            first_s: calls.first_s,
            times_s: calls.times_s,
            other_load,
            kept: other_load.is_none_or(|load| load <= self.schedule.max_other_load),
        };
        (self.watch.progress)(&Progress::Timed {
            subject: &case.subject,
            batch: case.batch,
            block: &block,
            rounds: self.schedule.rounds,
        });
        let kept = block.kept;
        case.blocks.push(block);
        Ok(kept)
    }
}

fn subject_error(case: &Case, source: PredictError) -> BenchError {
    BenchError::Subject {
        subject: case.subject.clone(),
        batch: case.batch,
        source,
    }
}

fn warm_up(
    subject: &mut dyn Subject,
    batch: usize,
    limits: &WarmUpLimits,
    clock: &dyn Clock,
    stop: impl Fn() -> bool,
) -> Result<WarmUp, PredictError> {
    let start_s = clock.now_s();
    let mut calls = 0;
    let mut previous: Option<f64> = None;
    let mut window = Vec::with_capacity(WARM_UP_WINDOW);
    loop {
        let before_s = clock.now_s();
        subject.run_once(batch)?;
        let now_s = clock.now_s();
        calls += 1;
        window.push(now_s - before_s);
        let seconds = now_s - start_s;
        let mut settled = false;
        if window.len() == WARM_UP_WINDOW {
            let current = median(&window);
            settled = previous
                .zip(current)
                .is_some_and(|(a, b)| (b / a - 1.0).abs() < limits.settled);
            previous = current;
            window.clear();
        }
        if (settled && seconds >= limits.min_s) || seconds >= limits.max_s || stop() {
            return Ok(WarmUp {
                calls,
                seconds,
                settled,
            });
        }
    }
}

/// A first call, then calls back to back until `seconds` are over or `stop` says so, one at least.
pub(super) fn timed_calls(
    subject: &mut (impl Subject + ?Sized),
    batch: usize,
    seconds: f64,
    clock: &dyn Clock,
    stop: impl Fn() -> bool,
) -> Result<Calls, PredictError> {
    let before_s = clock.now_s();
    subject.run_once(batch)?;
    let start_s = clock.now_s();
    let mut calls = Calls {
        first_s: start_s - before_s,
        times_s: Vec::new(),
    };
    let mut last_s = start_s;
    loop {
        subject.run_once(batch)?;
        let now_s = clock.now_s();
        calls.times_s.push(now_s - last_s);
        last_s = now_s;
        if now_s - start_s >= seconds || stop() {
            return Ok(calls);
        }
    }
}

#[cfg(test)]
mod tests;
