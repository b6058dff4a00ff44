//! Connectivity-masked attention against dense attention at the size of one layer of DeiT-S (N = 197, 6 heads of 64),
//! `ZOO_THREADS=1 cargo bench -p zoo-ops --bench connectivity`.
//!
//! `dense` is libtorch's streaming scaled-dot-product attention. `masked` is the composed form, predictor included, as
//! it runs after `fuse()` without the kernel; `kernel` is the fused form, predictor included.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor, nn};
use zoo_ops::connectivity::{ConnectivityConfig, ConnectivityPredictor, Keep};
use zoo_ops::inference_mode;

mod common;

const TOKENS: i64 = 197;
const SCALE: f64 = 0.125;

/// A predictor with smooth coefficients, as goldens' formula weights give.
fn predictor(connections: Keep) -> ConnectivityPredictor {
    tch::manual_seed(1);
    let vs = nn::VarStore::new(Device::Cpu);
    let config = ConnectivityConfig {
        tokens: TOKENS,
        reduced_tokens: 32,
        heads: 6,
        head_width: 64,
        reduced_width: 32,
        coefficients: Keep::Largest(8),
        basis_above: 0.02,
        connections,
    };
    let mut predictor = ConnectivityPredictor::new(&vs.root(), config);
    tch::no_grad(|| {
        for t in vs.variables().values_mut() {
            let fan_in = t.numel() as f64 / t.size()[0] as f64;
            drop(t.normal_(0.0, 0.5 * fan_in.powf(-0.5)));
        }
    });
    predictor.fuse();
    predictor
}

/// Queries, keys and values as a joint projection leaves them: views of [B, N, 3, H, D].
fn heads(batch: i64, kind: Kind) -> [Tensor; 3] {
    let joint = Tensor::randn([batch, TOKENS, 3, 6, 64], (Kind::Float, Device::Cpu)).to_kind(kind);
    [0, 1, 2].map(|i| joint.select(2, i).transpose(1, 2))
}

fn layer(c: &mut Criterion) {
    common::set_threads();
    for kind in [Kind::Float, Kind::BFloat16] {
        for batch in [1, 8] {
            let mut group = c.benchmark_group(format!("{kind:?}/batch {batch}"));
            let [q, k, v] = heads(batch, kind);
            group.bench_function("dense", |b| {
                b.iter(|| inference_mode(|| common::streaming(&q, &k, &v, SCALE)));
            });
            for kept in [20, 50, 99] {
                let predictor = predictor(Keep::Largest(kept));
                group.bench_function(BenchmarkId::new("kernel", kept), |b| {
                    b.iter(|| {
                        inference_mode(|| predictor.attend([&q, &k, &v], None, SCALE))
                            .expect("the kernel applies")
                    });
                });
                group.bench_function(BenchmarkId::new("masked", kept), |b| {
                    b.iter(|| {
                        inference_mode(|| {
                            let patches = q.slice(2, 1, None, 1);
                            let found = predictor.predict(&patches, &k, None);
                            found.attend(&patches, &k, &v, SCALE, true)
                        })
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = layer
}
criterion_main!(benches);
