//! The pipeline in one process: figures and failures.

mod common;

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{Bytes, CLASSES, IMAGE_LEN, Model, finish, job, journal_path, printed, run, samples};
use zoo_eval::data::{Sample, Source};
use zoo_eval::pipeline::{self, EvalError, NonFinite, Observer, Outcome, Progress, Silent};
use zoo_eval::{PredictError, Predictor, Prepare};

/// A second, plain computation of the whole report: one loop, a full sort, a direct softmax.
#[test]
fn figures_equal_a_plain_computation() {
    let samples = samples(101, &[13, 50]);
    let report = finish(&job(&samples, 8, None)).report();
    let (mut top1, mut top5, mut of, mut loss) = (0, 0, 0, 0.0);
    for (i, sample) in samples.iter().enumerate() {
        let Source::Memory(bytes) = &sample.source else {
            unreachable!()
        };
        if bytes.len() != IMAGE_LEN {
            continue;
        }
        let pixels: Vec<f32> = bytes.iter().map(|&b| f32::from(b) / 255.0 - 0.5).collect();
        let n = if i >= 96 { 5 } else { 8 };
        let logits = common::logits(&pixels, i % 8, n);
        let label = sample.label.unwrap();
        let better = logits.iter().filter(|&&x| x > logits[label]).count();
        top1 += usize::from(better < 1);
        top5 += usize::from(better < 5);
        let total: f64 = logits.iter().map(|x| x.exp()).sum();
        loss -= (logits[label].exp() / total).ln();
        of += 1;
    }
    assert!(
        top1 > 0 && top5 > top1 && top5 < of,
        "the test shows nothing"
    );
    let measured = report.top1.unwrap();
    assert_eq!((measured.correct, measured.of), (top1, of));
    assert_eq!(report.top5.unwrap().correct, top5);
    assert!((report.mean_loss.unwrap() - loss / of as f64).abs() < 1e-12);
    assert_eq!(report.classes, Some(CLASSES));
    let unreadable: Vec<_> = report.unreadable.iter().map(|n| n.index).collect();
    assert_eq!(unreadable, [13, 50]);
    assert_eq!(report.unreadable[0].id, "class/\"13\".png");
    assert_eq!(report.unreadable[0].reason, "11 bytes");
}

#[test]
fn workers_do_not_change_the_report() {
    let samples = samples(60, &[7]);
    let mut one = job(&samples, 4, None);
    one.workers = 1;
    let expected = printed(&finish(&one));
    for workers in [2, 5, 16] {
        let mut many = job(&samples, 4, None);
        many.workers = workers;
        assert_eq!(printed(&finish(&many)), expected, "{workers} workers");
    }
}

#[test]
fn a_panic_of_the_decoder_is_an_unreadable_image() {
    struct Panics;
    impl Prepare for Panics {
        type Image = Vec<u8>;
        fn image_len(&self) -> usize {
            IMAGE_LEN
        }
        fn decode(&self, sample: &Sample) -> Result<Vec<u8>, String> {
            assert!(!sample.id.contains("\"5\""), "five is too much");
            Bytes.decode(sample)
        }
        fn preprocess(&self, image: &Vec<u8>, out: &mut [f32]) {
            Bytes.preprocess(image, out);
        }
    }
    let samples = samples(12, &[]);
    let go = AtomicBool::new(false);
    let outcome = pipeline::run(
        &job(&samples, 4, None),
        &Panics,
        &mut Model,
        &go,
        &mut Silent,
    );
    let Ok(Outcome::Finished(evaluation)) = outcome else {
        panic!("{outcome:?}")
    };
    let report = evaluation.report();
    assert_eq!(report.unreadable.len(), 1);
    assert_eq!(report.unreadable[0].index, 5);
    assert_eq!(report.unreadable[0].reason, "panicked: five is too much");
}

