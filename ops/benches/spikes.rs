//! Sums of weights against the dense product, over firing rates: `cargo bench -p zoo-ops --bench spikes`.
//!
//! Sizes are those of one image of Spikformer 4-384 on CIFAR (four steps of 64 tokens, and the convolutions of its stem)
//! and of 8-512 on ImageNet (four steps of 196 tokens). `dense` is oneDNN's prepacked product, which does not look at
//! the values; `sums` packs the spikes and adds weights, whatever the cost model would choose. Behind each size stand the
//! ratios dense / sums of the quickest sample and the rate at which both take the same time. `ZOO_THREADS` is the number
//! of threads (1).

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor, nn};
use zoo_ops::{Conv2d, ConvConfig, Linear, Spiked, inference_mode};

/// Percent.
const RATES: [u32; 7] = [1, 2, 5, 10, 20, 30, 50];
const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Rows, inputs and outputs.
const LINEARS: [(&str, [i64; 3]); 6] = [
    ("cifar 384 to 384", [256, 384, 384]),
    ("cifar 384 to 1536", [256, 384, 1536]),
    ("cifar 1536 to 384", [256, 1536, 384]),
    ("imagenet 512 to 512", [784, 512, 512]),
    ("imagenet 512 to 2048", [784, 512, 2048]),
    ("imagenet 2048 to 512", [784, 2048, 512]),
];

/// Side, inputs and outputs of 3x3 convolutions on four maps.
const CONVOLUTIONS: [(&str, [i64; 3]); 4] = [
    ("stem 32x32, 48 to 96", [32, 48, 96]),
    ("stem 32x32, 96 to 192", [32, 96, 192]),
    ("stem 16x16, 192 to 384", [16, 192, 384]),
    ("positions 8x8, 384 to 384", [8, 384, 384]),
];

fn threads() -> i32 {
    let set = std::env::var("ZOO_THREADS").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// 0 and 1, or 0 to 3 where `counts`, as a residual stream of spikes has them.
fn spikes(shape: &[i64], percent: u32, counts: bool) -> Tensor {
    let rate = Tensor::full(shape, f64::from(percent) / 100.0, F32);
    let fires = rate.bernoulli();
    if counts {
        fires * Tensor::randint_low(1, 4, shape, F32)
    } else {
        fires
    }
}

/// The quickest sample, in seconds; infinite where a filter left it out.
fn time(group: &mut BenchmarkGroup<WallTime>, name: &str, f: impl Fn() -> Tensor) -> f64 {
    let best = Cell::new(f64::INFINITY);
    group.bench_function(name, |b| {
        b.iter_custom(|count| {
            let start = Instant::now();
            for _ in 0..count {
                let _ = black_box(inference_mode(&f));
            }
            let taken = start.elapsed();
            best.set(best.get().min(taken.as_secs_f64() / count as f64));
            taken
        });
    });
    best.get()
}

/// Dense once, sums at every rate, and what follows.
fn compare(
    c: &mut Criterion,
    name: &str,
    shape: &[i64],
    dense: impl Fn(&Tensor) -> Tensor,
    sums: impl Fn(&Tensor) -> Tensor,
) {
    for counts in [false, true] {
        let name = format!("{name}{}", if counts { ", counts to 3" } else { "" });
        let mut group = c.benchmark_group(format!("{name}, {} threads", threads()));
        let x = spikes(shape, 10, counts);
        let without = time(&mut group, "dense", || dense(&x));
        let mut seen = Vec::new();
        for percent in RATES {
            let x = spikes(shape, percent, counts);
            let taken = time(&mut group, &format!("sums at {percent} %"), || sums(&x));
            seen.push((f64::from(percent), without / taken));
        }
        group.finish();
        if seen
            .iter()
            .all(|(_, ratio)| ratio.is_finite() && *ratio > 0.0)
        {
            report(&name, &seen);
        }
    }
}

/// Ratios, and where they pass 1 by linear interpolation.
fn report(name: &str, seen: &[(f64, f64)]) {
    let ratios: Vec<String> = seen
        .iter()
        .map(|(rate, ratio)| format!("{rate} %: {ratio:.2}"))
        .collect();
    let crossing = seen.windows(2).find(|w| w[0].1 >= 1.0 && w[1].1 < 1.0);
    let even = match crossing {
        Some(w) => {
            let part = (w[0].1 - 1.0) / (w[0].1 - w[1].1);
            format!("break-even at {:.1} %", w[0].0 + part * (w[1].0 - w[0].0))
        }
        None if seen.iter().all(|(_, ratio)| *ratio >= 1.0) => "sums win everywhere".to_owned(),
        None => "dense wins everywhere".to_owned(),
    };
    println!("ratio {name}: {}; {even}", ratios.join(", "));
}

fn products(c: &mut Criterion) {
    tch::set_num_threads(threads());
    tch::manual_seed(1);
    for (name, [rows, inputs, outputs]) in LINEARS {
        let vs = nn::VarStore::new(Device::Cpu);
        let mut layer = Linear::new(vs.root(), inputs, outputs, true);
        layer.fuse();
        let sums = |x: &Tensor| layer.summed(&Spiked::new(x), None).expect("spikes");
        compare(c, name, &[rows, inputs], |x| layer.forward(x), sums);
    }
    for (name, [side, inputs, outputs]) in CONVOLUTIONS {
        let vs = nn::VarStore::new(Device::Cpu);
        let mut layer = Conv2d::new(vs.root(), inputs, outputs, ConvConfig::same(3).with_bias());
        layer.fuse();
        let last = |x: &Tensor| x.permute([0, 3, 1, 2]);
        let sums = |x: &Tensor| layer.summed(&last(x), None).expect("spikes");
        let shape = [4, side, side, inputs];
        compare(c, name, &shape, |x| layer.forward(&last(x)), sums);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = products
}
criterion_main!(benches);
