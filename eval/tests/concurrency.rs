//! Decoding beside the model: overlap, bounds, threads.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Bytes, IMAGE_LEN, Model, job, samples};
use zoo_eval::data::Sample;
use zoo_eval::pipeline::{self, Outcome, Silent};
use zoo_eval::{PredictError, Predictor, Prepare};

/// How long a test waits for what must happen before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts images that are prepared and not yet predicted.
struct Counting<'a> {
    waiting: &'a AtomicIsize,
    most: &'a AtomicIsize,
}

impl Prepare for Counting<'_> {
    type Image = Vec<u8>;

    fn image_len(&self) -> usize {
        IMAGE_LEN
    }

    fn decode(&self, sample: &Sample) -> Result<Vec<u8>, String> {
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(waiting, Ordering::SeqCst);
        Bytes.decode(sample)
    }

    fn preprocess(&self, image: &Vec<u8>, out: &mut [f32]) {
        Bytes.preprocess(image, out);
    }
}

/// A model that lets the workers run ahead as far as they can before each batch.
struct Slow<'a> {
    waiting: &'a AtomicIsize,
    buffers: HashSet<usize>,
    expected: isize,
    reached: usize,
}

impl Predictor for Slow<'_> {
    fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
        let start = Instant::now();
        while self.waiting.load(Ordering::SeqCst) < self.expected
            && start.elapsed() < Duration::from_millis(30)
        {
            std::thread::yield_now();
        }
        self.reached += usize::from(self.waiting.load(Ordering::SeqCst) >= self.expected);
        self.buffers.insert(batch.as_ptr() as usize);
        self.waiting.fetch_sub(n as isize, Ordering::SeqCst);
        Model.predict(batch, n)
    }
}

#[test]
fn a_slow_model_holds_the_workers_back() {
    let samples = samples(200, &[]);
    for (workers, batch) in [(3, 4), (4, 1), (1, 8)] {
        let (waiting, most) = (AtomicIsize::new(0), AtomicIsize::new(0));
        let prepare = Counting {
            waiting: &waiting,
            most: &most,
        };
        let depth = pipeline::buffers(workers, batch);
        let bound = (depth * batch) as isize;
        let mut model = Slow {
            waiting: &waiting,
            buffers: HashSet::new(),
            expected: bound,
            reached: 0,
        };
        let mut job = job(&samples, batch, None);
        job.workers = workers;
        let go = AtomicBool::new(false);
        pipeline::run(&job, &prepare, &mut model, &go, &mut Silent).unwrap();
        let most = most.load(Ordering::SeqCst);
        assert!(most <= bound, "{most} images alive, {bound} allowed");
        assert!(model.reached > 0, "the workers never ran ahead");
        assert!(
            model.buffers.len() <= depth,
            "{} buffers",
            model.buffers.len()
        );
    }
}

/// Waits in its first batch until images of a later batch are decoded.
struct Overlapping<'a> {
    decoded: &'a AtomicUsize,
    overlapped: bool,
}

struct CountDecoded<'a>(&'a AtomicUsize);

impl Prepare for CountDecoded<'_> {
    type Image = Vec<u8>;

    fn image_len(&self) -> usize {
        IMAGE_LEN
    }

    fn decode(&self, sample: &Sample) -> Result<Vec<u8>, String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Bytes.decode(sample)
    }

    fn preprocess(&self, image: &Vec<u8>, out: &mut [f32]) {
        Bytes.preprocess(image, out);
    }
}

impl Predictor for Overlapping<'_> {
    fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
        let before = self.decoded.load(Ordering::SeqCst);
        let start = Instant::now();
        while !self.overlapped && start.elapsed() < PATIENCE {
            self.overlapped = before == 40 || self.decoded.load(Ordering::SeqCst) > 4;
            std::thread::yield_now();
        }
        Model.predict(batch, n)
    }
}

#[test]
fn decoding_goes_on_while_the_model_runs() {
    let samples = samples(40, &[]);
    let decoded = AtomicUsize::new(0);
    let mut model = Overlapping {
        decoded: &decoded,
        overlapped: false,
    };
    let mut job = job(&samples, 4, None);
    job.workers = 1;
    let go = AtomicBool::new(false);
    pipeline::run(&job, &CountDecoded(&decoded), &mut model, &go, &mut Silent).unwrap();
    assert!(
        model.overlapped,
        "nothing was decoded during the first batch"
    );
}

/// The predictor runs where `run` was called; libtorch wants one inference thread.
#[test]
fn the_model_runs_on_the_calling_thread() {
    struct Here(std::thread::ThreadId);
    impl Predictor for Here {
        fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
            assert_eq!(std::thread::current().id(), self.0);
            Model.predict(batch, n)
        }
    }
    let samples = samples(30, &[]);
    let go = AtomicBool::new(false);
    let mut model = Here(std::thread::current().id());
    let outcome = pipeline::run(
        &job(&samples, 4, None),
        &Bytes,
        &mut model,
        &go,
        &mut Silent,
    );
    assert!(matches!(outcome, Ok(Outcome::Finished(_))));
}