/// What the model saw in place of unreadable images, batch by batch.
#[test]
fn unreadable_images_keep_the_batch_in_shape() {
    struct Sees(Vec<(usize, Vec<bool>)>);
    impl Predictor for Sees {
        fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
            let zero = |image: &[f32]| image.iter().all(|&x| x == 0.0);
            self.0
                .push((n, batch.chunks(IMAGE_LEN).map(zero).collect()));
            Model.predict(batch, n)
        }
    }
    // One in a fresh buffer, a batch of nothing else, and one where a used buffer holds an old image.
    let samples = samples(16, &[1, 8, 9, 10, 11, 14]);
    let mut seen = Sees(Vec::new());
    let mut job = job(&samples, 4, None);
    job.workers = 1;
    let go = AtomicBool::new(false);
    pipeline::run(&job, &Bytes, &mut seen, &go, &mut Silent).unwrap();
    assert_eq!(
        seen.0.len(),
        3,
        "a batch without an image reached the model"
    );
    let zeros: usize = seen.0.iter().flat_map(|(_, z)| z).filter(|&&z| z).count();
    assert_eq!(zeros, 2);
    assert!(seen.0.iter().all(|(n, z)| *n == 4 && z.len() == 4));
}

/// Gives NaN for one image, by its place in the data set.
struct Nan {
    image: usize,
    seen: usize,
}

impl Predictor for Nan {
    fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
        let mut rows = Model.predict(batch, n)?;
        if (self.seen..self.seen + n).contains(&self.image) {
            rows[self.image - self.seen][3] = f64::NAN;
        }
        self.seen += n;
        Ok(rows)
    }
}

#[test]
fn logits_that_are_not_finite_stop_or_are_counted() {
    let samples = samples(20, &[]);
    let (_guard, path) = journal_path();
    let go = AtomicBool::new(false);
    let mut job = job(&samples, 4, Some(&path));
    // One worker: batches come in order, so that the model knows which image it sees.
    job.workers = 1;
    let nan = || Nan { image: 9, seen: 0 };
    let error = pipeline::run(&job, &Bytes, &mut nan(), &go, &mut Silent).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("class/\"9\".png") && text.contains("1 NaN"),
        "{text}"
    );

    job.journal = None;
    job.non_finite = NonFinite::Count;
    let outcome = pipeline::run(&job, &Bytes, &mut nan(), &go, &mut Silent).unwrap();
    let Outcome::Finished(evaluation) = outcome else {
        panic!("interrupted")
    };
    let report = evaluation.report();
    assert_eq!(report.non_finite[0].index, 9);
    assert_eq!(report.top1.unwrap().of, 20);
    assert!(report.mean_loss.unwrap().is_finite());
    assert!(report.warnings.iter().any(|w| w.contains("not finite")));
}

#[test]
fn a_label_beyond_the_logits_is_an_error() {
    let mut samples = samples(20, &[]);
    samples[18].label = Some(CLASSES);
    struct Once(usize);
    impl Predictor for Once {
        fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
            self.0 += 1;
            Model.predict(batch, n)
        }
    }
    let (mut once, go) = (Once(0), AtomicBool::new(false));
    let error = pipeline::run(&job(&samples, 4, None), &Bytes, &mut once, &go, &mut Silent);
    let error = error.unwrap_err();
    assert_eq!(once.0, 1, "found only when its batch came");
    assert!(
        matches!(
            error,
            EvalError::Label {
                index: 18,
                label: CLASSES,
                classes: CLASSES,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("0 to 9"), "{error}");
    samples[18].label = Some(CLASSES - 1);
    finish(&job(&samples, 4, None));
}

#[test]
fn a_model_that_gives_too_few_rows_or_classes_is_an_error() {
    struct Bad(fn(&mut Vec<Vec<f64>>));
    impl Predictor for Bad {
        fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
            let mut rows = Model.predict(batch, n)?;
            (self.0)(&mut rows);
            Ok(rows)
        }
    }
    let samples = samples(20, &[]);
    let go = AtomicBool::new(false);
    let fail = |change| {
        pipeline::run(
            &job(&samples, 4, None),
            &Bytes,
            &mut Bad(change),
            &go,
            &mut Silent,
        )
        .unwrap_err()
    };
    assert!(matches!(
        fail(|rows| rows.truncate(3)),
        EvalError::Rows {
            expected: 4,
            found: 3,
            ..
        }
    ));
    assert!(matches!(fail(Vec::clear), EvalError::Rows { found: 0, .. }));
    assert!(matches!(
        fail(|rows| rows.truncate(0)),
        EvalError::Rows { .. }
    ));
    assert!(matches!(
        fail(|rows| rows[2].truncate(9)),
        EvalError::Width {
            expected: 10,
            found: 9,
            ..
        }
    ));
    assert!(matches!(
        fail(|rows| rows.iter_mut().for_each(Vec::clear)),
        EvalError::NoLogits
    ));
}

