//! Softmax and weighted sum over shifted windows of 13 x 13, 8 groups of 16 channels (OverLoCK-XT's stage 3), on maps of 14 and 32
//! tokens a side: `ZOO_THREADS=1 cargo bench -p zoo-ops --bench neighborhood`.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor};
use zoo_ops::{Border, Neighborhood, inference_mode};

mod common;

const KERNEL: i64 = 13;
const GROUPS: i64 = 8;
const WIDTH: i64 = 16;

fn mix(c: &mut Criterion) {
    common::set_threads();
    tch::manual_seed(1);
    let noise = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let mut window = Neighborhood::new([KERNEL; 2], Border::Shifted);
    window.fuse();
    for side in [14, 32] {
        let slots = window.slots();
        let logits = noise(&[1, GROUPS, side, side, slots]);
        let bias = noise(&[GROUPS, side, side, slots]);
        let v = noise(&[1, side, side, GROUPS, WIDTH]).permute([0, 3, 1, 2, 4]);
        let kernel = || inference_mode(|| window.attend(&logits, Some(&bias), &v, |_| ()));
        let composed =
            || inference_mode(|| window.mix(&(&logits + &bias).softmax(-1, None::<Kind>), &v));
        let apart = (kernel() - composed()).abs().max().double_value(&[]);
        assert!(apart < 1e-5, "the kernel is {apart} from the composed form");
        let mut group = c.benchmark_group("neighborhood");
        common::print_memory(&format!("neighborhood/kernel/{side}"), kernel);
        group.bench_function(BenchmarkId::new("kernel", side), |b| b.iter(kernel));
        common::print_memory(&format!("neighborhood/composed/{side}"), composed);
        group.bench_function(BenchmarkId::new("composed", side), |b| b.iter(composed));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = mix
}
criterion_main!(benches);
