use super::*;
use proptest::prelude::*;
use tch::Device;

fn filled(config: HaloConfig, channels: i64) -> (nn::VarStore, HaloAttention) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let attention = HaloAttention::new(store.root(), channels, config);
    store.double();
    tch::no_grad(|| {
        for t in store.variables().values_mut() {
            let _ = t.normal_(0.0, 0.6);
        }
    });
    (store, attention)
}

/// A tensor's values, row-major, with its shape.
struct Values(Vec<f64>, Vec<i64>);

impl Values {
    fn of(t: &Tensor) -> Self {
        let flat = t.contiguous().flatten(0, -1);
        Values(Vec::try_from(flat).unwrap(), t.size())
    }

    fn at(&self, index: &[i64]) -> f64 {
        let place = index
            .iter()
            .zip(&self.1)
            .fold(0, |n, (i, size)| n * size + i);
        self.0[place as usize]
    }
}

/// The definition, one query at a time.
fn naive(store: &nn::VarStore, x: &Tensor, config: HaloConfig) -> Tensor {
    let HaloConfig {
        block,
        halo,
        heads,
        qk_dim,
        v_dim,
        ..
    } = config;
    let vars = store.variables();
    let project = |name: &str| Values::of(&x.conv2d(&vars[name], None::<&Tensor>, 1, 0, 1, 1));
    let (q, kv) = (project("q.weight"), project("kv.weight"));
    let table = |name: &str| Values::of(&vars[name]);
    let (heights, widths) = (table("pos_embed.height_rel"), table("pos_embed.width_rel"));
    let (height, width, step) = (x.size()[2], x.size()[3], config.query_stride());
    let (window, side) = (block + 2 * halo, block / step);
    let mut out = Vec::new();
    let positions = |n: i64, m: i64| (0..n).flat_map(move |i| (0..m).map(move |j| (i, j)));
    for (b, head) in positions(x.size()[0], heads) {
        let mut planes = vec![Vec::new(); v_dim as usize];
        for (y, x) in positions(height / step, width / step) {
            let query = |d: i64| q.at(&[b, head * qk_dim + d, y * step, x * step]);
            let mut sums = vec![0.0; v_dim as usize];
            let mut total = 0.0;
            for (i, j) in positions(window, window) {
                let (row, column) = (y / side * block - halo + i, x / side * block - halo + j);
                let inside = (0..height).contains(&row) && (0..width).contains(&column);
                let pixel = |d: i64| match inside {
                    true => kv.at(&[b, head * (qk_dim + v_dim) + d, row, column]),
                    false => 0.0,
                };
                let logit: f64 = (0..qk_dim)
                    .map(|d| {
                        let key = pixel(d) * (qk_dim as f64).powf(-0.5);
                        let height = heights.at(&[i - y % side + window - 1, d]);
                        query(d) * (key + height + widths.at(&[j - x % side + window - 1, d]))
                    })
                    .sum();
                total += logit.exp();
                for (d, sum) in sums.iter_mut().enumerate() {
                    *sum += logit.exp() * pixel(qk_dim + d as i64);
                }
            }
            for (plane, sum) in planes.iter_mut().zip(sums) {
                plane.push(sum / total);
            }
        }
        out.extend(planes.concat());
    }
    let out = Tensor::from_slice(&out).reshape([-1, heads * v_dim, height / step, width / step]);
    match config.pooled() {
        true => out.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
        false => out,
    }
}

#[test]
fn every_form_is_the_definition_on_every_grid() {
    let _no_grad = tch::no_grad_guard();
    let base = HaloConfig {
        block: 4,
        halo: 1,
        heads: 2,
        qk_dim: 3,
        v_dim: 5,
        stride: 1,
    };
    let configs = [
        base,
        HaloConfig {
            stride: 2,
            halo: 2,
            ..base
        },
        HaloConfig { halo: 0, ..base },
        HaloConfig {
            block: 3,
            halo: 2,
            ..base
        },
        HaloConfig {
            block: 2,
            halo: 3,
            ..base
        },
        HaloConfig {
            block: 3,
            stride: 2,
            halo: 1,
            ..base
        },
    ];
    for config in configs {
        let grids: &[_] = match config.pooled() {
            true => &[(2, 2), (2, 4)],
            false => &[(1, 1), (1, 2), (2, 2), (3, 1), (2, 3)],
        };
        for &(nh, nw) in grids {
            let (mut store, mut attention) = filled(config, 6);
            let size = [2, 6, nh * config.block, nw * config.block];
            let x = Tensor::randn(size, (Kind::Double, Device::Cpu));
            let expected = naive(&store, &x, config);
            let check = |y: &Tensor, form: &str| {
                let error = (y - &expected).abs().max().double_value(&[]);
                assert!(error < 1e-12, "{form} {config:?} {nh}x{nw}: {error:e}");
            };
            check(&attention.forward(&x), "composed");
            attention.fuse();
            check(&attention.forward(&x), "fused");
            let (recorded, _) = taps::record(|| attention.forward(&x));
            check(&recorded, "fused, recording");
            store.float();
            let single = attention.forward(&x.to_kind(Kind::Float));
            let error = (single.to_kind(Kind::Double) - &expected).abs().max();
            let scale = expected.abs().max();
            let error = (error / scale).double_value(&[]);
            assert!(error < 1e-5, "kernel {config:?} {nh}x{nw}: {error:e}");
        }
    }
}

