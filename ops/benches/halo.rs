//! Halo attention (blocks of 8, halo 3, 8 heads of 16, the sizes of HaloNet-26t) on maps of 56 and 128 tokens a side:
//! the kernel, libtorch's streaming attention over copied windows, and the computation that timm's `HaloAttn` makes (pad,
//! unfold, every score in memory). `ZOO_THREADS=4 cargo bench -p zoo-ops --bench halo`.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor, nn};
use zoo_ops::{HaloAttention, HaloConfig, channels_last, inference_mode};

mod common;

const CHANNELS: i64 = 128;
const CONFIG: HaloConfig = HaloConfig {
    block: 8,
    halo: 3,
    heads: 8,
    qk_dim: 16,
    v_dim: 16,
    stride: 1,
};
const WINDOW: i64 = CONFIG.block + 2 * CONFIG.halo;

struct Setup {
    store: nn::VarStore,
    attention: HaloAttention,
    x: Tensor,
}

impl Setup {
    fn new(side: i64) -> Self {
        tch::manual_seed(1);
        let mut store = nn::VarStore::new(Device::Cpu);
        let mut attention = HaloAttention::new(store.root(), CHANNELS, CONFIG);
        store.freeze();
        tch::no_grad(|| attention.fuse());
        let x = Tensor::randn([1, CHANNELS, side, side], (Kind::Float, Device::Cpu));
        Setup {
            store,
            attention,
            x: channels_last(&x),
        }
    }

    /// As timm computes it, operator by operator.
    fn official(&self) -> Tensor {
        let weights = self.store.variables();
        let HaloConfig {
            block,
            halo,
            heads,
            qk_dim,
            v_dim,
            ..
        } = CONFIG;
        let blocks = self.x.size()[2] / block;
        let project = |name: &str| self.x.conv2d(&weights[name], None::<&Tensor>, 1, 0, 1, 1);
        let q = project("q.weight")
            .reshape([-1, qk_dim, blocks, block, blocks, block])
            .permute([0, 1, 3, 5, 2, 4])
            .reshape([heads, qk_dim, -1, blocks * blocks])
            .transpose(1, 3);
        let kv = project("kv.weight")
            .constant_pad_nd([halo; 4])
            .unfold(2, WINDOW, block)
            .unfold(3, WINDOW, block)
            .reshape([heads, qk_dim + v_dim, blocks * blocks, -1])
            .permute([0, 2, 3, 1]);
        let k = kv.narrow(3, 0, qk_dim);
        let v = kv.narrow(3, qk_dim, v_dim);
        let position = self.position(
            &q,
            &weights["pos_embed.height_rel"],
            &weights["pos_embed.width_rel"],
        );
        let scores = q.matmul(&k.transpose(-1, -2)) * (qk_dim as f64).powf(-0.5) + position;
        let out = scores.softmax(-1, None::<Kind>).matmul(&v).transpose(1, 3);
        out.reshape([-1, block, block, blocks, blocks])
            .permute([0, 3, 1, 4, 2])
            .contiguous()
            .view([1, heads * v_dim, blocks * block, blocks * block])
    }

    /// Relative logits by padding and reshaping, one axis after the other.
    fn position(&self, q: &Tensor, heights: &Tensor, widths: &Tensor) -> Tensor {
        let block = CONFIG.block;
        let q = q.reshape([-1, block, block, CONFIG.qk_dim]);
        let axis = |q: &Tensor, table: &Tensor| {
            let x = q.matmul(&table.tr()).reshape([-1, block, 2 * WINDOW - 1]);
            let x = x.constant_pad_nd([0, 1]).flatten(1, 2);
            let x = x.constant_pad_nd([0, 2 * WINDOW - 1 - block]);
            let x = x.reshape([-1, block + 1, 2 * WINDOW - 1]);
            x.narrow(1, 0, block)
                .narrow(2, WINDOW - 1, WINDOW)
                .reshape([-1, block, 1, block, WINDOW])
                .expand([-1, -1, WINDOW, -1, -1], false)
        };
        let by_column = axis(&q, widths).permute([0, 1, 3, 2, 4]);
        let by_row = axis(&q.transpose(1, 2), heights).permute([0, 3, 1, 4, 2]);
        let pairs = [CONFIG.heads, -1, block * block, WINDOW * WINDOW];
        (by_column + by_row).reshape(pairs)
    }
}

fn halo(c: &mut Criterion) {
    common::set_threads();
    for side in [56, 128] {
        let setup = Setup::new(side);
        let kernel = || inference_mode(|| setup.attention.forward(&setup.x));
        let official = || inference_mode(|| setup.official());
        let apart = (kernel() - official()).abs().max().double_value(&[]);
        assert!(
            apart < 1e-4,
            "the kernel is {apart} from timm's computation"
        );
        common::print_memory(&format!("halo/kernel/{side}"), kernel);
        common::print_memory(&format!("halo/timm/{side}"), official);
        let mut group = c.benchmark_group("halo");
        group.bench_function(BenchmarkId::new("kernel", side), |b| b.iter(kernel));
        group.bench_function(BenchmarkId::new("timm", side), |b| b.iter(official));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = halo
}
criterion_main!(benches);
