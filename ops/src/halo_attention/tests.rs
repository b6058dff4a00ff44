use super::*;
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

/// The definition, one query at a time.
fn naive(store: &nn::VarStore, x: &Tensor, config: HaloConfig) -> Tensor {
    let HaloConfig {
        block,
        halo,
        heads,
        qk_dim,
        v_dim,
        stride,
    } = config;
    let vars = store.variables();
    let project = |name: &str| x.conv2d(&vars[name], None::<&Tensor>, 1, 0, 1, 1);
    let (q, kv) = (project("q.weight"), project("kv.weight"));
    let (heights, widths) = (&vars["pos_embed.height_rel"], &vars["pos_embed.width_rel"]);
    let (height, width) = (x.size()[2], x.size()[3]);
    let step = config.query_stride();
    let out = Tensor::zeros(
        [x.size()[0], heads * v_dim, height / step, width / step],
        (Kind::Double, Device::Cpu),
    );
    let window = block + 2 * halo;
    for (b, head) in (0..x.size()[0]).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        let q = q.get(b).narrow(0, head * qk_dim, qk_dim);
        let kv = kv.get(b).narrow(0, head * (qk_dim + v_dim), qk_dim + v_dim);
        for (y, x) in (0..height / step).flat_map(|y| (0..width / step).map(move |x| (y, x))) {
            let query = q.select(1, y * step).select(1, x * step);
            let side = block / step;
            let (bi, bj, r, c) = (y / side, x / side, y % side, x % side);
            let (mut logits, mut values) = (Vec::new(), Vec::new());
            for (i, j) in (0..window).flat_map(|i| (0..window).map(move |j| (i, j))) {
                let (row, column) = (bi * block - halo + i, bj * block - halo + j);
                let inside = (0..height).contains(&row) && (0..width).contains(&column);
                let pixel = match inside {
                    true => kv.select(1, row).select(1, column),
                    false => kv.select(1, 0).select(1, 0).zeros_like(),
                };
                let content = query.dot(&pixel.narrow(0, 0, qk_dim)) * (qk_dim as f64).powf(-0.5);
                let position = heights.get(i - r + window - 1) + widths.get(j - c + window - 1);
                logits.push(content + query.dot(&position));
                values.push(pixel.narrow(0, qk_dim, v_dim));
            }
            let attn = Tensor::stack(&logits, 0).softmax(0, None::<Kind>);
            let value = attn
                .unsqueeze(0)
                .matmul(&Tensor::stack(&values, 0))
                .squeeze();
            let mut place = out
                .get(b)
                .narrow(0, head * v_dim, v_dim)
                .select(1, y)
                .select(1, x);
            place.copy_(&value);
        }
    }
    match config.pooled() {
        true => out.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
        false => out,
    }
    .view_as(&Tensor::zeros(
        [x.size()[0], heads * v_dim, height / stride, width / stride],
        (Kind::Double, Device::Cpu),
    ))
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
            let (store, mut attention) = filled(config, 6);
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