#[test]
fn a_scale_of_the_output_goes_into_the_values() {
    let _no_grad = tch::no_grad_guard();
    let config = HaloConfig {
        block: 4,
        halo: 1,
        heads: 2,
        qk_dim: 3,
        v_dim: 5,
        stride: 1,
    };
    let (_store, mut attention) = filled(config, 6);
    let x = Tensor::randn([1, 6, 8, 4], (Kind::Double, Device::Cpu));
    let scale = Tensor::randn([10], (Kind::Double, Device::Cpu));
    let expected = attention.forward(&x) * scale.reshape([1, -1, 1, 1]);
    attention.fold_output_scale(&scale);
    attention.fuse();
    let error = (attention.forward(&x) - expected).abs().max();
    assert!(error.double_value(&[]) < 1e-12);
}

/// The greatest difference, relative to the greatest value.
fn apart(y: &Tensor, expected: &Tensor) -> f64 {
    let error = (y.to_kind(Kind::Double) - expected).abs().max();
    (error / expected.abs().max()).double_value(&[])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_kernel_is_the_composed_form(
        block in 1i64..6, halo in 0i64..4, heads in 1i64..4, qk_dim in 1i64..20, v_dim in 1i64..20,
        batch in 1i64..3, rows in 1i64..5, columns in 1i64..5, strided: bool,
    ) {
        let _no_grad = tch::no_grad_guard();
        tch::manual_seed(block * 100 + halo * 10 + heads);
        let config = HaloConfig { block, halo, heads, qk_dim, v_dim, stride: 1 + i64::from(strided) };
        // Averaging 2 x 2 needs even sides.
        let [rows, columns] = [rows, columns].map(|n| if config.pooled() { 2 * n } else { n });
        let (mut store, mut attention) = filled(config, 6);
        let x = Tensor::randn([batch, 6, rows * block, columns * block], (Kind::Double, Device::Cpu));
        let expected = attention.forward(&x);
        attention.fuse();
        store.float();
        let kernel = attention.forward(&x.to_kind(Kind::Float));
        prop_assert!(apart(&kernel, &expected) < 1e-5, "f32: {:e}", apart(&kernel, &expected));
        let channels_last = crate::channels_last(&x.to_kind(Kind::Float));
        prop_assert!(attention.forward(&channels_last).allclose(&kernel, 1e-5, 1e-5, false));
    }
}

#[test]
fn the_kernel_takes_bf16() {
    let _no_grad = tch::no_grad_guard();
    tch::manual_seed(6);
    let config = HaloConfig {
        block: 4,
        halo: 1,
        heads: 2,
        qk_dim: 8,
        v_dim: 8,
        stride: 1,
    };
    let (mut store, mut attention) = filled(config, 6);
    store.bfloat16();
    let x = Tensor::randn([2, 6, 12, 16], (Kind::BFloat16, Device::Cpu));
    attention.fuse();
    let kernel = attention.forward(&x);
    assert_eq!(kernel.kind(), Kind::BFloat16);
    store.double();
    let exact = attention.forward(&x.to_kind(Kind::Double));
    // Projections, position logits and the result are rounded to 8 bits of mantissa.
    let error = apart(&kernel, &exact);
    assert!(error < 0.05, "{error}");
}

#[test]
fn the_kernel_reports_what_it_multiplies_once() {
    let _no_grad = tch::no_grad_guard();
    let config = HaloConfig {
        block: 4,
        halo: 1,
        heads: 2,
        qk_dim: 3,
        v_dim: 5,
        stride: 1,
    };
    let (mut store, mut attention) = filled(config, 6);
    attention.fuse();
    store.float();
    let x = Tensor::randn([2, 6, 12, 12], (Kind::Float, Device::Cpu));
    let (_, done) = work::record(|| attention.forward(&x));
    let of = |op, macs: fn(&work::Contraction) -> u64| -> u64 {
        let those = done.contractions.iter().filter(|c| c.op == op);
        those.map(macs).sum()
    };
    // 2 images of 144 queries, 2 heads: 36 keys, and 6 rows and 6 columns of the window. Three windows have 5 + 6 + 5 lines
    // inside of the map, and whole tables of 11 are multiplied.
    let queries = 2 * 144;
    let inside = 2 * 2 * 16 * 16 * 16;
    assert_eq!(
        of(work::Op::MatMul, |c| c.macs),
        inside * (3 + 5) + queries * 2 * 22 * 3
    );
    assert_eq!(
        of(work::Op::MatMul, |c| c.dense),
        queries * 2 * (36 * (3 + 5) + 12 * 3)
    );
    let projections = of(work::Op::Convolution, |c| c.macs);
    assert_eq!(projections, queries * 6 * 2 * (3 + 3 + 5));
}
