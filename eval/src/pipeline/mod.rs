//! Runs an evaluation: worker threads prepare batches while the calling thread predicts them.
//!
//! A fixed set of batch buffers goes round: a worker fills one, the calling thread predicts it and
//! hands it back for the next batch. There are never more than [`buffers`] of them, so memory stays
//! flat and a slow model holds the workers back.

mod error;
mod feed;
mod images;
mod infer;
mod progress;
mod store;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::data::Sample;
use crate::evaluation::Evaluation;
use crate::journal::{Header, Took};
use crate::{Predictor, Prepare};

pub use error::EvalError;
pub use images::Images;
pub use progress::{Bar, Lines, Observer, Progress, Silent, for_stderr};

use feed::{Buffer, CancelOnDrop, Filled, Source};
use infer::Inferred;
use store::Store;

/// How often a waiting thread looks whether it should stop.
const TICK: Duration = Duration::from_millis(50);

/// An evaluation to run.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// What the results depend on; `images` must be the number of `samples`.
    pub header: Header,
    /// The whole data set, whatever the shard.
    pub samples: &'a [Sample],
    /// Threads that decode and preprocess.
    pub workers: usize,
    /// What to do about logits that are not finite.
    pub non_finite: NonFinite,
    /// Where finished batches are written; without one a killed run is lost.
    pub journal: Option<&'a Path>,
    /// Drop what the journal says.
    pub fresh: bool,
}

/// What to do about logits that are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonFinite {
    /// Stop with an error that names the image.
    Fail,
    /// Count the image as wrong, name it in the report, and go on.
    Count,
}

/// How a run ended, when nothing failed.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// All batches of the shard are done.
    Finished(Box<Evaluation>),
    /// It was asked to stop. What is done is in the journal; the same run goes on from there.
    Interrupted {
        /// Images done so far, in this run and those before.
        done: usize,
        /// Images of the shard.
        total: usize,
    },
}

/// How many batch buffers a run has: one in the model, one ready, and enough to keep the workers busy.
pub fn buffers(workers: usize, batch: usize) -> usize {
    2 + workers.div_ceil(batch.max(1))
}

/// Evaluates the batches of the job's shard that its journal does not have yet.
///
/// The predictor is called on the calling thread only, with one batch at a time. In place of an
/// unreadable image it is given zeros, so that the batch keeps its shape and its other images their
/// results. Setting `stop` ends the run after the batch that is in the model.
pub fn run<P: Prepare>(
    job: &Job<'_>,
    prepare: &P,
    predictor: &mut dyn Predictor,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome, EvalError> {
    check(job, prepare)?;
    let mut store = Store::open(job)?;
    let todo: Vec<usize> = job.header.batches().filter(|&k| !store.has(k)).collect();
    let mut run = Run {
        job,
        store: &mut store,
        predictor,
        stop,
        observer,
        started: Instant::now(),
        evaluated: 0,
        labels_fit: false,
    };
    let result = run.evaluate(prepare, &todo);
    // Also after a failure: what is done should outlive the machine.
    let synced = store.sync();
    let finished = result?;
    synced?;
    if finished {
        Ok(Outcome::Finished(Box::new(store.finish())))
    } else {
        Ok(Outcome::Interrupted {
            done: store.images(),
            total: job.header.images_of_shard(),
        })
    }
}

fn check<P: Prepare>(job: &Job<'_>, prepare: &P) -> Result<(), EvalError> {
    if job.samples.is_empty() {
        return Err(EvalError::NoImages);
    }
    if job.header.images != job.samples.len() {
        return Err(EvalError::HeaderImages {
            header: job.header.images,
            samples: job.samples.len(),
        });
    }
    for (setting, value) in [
        ("batch", job.header.batch),
        ("workers", job.workers),
        ("image length", prepare.image_len()),
    ] {
        if value == 0 {
            return Err(EvalError::Zero(setting));
        }
    }
    let floats = job.header.batch.checked_mul(prepare.image_len());
    if floats.is_none_or(|n| n > isize::MAX as usize / size_of::<f32>()) {
        return Err(EvalError::BatchTooLarge(job.header.batch));
    }
    Ok(())
}

struct Run<'r, 'j> {
    job: &'r Job<'j>,
    store: &'r mut Store,
    predictor: &'r mut dyn Predictor,
    stop: &'r AtomicBool,
    observer: &'r mut dyn Observer,
    started: Instant,
    /// Images evaluated by this run.
    evaluated: usize,
    /// All labels were held to the width of the logits.
    labels_fit: bool,
}

impl Run<'_, '_> {
    /// Whether all of `todo` is done; `false` when stopped before.
    fn evaluate<P: Prepare>(&mut self, prepare: &P, todo: &[usize]) -> Result<bool, EvalError> {
        self.report_progress();
        if todo.is_empty() {
            return Ok(true);
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.job.workers)
            .thread_name(|i| format!("prepare-{i}"))
            .build()?;
        let depth = buffers(self.job.workers, self.job.header.batch);
        let (ready, filled) = crossbeam_channel::bounded(depth);
        let cancel = AtomicBool::new(false);
        let source = Source {
            prepare,
            samples: self.job.samples,
            cancel: &cancel,
        };
        pool.in_place_scope(|scope| {
            let _cancel = CancelOnDrop(&cancel);
            let mut todo_next = todo.iter().copied();
            let mut begin = |buffer: Buffer| {
                let Some(k) = todo_next.next() else { return };
                let images = self.job.header.images_of(k);
                let (source, ready) = (&source, ready.clone());
                scope.spawn(move |_| {
                    if let Some(filled) = source.fill(k, images, buffer) {
                        // Nobody listens any more once the run has ended.
                        let _ = ready.send(filled);
                    }
                });
            };
            for _ in 0..depth {
                begin(Buffer::default());
            }
            let mut last = self.started;
            for _ in todo {
                let waiting = Instant::now();
                let Some(batch) = self.next(&filled) else {
                    return Ok(false);
                };
                let wait = waiting.elapsed();
                let (inferred, buffer) = infer::infer(self.predictor, batch)?;
                begin(buffer);
                last = self.settle(inferred, wait, last)?;
            }
            Ok(true)
        })
    }

    /// The next batch that is ready, or `None` when the run should stop.
    fn next(&mut self, filled: &Receiver<Filled>) -> Option<Filled> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            match filled.recv_timeout(TICK) {
                Ok(batch) => return Some(batch),
                Err(RecvTimeoutError::Timeout) => self.report_progress(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Scores a batch and writes it down; `last` is when the one before was scored, and the return value when this one was.
    fn settle(
        &mut self,
        inferred: Inferred,
        wait: Duration,
        last: Instant,
    ) -> Result<Instant, EvalError> {
        if let (false, Some(classes)) = (self.labels_fit, inferred.classes()) {
            if classes == 0 {
                return Err(EvalError::NoLogits);
            }
            infer::check_labels(self.job.samples, classes)?;
            self.labels_fit = true;
        }
        let mut record = infer::score(self.job, inferred, self.store.classes())?;
        let now = Instant::now();
        record.took = Took {
            wait: wait.as_secs_f64(),
            span: (now - last).as_secs_f64(),
            workers: self.job.workers,
            ..record.took
        };
        self.evaluated += record.rows.len();
        self.store.add(record)?;
        self.report_progress();
        Ok(now)
    }

    fn report_progress(&mut self) {
        let progress = Progress::new(
            self.store.images(),
            self.job.header.images_of_shard(),
            self.evaluated,
            self.started.elapsed(),
        );
        self.observer.progress(&progress);
    }
}
