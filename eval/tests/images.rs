//! The pipeline over real files: what the model is given, and what is unreadable.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use common::header;
use zoo_eval::data::{DataSet, OpenOptions};
use zoo_eval::journal::Preprocessing;
use zoo_eval::pipeline::{self, Images, Job, NonFinite, Outcome, Silent};
use zoo_eval::{Evaluation, PredictError, Predictor, Prepare};
use zoo_images::{Interpolation, Transform};

fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("ZOO_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED: ZOO_TEST_DATA not set");
    }
    folder
}

/// Keeps what it is given; its best class is 0.
struct Keeps(Vec<(usize, Vec<f32>)>);

impl Predictor for Keeps {
    fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
        self.0.push((n, batch.to_vec()));
        let row = |image: &[f32]| {
            let mut row = vec![0.0; 1000];
            row[0] = f64::from(image.iter().sum::<f32>().abs() + 1.0);
            row
        };
        Ok(batch.chunks(batch.len() / n).map(row).collect())
    }
}

fn evaluate(data: &DataSet, images: &Images, batch: usize, workers: usize) -> (Evaluation, Keeps) {
    let mut header = header(batch, data.samples.len());
    header.layout = data.describe();
    header.fingerprint = data.fingerprint().unwrap();
    header.preprocessing = Preprocessing::from(&images.transform);
    let job = Job {
        header,
        samples: &data.samples,
        workers,
        non_finite: NonFinite::Fail,
        journal: None,
        fresh: false,
    };
    let mut keeps = Keeps(Vec::new());
    let go = AtomicBool::new(false);
    match pipeline::run(&job, images, &mut keeps, &go, &mut Silent) {
        Ok(Outcome::Finished(evaluation)) => (*evaluation, keeps),
        other => panic!("{other:?}"),
    }
}

fn images(side: usize) -> Images {
    Images {
        transform: Transform {
            size: (side, side),
            crop_pct: 0.875,
            interpolation: Interpolation::Bilinear,
            mean: Transform::IMAGENET_MEAN,
            std: Transform::IMAGENET_STD,
        },
    }
}

/// Files of class folders, with a text file and a cut file among them.
fn with_broken_files(source: &Path, folder: &Path) {
    let mut classes: Vec<_> = fs::read_dir(source)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    classes.sort();
    for class in &classes[..20] {
        let target = folder.join(class.file_name().unwrap());
        fs::create_dir_all(&target).unwrap();
        for file in fs::read_dir(class).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    let class = folder.join(classes[7].file_name().unwrap());
    let image = fs::read_dir(&class).unwrap().next().unwrap().unwrap();
    let bytes = fs::read(image.path()).unwrap();
    fs::write(class.join("zcut.JPEG"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(class.join("ztext.JPEG"), "no picture").unwrap();
}

#[test]
fn every_image_reaches_the_model_in_its_place() {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    with_broken_files(&data.join("imagenet-sample/val"), folder.path());
    let data = DataSet::open(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!(data.samples.len(), 22);
    let images = images(64);
    // One worker: the batches come in order.
    let (evaluation, keeps) = evaluate(&data, &images, 8, 1);
    let report = evaluation.report();
    let unreadable: Vec<_> = report.unreadable.iter().map(|n| n.id.as_str()).collect();
    assert_eq!(unreadable.len(), 2);
    assert!(unreadable[0].ends_with("zcut.JPEG") && unreadable[1].ends_with("ztext.JPEG"));
    assert_eq!((report.images, report.labelled), (22, 20));
    let given = keeps
        .0
        .iter()
        .flat_map(|(_, batch)| batch.chunks(images.image_len()));
    let mut compared = 0;
    for (sample, given) in data.samples.iter().zip(given) {
        let mut expected = vec![0.0; images.image_len()];
        if let Ok(image) = zoo_images::decode(&sample.source.read().unwrap()) {
            images.transform.write(&image, &mut expected);
        }
        assert_eq!(given, expected, "{}", sample.id);
        compared += 1;
    }
    assert_eq!(compared, 22);
    let sizes: Vec<_> = keeps.0.iter().map(|(n, _)| *n).collect();
    assert_eq!(sizes, [8, 8, 6]);
}

#[test]
fn records_without_files_are_prepared_too() {
    let Some(data) = test_data() else { return };
    let data = DataSet::open(&data.join("cifar10"), &OpenOptions::default()).unwrap();
    let mut images = images(32);
    images.transform.crop_pct = 1.0;
    let (evaluation, keeps) = evaluate(&data, &images, 500, 2);
    let report = evaluation.report();
    assert_eq!(report.images, data.samples.len());
    assert_eq!(report.unreadable, []);
    // The model says class 0 for every image.
    let zeros = data.samples.iter().filter(|s| s.label == Some(0)).count();
    assert_eq!(report.top1.unwrap().correct, zeros);
    // Nothing is resized, so the first record's planes come through, normalised.
    let planes = data.samples[0].source.read().unwrap().into_owned();
    let first: Vec<u8> = keeps
        .0
        .iter()
        .map(|(_, batch)| {
            let denormalised = batch[..3 * 32 * 32].iter().enumerate().map(|(i, &x)| {
                let c = i / (32 * 32);
                (x * Transform::IMAGENET_STD[c] + Transform::IMAGENET_MEAN[c]) * 255.0
            });
            denormalised.map(|x| x.round() as u8).collect::<Vec<_>>()
        })
        .find(|image| *image == planes)
        .unwrap_or_default();
    assert_eq!(first, planes, "no batch begins with the first record");
}
