//! A data set, a decoder and a model that need no files: deterministic, and sensitive to what they are given.

// Every test binary uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zoo_eval::data::{Sample, Source};
use zoo_eval::journal::{Header, Preprocessing, Reported, Shard};
use zoo_eval::pipeline::{self, EvalError, Job, NonFinite, Outcome, Silent};
use zoo_eval::{Evaluation, PredictError, Predictor, Prepare};

pub const IMAGE_LEN: usize = 12;
pub const CLASSES: usize = 10;

/// `n` images of pseudo-random bytes; those in `broken` cannot be decoded.
pub fn samples(n: usize, broken: &[usize]) -> Vec<Sample> {
    (0..n)
        .map(|i| {
            let mut state = i as u64 + 1;
            let mut bytes: Vec<u8> = (0..IMAGE_LEN)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(99);
                    (state >> 40) as u8
                })
                .collect();
            if broken.contains(&i) {
                bytes.pop();
            }
            Sample {
                id: format!("class/\"{i}\".png"),
                label: Some(i * 7 % CLASSES),
                source: Source::Memory(Arc::from(bytes)),
            }
        })
        .collect()
}

pub fn header(batch: usize, images: usize) -> Header {
    Header {
        version: "0.0.0".into(),
        model: "fake".into(),
        weights: "formula".into(),
        weights_identity: "formula:1".into(),
        trained: false,
        data_set: "bytes".into(),
        layout: "memory".into(),
        fingerprint: "none".into(),
        images,
        preprocessing: Preprocessing {
            size: [2, 2],
            crop_pct: 0.9,
            interpolation: "none".into(),
            mean: vec![0.1, 0.2, 0.3],
            std: vec![0.3, 0.2, 0.1],
        },
        dtype: "float32".into(),
        engine: "fake".into(),
        device: "cpu".into(),
        batch,
        threads: 1,
        shard: Shard::WHOLE,
        machine: "here".into(),
        reported: Some(Reported {
            top1: 12.5,
            source: "nowhere".into(),
        }),
    }
}

pub fn job<'a>(samples: &'a [Sample], batch: usize, journal: Option<&'a Path>) -> Job<'a> {
    Job {
        header: header(batch, samples.len()),
        samples,
        workers: 3,
        non_finite: NonFinite::Fail,
        journal,
        fresh: false,
    }
}

pub struct Bytes;

impl Prepare for Bytes {
    type Image = Vec<u8>;

    fn image_len(&self) -> usize {
        IMAGE_LEN
    }

    fn decode(&self, sample: &Sample) -> Result<Vec<u8>, String> {
        let Source::Memory(bytes) = &sample.source else {
            return Err("not in memory".into());
        };
        if bytes.len() == IMAGE_LEN {
            Ok(bytes.to_vec())
        } else {
            Err(format!("{} bytes", bytes.len()))
        }
    }

    fn preprocess(&self, image: &Vec<u8>, out: &mut [f32]) {
        for (out, &byte) in out.iter_mut().zip(image) {
            *out = f32::from(byte) / 255.0 - 0.5;
        }
    }
}

/// Logits depend on the pixels, and a little on the batch's size and the place in it, as those of a
/// real engine may: a run that is cut differently gives other figures.
pub struct Model;

impl Predictor for Model {
    fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
        let rows = batch.chunks_exact(IMAGE_LEN).enumerate();
        Ok(rows
            .map(|(place, pixels)| logits(pixels, place, n))
            .collect())
    }
}

pub fn logits(pixels: &[f32], place: usize, n: usize) -> Vec<f64> {
    (0..CLASSES)
        .map(|class| {
            let weight = |j: usize| ((class + 1) * (j + 3)) as f64 % 7.3 - 3.6;
            let sum: f64 = pixels
                .iter()
                .enumerate()
                .map(|(j, &x)| f64::from(x) * weight(j))
                .sum();
            sum + 1e-3 * (place * class) as f64 + 1e-4 * (n * class) as f64
        })
        .collect()
}

pub fn run(job: &Job<'_>) -> Result<Outcome, EvalError> {
    let go = AtomicBool::new(false);
    pipeline::run(job, &Bytes, &mut Model, &go, &mut Silent)
}

pub fn finish(job: &Job<'_>) -> Evaluation {
    match run(job) {
        Ok(Outcome::Finished(evaluation)) => *evaluation,
        other => panic!("not finished: {other:?}"),
    }
}

/// The reproducible part of the report, as it is printed, and all predictions.
pub fn printed(evaluation: &Evaluation) -> String {
    use zoo_eval::report::{PredictionFormat, write_predictions};
    let report = evaluation.report().without_timings();
    let mut out = report.to_json().unwrap().into_bytes();
    write_predictions(evaluation, PredictionFormat::JsonLines, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A path in a fresh folder; the folder lives as long as the guard.
pub fn journal_path() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.zoo-journal");
    (folder, path)
}

/// Stops the run, or fails, after some batches; and counts them.
struct Stops<'a> {
    after: usize,
    calls: usize,
    stop: &'a AtomicBool,
    fail: bool,
}

impl Predictor for Stops<'_> {
    fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
        self.calls += 1;
        if self.calls > self.after && self.fail {
            return Err(PredictError("out of memory".into()));
        }
        if self.calls == self.after {
            self.stop.store(true, Ordering::Relaxed);
        }
        Model.predict(batch, n)
    }
}

/// Runs with a model that stops (or fails) after some batches; also how often it was called.
pub fn run_until(job: &Job<'_>, after: usize, fail: bool) -> (Result<Outcome, EvalError>, usize) {
    let stop = AtomicBool::new(false);
    let never = AtomicBool::new(false);
    let mut model = Stops {
        after,
        calls: 0,
        stop: if fail { &never } else { &stop },
        fail,
    };
    let outcome = pipeline::run(job, &Bytes, &mut model, &stop, &mut Silent);
    (outcome, model.calls)
}

/// What a run without interruption prints.
pub fn reference(samples: &[Sample], batch: usize) -> String {
    printed(&finish(&job(samples, batch, None)))
}
