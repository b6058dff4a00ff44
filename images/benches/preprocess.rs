//! JPEG bytes to model input on one core: the 200 images of the test data, a pass over all of them an iteration.
//!
//! `bench/preprocess_peers.py` measures Pillow and torchvision on the same files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zoo_images::{Interpolation, Rgb, Transform, decode};

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let (folders, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    let mut bytes: Vec<_> = files.iter().map(|f| std::fs::read(f).unwrap()).collect();
    bytes.extend(folders.iter().flat_map(|folder| self::files(folder)));
    bytes
}

fn transform(crop_pct: f64, interpolation: Interpolation) -> Transform {
    Transform {
        size: (224, 224),
        crop_pct,
        interpolation,
        mean: Transform::IMAGENET_MEAN,
        std: Transform::IMAGENET_STD,
    }
}

fn preprocess(criterion: &mut Criterion) {
    let Some(data) = std::env::var_os("ZOO_TEST_DATA") else {
        eprintln!("SKIPPED: ZOO_TEST_DATA not set");
        return;
    };
    let files = files(&PathBuf::from(data).join("imagenet-sample/val"));
    let images: Vec<Rgb> = files.iter().map(|bytes| decode(bytes).unwrap()).collect();
    let mut group = criterion.benchmark_group("preprocess");
    group.throughput(Throughput::Elements(files.len() as u64));
    group
        .measurement_time(Duration::from_secs(5))
        .sample_size(20);
    group.bench_function("decode", |b| {
        b.iter(|| {
            files
                .iter()
                .map(|f| decode(f).unwrap().width)
                .sum::<usize>()
        });
    });
    for (name, crop_pct, interpolation) in [
        ("timm 0.9 bicubic", 0.9, Interpolation::Bicubic),
        ("torchvision 0.875 bilinear", 0.875, Interpolation::Bilinear),
    ] {
        let transform = transform(crop_pct, interpolation);
        let mut out = vec![0.0; 3 * 224 * 224];
        group.bench_function(format!("crop, {name}"), |b| {
            b.iter(|| {
                images
                    .iter()
                    .map(|i| transform.crop(i).width)
                    .sum::<usize>()
            });
        });
        group.bench_function(format!("crop and normalise, {name}"), |b| {
            b.iter(|| images.iter().for_each(|i| transform.write(i, &mut out)));
        });
        group.bench_function(format!("all, {name}"), |b| {
            b.iter(|| {
                for bytes in &files {
                    transform.write(&decode(bytes).unwrap(), &mut out);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, preprocess);
criterion_main!(benches);