#[test]
fn settings_without_sense_are_errors() {
    let samples = samples(8, &[]);
    assert!(matches!(run(&job(&[], 4, None)), Err(EvalError::NoImages)));
    assert!(matches!(
        run(&job(&samples, 0, None)),
        Err(EvalError::Zero("batch"))
    ));
    let mut no_workers = job(&samples, 4, None);
    no_workers.workers = 0;
    assert!(matches!(run(&no_workers), Err(EvalError::Zero("workers"))));
    let mut other = job(&samples, 4, None);
    other.header.images = 9;
    assert!(matches!(run(&other), Err(EvalError::HeaderImages { .. })));
    assert!(matches!(
        run(&job(&samples, usize::MAX, None)),
        Err(EvalError::BatchTooLarge(_))
    ));
}

#[test]
fn a_batch_larger_than_the_data_set_is_fine() {
    let samples = samples(5, &[]);
    assert_eq!(finish(&job(&samples, 64, None)).report().images, 5);
}

#[test]
fn images_without_labels_have_predictions_and_no_accuracy() {
    let mut samples = samples(9, &[]);
    for sample in &mut samples {
        sample.label = None;
    }
    let evaluation = finish(&job(&samples, 4, None));
    let report = evaluation.report();
    assert_eq!((report.images, report.labelled), (9, 0));
    assert_eq!((report.top1, report.mean_loss), (None, None));
    assert_eq!(evaluation.rows().count(), 9);
}

#[test]
fn observers_are_told_of_the_start_and_the_end() {
    struct Seen(Mutex<Vec<Progress>>);
    impl Observer for Seen {
        fn progress(&mut self, progress: &Progress) {
            self.0.get_mut().unwrap().push(*progress);
        }
    }
    let samples = samples(10, &[]);
    let mut seen = Seen(Mutex::new(Vec::new()));
    let go = AtomicBool::new(false);
    pipeline::run(&job(&samples, 4, None), &Bytes, &mut Model, &go, &mut seen).unwrap();
    let seen = seen.0.into_inner().unwrap();
    let first = seen.first().unwrap();
    let last = seen.last().unwrap();
    assert_eq!((first.done, first.total), (0, 10));
    assert_eq!((last.done, last.total), (10, 10));
    assert!(seen.windows(2).all(|w| w[0].done <= w[1].done));
    assert!(last.rate > 0.0);
}

#[test]
fn timings_say_where_the_time_went() {
    struct Sleeps;
    impl Predictor for Sleeps {
        fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
            std::thread::sleep(Duration::from_millis(20));
            Model.predict(batch, n)
        }
    }
    let samples = samples(40, &[]);
    let go = AtomicBool::new(false);
    let outcome = pipeline::run(
        &job(&samples, 4, None),
        &Bytes,
        &mut Sleeps,
        &go,
        &mut Silent,
    );
    let Ok(Outcome::Finished(evaluation)) = outcome else {
        panic!("{outcome:?}")
    };
    let timings = evaluation.report().timings.unwrap();
    assert_eq!(timings.limited_by, "model");
    assert_eq!(timings.batch_ms.batches, 10);
    // A sleep takes at least its time, and no part is longer than the whole.
    assert!(timings.batch_ms.p50 >= 20.0 && timings.wall_s >= 0.2);
    assert!(timings.stages[2].busy_s <= timings.wall_s);
}
