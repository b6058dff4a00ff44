//! Mixture-of-head attention against the share of (token, head) pairs that are on:
//! `ZOO_THREADS=1 cargo bench -p zoo-ops --bench gated`.
//!
//! `vit`: a layer of MoH-DeiT-B, 197 tokens, 12 heads of 64; `dense` is libtorch's streaming attention and a product with
//! the gates. `transnext`: a layer of stage 3 of MoH-TransNeXt-S, a map of 14 x 14, 12 heads of 24, 49 pooled tokens;
//! `dense` is the composed form, `stage-1` the same for stage 1, 56 x 56 and 3 heads. The dense forms' time does not depend on the gates.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor};
use zoo_ops::{
    AggregatedAttention, AggregatedTerms, AggregatedTokens, gate_heads, gated_attention,
    inference_mode,
};

mod common;

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
const SHARES: [i64; 4] = [100, 75, 50, 25];

/// Gates [B, N, heads] of which `percent` of each token's are on.
fn gates(batch: i64, tokens: i64, heads: i64, percent: i64) -> Tensor {
    let on = (heads * percent + 50) / 100;
    let (_, index) = Tensor::rand([batch, tokens, heads], F32).topk(on, -1, true, false);
    let values = Tensor::rand([batch, tokens, on], F32) + 0.5;
    Tensor::zeros([batch, tokens, heads], F32).scatter(-1, &index, &values)
}

/// `parts` tensors [B, heads, N, width], slices of one projection.
fn heads(batch: i64, tokens: i64, parts: i64, heads: i64, width: i64) -> Vec<Tensor> {
    let joint = Tensor::randn([batch, tokens, parts, heads, width], F32);
    (0..parts)
        .map(|i| joint.select(2, i).transpose(1, 2))
        .collect()
}

fn vit(c: &mut Criterion) {
    common::set_threads();
    tch::manual_seed(1);
    for batch in [1, 8] {
        let mut group = c.benchmark_group(format!("vit/batch {batch}"));
        let qkv = heads(batch, 197, 3, 12, 64);
        let [q, k, v] = [&qkv[0], &qkv[1], &qkv[2]];
        let all = gates(batch, 197, 12, 100);
        group.bench_function("dense", |b| {
            b.iter(|| inference_mode(|| gate_heads(&common::streaming(q, k, v, 0.125), &all)));
        });
        for share in SHARES {
            let gates = gates(batch, 197, 12, share);
            group.bench_function(BenchmarkId::new("kernel", share), |b| {
                b.iter(|| {
                    inference_mode(|| gated_attention([q, k, v], &gates, 0.125, None))
                        .expect("the kernel applies")
                });
            });
        }
        group.finish();
    }
}

/// A layer on a map of `side` x `side` tokens.
fn aggregated(c: &mut Criterion, name: &str, batch: i64, side: i64, count: i64) {
    let (tokens, pooled, width) = (side * side, 49, 24);
    let attention = AggregatedAttention::new(3);
    let own = heads(batch, tokens, 3, count, width);
    let far = heads(batch, pooled, 2, count, width);
    let map = [side, side];
    let outside = attention.inside(map, Device::Cpu).logical_not();
    let local_bias =
        Tensor::zeros([count, side, side, 9], F32).masked_fill(&outside, f64::NEG_INFINITY);
    let pooled_bias = Tensor::randn([count, pooled, tokens], F32).transpose(1, 2);
    let tokens_of = AggregatedTokens {
        own: [&own[0], &own[1], &own[2]],
        pooled: [&far[0], &far[1]],
        map,
    };
    let learnt = [[count, 1, width], [count, width, 9], [count, 1, 9]];
    let [embedding, local_tokens, local_offset] = learnt.map(|s| Tensor::randn(s, F32) * 0.1);
    let terms = AggregatedTerms {
        embedding: &embedding,
        sharpness: &(Tensor::rand([count, tokens, 1], F32) * 4.0),
        local_bias: &local_bias,
        pooled_bias: &pooled_bias,
        local_tokens: &local_tokens,
        local_offset: &local_offset,
    };
    let mut group = c.benchmark_group(format!("{name}/batch {batch}"));
    let all = gates(batch, tokens, count, 100);
    let dense =
        || inference_mode(|| gate_heads(&attention.forward(&tokens_of, &terms).heads, &all));
    common::print_memory(&format!("{name}/dense"), dense);
    group.bench_function("dense", |b| b.iter(dense));
    for share in SHARES {
        let gates = gates(batch, tokens, count, share);
        let kernel = || {
            inference_mode(|| attention.forward_gated(&tokens_of, &terms, &gates))
                .expect("the kernel applies")
        };
        if share == 100 {
            common::print_memory(&format!("{name}/kernel"), kernel);
        }
        group.bench_function(BenchmarkId::new("kernel", share), |b| b.iter(kernel));
    }
    group.finish();
}

fn transnext(c: &mut Criterion) {
    common::set_threads();
    tch::manual_seed(2);
    for batch in [1, 8] {
        aggregated(c, "transnext", batch, 14, 12);
    }
    aggregated(c, "transnext/stage-1", 1, 56, 3);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = vit, transnext
}
criterion_main!(benches);
