//! Whole spiking networks in both orders of time: `cargo bench -p zoo-backbones --bench step`.
//!
//! Weights are random, with gains that make neurons fire at the rates that are printed; `plain` is the form that was
//! trained, without folded norms and kernels. `ZOO_THREADS` is the number of threads (1).

use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;
use tch::{Device, Kind, Tensor, nn};
use zoo_backbones::{Backbone, BuildOptions, SpikingOptions, TimeForm, Variant};
use zoo_ops::{channels_last, inference_mode, work};

/// Names, and batches.
const MODELS: [(&str, &[i64]); 3] = [
    ("step-spikformer-cifar", &[1, 8, 32]),
    ("step-sdt-cifar", &[1, 32]),
    ("step-spikformer-imagenet", &[1, 8]),
];

fn threads() -> i32 {
    let set = std::env::var("ZOO_THREADS").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn build(variant: &Variant, time: TimeForm, fuse: bool) -> Box<dyn Backbone> {
    tch::manual_seed(1);
    let options = BuildOptions {
        spiking: SpikingOptions {
            time,
            ..SpikingOptions::default()
        },
        ..variant.build_options()
    };
    let mut vs = nn::VarStore::new(Device::Cpu);
    let mut model = (variant.build)(&vs.root(), &options);
    tch::no_grad(|| {
        for (_, mut t) in vs.variables() {
            if t.dim() > 1 {
                let fan_in = t.numel() as f64 / t.size()[0] as f64;
                let _ = t.normal_(0.0, 2.5 * fan_in.powf(-0.5));
            }
        }
        if fuse {
            model.fuse();
        }
    });
    vs.freeze();
    model
}

/// The mean firing rate of all neurons, in percent.
fn rate(model: &dyn Backbone, x: &Tensor) -> f64 {
    let (_, work) = work::record(|| inference_mode(|| model.logits(x)));
    let all: u64 = work.neurons.iter().map(|n| n.elements).sum();
    let fired: f64 = work
        .neurons
        .iter()
        .map(|n| n.rate * n.elements as f64)
        .sum();
    100.0 * fired / all as f64
}

fn networks(c: &mut Criterion) {
    tch::set_num_threads(threads());
    for (name, batches) in MODELS {
        let variant = zoo_backbones::find(name).expect("a variant of the zoo");
        for &batch in batches {
            let (height, width) = variant.preprocessing.size;
            let shape = [batch, 3, height as i64, width as i64];
            let x = channels_last(&Tensor::randn(shape, (Kind::Float, Device::Cpu)));
            let mut group =
                c.benchmark_group(format!("{name}/batch {batch}/{} threads", threads()));
            for (form, time, fuse) in [
                ("plain", TimeForm::Folded, false),
                ("folded", TimeForm::Folded, true),
                ("stepwise", TimeForm::Stepwise, true),
            ] {
                let model = build(variant, time, fuse);
                if form == "folded" {
                    println!("{name}: firing rate {:.1} %", rate(model.as_ref(), &x));
                }
                group.bench_function(form, |b| b.iter(|| inference_mode(|| model.logits(&x))));
            }
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = networks
}
criterion_main!(benches);
