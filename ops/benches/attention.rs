//! Routed attention of BiFormer-S's first stage (64 channels, 2 heads; maps of 56 and 128 tokens a side), and the memory
//! that each form takes: `ZOO_THREADS=4 cargo bench -p zoo-ops --bench attention`.
//!
//! `official` is the gather that the official code makes, element by element; `composed` gathers whole regions by number,
//! `fused` nothing.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor};
use zoo_ops::routing::{region_logits, top_regions};
use zoo_ops::{GroupedAttention, Regions, inference_mode, softmax_attention};

mod common;

const CHANNELS: i64 = 64;

/// Queries, keys and values as a projection leaves them, and the routes.
struct Setup {
    attention: GroupedAttention,
    qkv: Vec<Tensor>,
    index: Tensor,
}

impl Setup {
    fn new(side: i64, regions_per_side: i64, listed: i64, kind: Kind) -> Self {
        let map = [side, side];
        let regions = Regions::of_count(map, [regions_per_side; 2]);
        let qkv = Tensor::randn([1, side, side, 3 * CHANNELS], (Kind::Float, Device::Cpu));
        let qkv = qkv.to_kind(kind).chunk(3, -1);
        let logits = region_logits(&regions.mean(&qkv[0]), &regions.mean(&qkv[1]));
        Setup {
            attention: GroupedAttention {
                regions,
                heads: CHANNELS / 32,
                scale: 0.125,
                fused: false,
            },
            qkv,
            index: top_regions(&logits, listed),
        }
    }

    fn attend(&self, fused: bool) -> Tensor {
        let attention = GroupedAttention {
            fused,
            ..self.attention
        };
        let [q, k, v] = [0, 1, 2].map(|i| &self.qkv[i]);
        attention.forward(q, k, v, Some(&self.index))
    }

    /// `KVGather` of the official code: an index expanded to every element.
    fn official(&self) -> Tensor {
        let regions = self.attention.regions;
        let kv = regions.partition(&Tensor::cat(&self.qkv[1..], -1));
        let (count, tokens, width) = (regions.len(), regions.tokens(), 2 * CHANNELS);
        let listed = self.index.size()[2];
        let index = self.index.reshape([-1, count, listed, 1, 1]);
        let gathered = kv
            .unsqueeze(1)
            .expand([-1, count, -1, -1, -1], false)
            .gather(2, &index.expand([-1, -1, -1, tokens, width], false), false)
            .flatten(2, 3);
        let heads = |x: &Tensor| {
            let x = x.unflatten(-1, [self.attention.heads, -1]);
            x.transpose(2, 3).contiguous()
        };
        let kv = gathered.chunk(2, -1);
        let q = heads(&regions.partition(&self.qkv[0]));
        let out = softmax_attention(
            &q,
            &heads(&kv[0]),
            &heads(&kv[1]),
            self.attention.scale,
            None,
        );
        regions.merge(&out.transpose(2, 3).flatten(3, 4))
    }
}

fn routed(c: &mut Criterion) {
    common::set_threads();
    for (side, regions, listed) in [(56, 7, 1), (56, 7, 4), (128, 8, 1), (128, 8, 4)] {
        for kind in [Kind::Float, Kind::BFloat16] {
            let setup = Setup::new(side, regions, listed, kind);
            let name = format!("routed-{side}-top{listed}-{kind:?}");
            let mut group = c.benchmark_group(&name);
            group.sample_size(20);
            let mut bench = |form: &str, f: &dyn Fn() -> Tensor| {
                common::print_memory(&format!("{name}/{form}"), || inference_mode(f));
                group.bench_function(BenchmarkId::from_parameter(form), |b| {
                    b.iter(|| inference_mode(f))
                });
            };
            bench("official", &|| setup.official());
            bench("composed", &|| setup.attend(false));
            bench("fused", &|| setup.attend(true));
            group.finish();
        }
    }
}

criterion_group!(benches, routed);
criterion_main!(benches);
