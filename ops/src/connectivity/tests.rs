use super::*;
use tch::Device;

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
const CONFIG: ConnectivityConfig = ConnectivityConfig {
    tokens: 13,
    reduced_tokens: 4,
    heads: 3,
    head_width: 6,
    reduced_width: 5,
    coefficients: Keep::Largest(2),
    basis_above: 0.2,
    connections: Keep::Largest(5),
};

fn predictor(config: ConnectivityConfig) -> (nn::VarStore, ConnectivityPredictor) {
    tch::manual_seed(11);
    let mut vs = nn::VarStore::new(Device::Cpu);
    let predictor = ConnectivityPredictor::new(&vs.root(), config);
    vs.double();
    fill(&vs, |t| drop(t.normal_(0.0, 0.6)));
    (vs, predictor)
}

/// Fills the weights in the order of their names.
fn fill(vs: &nn::VarStore, with: impl Fn(&mut Tensor)) {
    let mut variables: Vec<_> = vs.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    tch::no_grad(|| variables.iter_mut().for_each(|(_, t)| with(t)));
}

fn tokens(count: i64) -> Tensor {
    Tensor::randn([2, 3, count, 6], F64)
}

fn rows(t: &Tensor) -> Vec<Vec<f64>> {
    let width = t.size().last().copied().unwrap_or(1);
    Vec::<Vec<f64>>::try_from(t.to_kind(Kind::Double).reshape([-1, width])).expect("a matrix")
}

fn error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn kept_entries_are_the_largest_or_those_above() {
    tch::manual_seed(5);
    let x = Tensor::randn([4, 9], F64);
    for (kept, mask, row) in kept_rows(&Keep::Largest(3), &x) {
        let mut sorted = row.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for ((k, m), v) in kept.iter().zip(mask).zip(row) {
            let stays = v >= sorted[2];
            assert_eq!(m == 1.0, stays);
            assert_eq!(*k, if stays { v } else { 0.0 });
        }
    }
    for (kept, mask, row) in kept_rows(&Keep::Above(0.4), &x) {
        for ((k, m), v) in kept.iter().zip(mask).zip(row) {
            assert_eq!(m == 1.0, v > 0.4);
            assert_eq!(*k, if v > 0.4 { v } else { 0.0 });
        }
    }
    assert!(Keep::Largest(9).apply(&x).equal(&x));
    assert_eq!(
        Keep::Largest(20).mask(&x).sum(Kind::Int64).int64_value(&[]),
        36
    );
}

fn kept_rows(keep: &Keep, x: &Tensor) -> Vec<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    let (kept, mask) = (rows(&keep.apply(x)), rows(&keep.mask(x)));
    kept.into_iter()
        .zip(mask)
        .zip(rows(x))
        .map(|((k, m), r)| (k, m, r))
        .collect()
}

#[test]
fn the_folded_predictor_equals_the_composed_one() {
    for coefficients in [Keep::Largest(2), Keep::Above(0.2)] {
        let (_vs, mut predictor) = predictor(ConnectivityConfig {
            coefficients,
            ..CONFIG
        });
        let (q, k) = (tokens(12), tokens(13));
        let composed = predictor.predict(&q, &k, None);
        predictor.fuse();
        let folded = predictor.predict(&q, &k, None);
        assert!(error(&composed.coefficients, &folded.coefficients) < 1e-12);
        assert!(error(&composed.scores, &folded.scores) < 1e-12);
        assert!(composed.mask.equal(&folded.mask));
    }
}

/// Pruned tokens as the official code has them: zero after the channel projection, never selected.
#[test]
fn live_tokens_alone_equal_zeroed_tokens_among_all() {
    let (_vs, mut predictor) = predictor(ConnectivityConfig {
        connections: Keep::Largest(9),
        ..CONFIG
    });
    let live = Tensor::from_slice2(&[[0i64, 2, 3, 7, 11, 12], [0, 9, 1, 4, 5, 8]]);
    let (q, k) = (tokens(5), tokens(6));
    let scale = (3f64).powf(-0.5);
    let budget = Keep::Largest(5);
    for fused in [false, true] {
        if fused {
            predictor.fuse();
        }
        let ours = predictor.predict(&q, &k, Some(&live));
        for b in 0..2 {
            let position = live.get(b);
            let kc = predictor.proj_c_k.forward(&k.get(b));
            let all = Tensor::zeros([3, 13, 5], F64).index_add(1, &position, &kc);
            let cheap = predictor
                .proj_c_q
                .forward(&q.get(b))
                .matmul(&all.transpose(1, 2).matmul(&predictor.proj_n))
                * scale;
            let coefficients = Keep::Largest(2).apply(&cheap.softmax(-1, None::<Kind>));
            let scores = coefficients.matmul(&sparse_basis(&predictor.proj_back_n, 0.2));
            let scores = scores.index_select(2, &position);
            assert!(error(&scores, &ours.scores.get(b)) < 1e-12);
            assert!(budget.mask(&scores).equal(&ours.mask.get(b)));
        }
    }
}

#[test]
fn weights_are_a_softmax_over_connected_keys_and_zero_where_there_are_none() {
    let (_vs, predictor) = predictor(ConnectivityConfig {
        connections: Keep::Above(0.9),
        ..CONFIG
    });
    let (q, k, v) = (tokens(12), tokens(13), tokens(13));
    let found = predictor.predict(&q, &k, None);
    let weights = found.weights(&q, &k, 0.4);
    let scores = (q.matmul(&k.transpose(2, 3)) * 0.4).exp();
    let mut empty = 0;
    for ((w, s), m) in rows(&weights)
        .iter()
        .zip(rows(&scores))
        .zip(rows(&found.mask))
    {
        let total: f64 = s.iter().zip(&m).map(|(s, m)| s * m).sum();
        empty += usize::from(total == 0.0);
        for ((w, s), m) in w.iter().zip(&s).zip(&m) {
            let expected = if total == 0.0 { 0.0 } else { s * m / total };
            assert!((w - expected).abs() < 1e-12);
        }
    }
    assert!(
        empty > 0,
        "no row without a connection: the test tests nothing"
    );
    assert!(error(&found.attend(&q, &k, &v, 0.4, true), &weights.matmul(&v)) < 1e-12);
}

#[test]
fn the_streaming_form_equals_the_composed_one() {
    let (_vs, predictor) = predictor(CONFIG);
    let (q, k, v) = (tokens(12), tokens(13), tokens(13));
    let found = predictor.predict(&q, &k, None);
    let [q, k, v] = [q, k, v].map(|t| t.to_kind(Kind::Float));
    let composed = found.attend(&q, &k, &v, 0.4, false);
    assert!(error(&composed, &found.attend(&q, &k, &v, 0.4, true)) < 1e-5);
}

/// A predictor at the sizes of Sparsifiner-T, its tokens' queries, keys and values, and which tokens are live.
fn published(config: ConnectivityConfig, live: Option<i64>) -> Published {
    let (vs, mut predictor) = predictor(config);
    let moderate = |t: &mut Tensor| {
        let fan_in = t.numel() as f64 / t.size()[0] as f64;
        drop(t.normal_(0.0, 0.5 * fan_in.powf(-0.5)));
    };
    fill(&vs, moderate);
    let tokens = live.map_or(config.tokens, |count| 1 + count);
    let shape = [2, config.heads, tokens, config.head_width];
    let qkv = [(); 3].map(|()| Tensor::randn(shape, (Kind::Float, Device::Cpu)));
    let live = live.map(|count| {
        let patches = [(); 2].map(|()| {
            let order = Tensor::randperm(config.tokens - 1, (Kind::Int64, Device::Cpu));
            let class = Tensor::zeros([1], (Kind::Int64, Device::Cpu));
            Tensor::cat(&[class, order.narrow(0, 0, count) + 1], 0)
        });
        Tensor::stack(&patches, 0)
    });
    predictor.fuse();
    Published {
        _vs: vs,
        predictor,
        qkv,
        live,
    }
}

struct Published {
    _vs: nn::VarStore,
    predictor: ConnectivityPredictor,
    qkv: [Tensor; 3],
    live: Option<Tensor>,
}

impl Published {
    /// The composed form in float64, [B, 1 + L, H * D], and which rows' choices are clear of rounding, [B, 1 + L, 1].
    fn composed(&self, scale: f64) -> (Tensor, Tensor) {
        let config = &self.predictor.config;
        let [q, k, v] = self.qkv.each_ref().map(|t| t.to_kind(Kind::Double));
        let patches = q.slice(2, 1, None, 1);
        let found = self.predictor.predict(&patches, &k, self.live.as_ref());
        let connected = found.mask.to_kind(Kind::Double).mean(Kind::Double);
        assert!(
            connected.double_value(&[]) > 0.02,
            "hardly anything is connected"
        );
        let absent = (config.tokens - q.size()[2]) as f64;
        let class = (q.narrow(2, 0, 1) * scale).matmul(&k.transpose(2, 3)).exp();
        let class = &class / (class.sum_dim_intlist(-1, true, None::<Kind>) + absent);
        let mixed = [
            class.matmul(&v),
            found.weights(&patches, &k, scale).matmul(&v),
        ];
        let low_rank = self
            .predictor
            .low_rank_scores(&patches, &k, self.live.as_ref());
        let clear = clear_of_rounding(config.coefficients, &low_rank.softmax(-1, None::<Kind>))
            .logical_and(&clear_of_rounding(
                match self.live {
                    None => config.connections,
                    Some(_) => config.connections.at_most(patches.size()[2]),
                },
                &found.scores,
            ))
            .all_dim(1, false);
        let clear = Tensor::cat(&[clear.narrow(1, 0, 1).ones_like(), clear], 1);
        (
            crate::merge_heads(&Tensor::cat(&mixed, 2)),
            clear.unsqueeze(2),
        )
    }
}

/// Rows of `x` whose border entries differ by more than rounding in f32 could, Bool.
fn clear_of_rounding(keep: Keep, x: &Tensor) -> Tensor {
    let rounding = 2e-6 * x.max().double_value(&[]);
    match keep {
        Keep::Above(threshold) => (x - threshold)
            .abs()
            .amin([-1i64].as_slice(), false)
            .gt(rounding),
        Keep::Largest(_) if keep.keeps_all(x) => {
            x.narrow(-1, 0, 1).squeeze_dim(-1).ones_like().gt(0.0)
        }
        Keep::Largest(count) => {
            let best = x.topk(count + 1, -1, true, true).0;
            (best.select(-1, count - 1) - best.select(-1, count)).gt(rounding)
        }
    }
}

const SPARSIFINER: ConnectivityConfig = ConnectivityConfig {
    tokens: 197,
    reduced_tokens: 32,
    heads: 3,
    head_width: 64,
    reduced_width: 32,
    coefficients: Keep::Largest(8),
    basis_above: 0.02,
    connections: Keep::Largest(50),
};

#[test]
fn the_kernel_equals_the_composed_form() {
    let thresholds = ConnectivityConfig {
        coefficients: Keep::Above(0.05),
        connections: Keep::Above(0.01),
        ..SPARSIFINER
    };
    let narrow = ConnectivityConfig {
        tokens: 50,
        reduced_tokens: 20,
        head_width: 32,
        connections: Keep::Largest(7),
        ..SPARSIFINER
    };
    let everything = ConnectivityConfig {
        coefficients: Keep::Largest(32),
        connections: Keep::Largest(197),
        ..SPARSIFINER
    };
    let cases = [
        (SPARSIFINER, None),
        (SPARSIFINER, Some(97)),
        (SPARSIFINER, Some(25)),
        (thresholds, None),
        (thresholds, Some(68)),
        (narrow, None),
        (everything, None),
    ];
    for (config, live) in cases {
        for (threads, narrow, plain) in [
            (1, false, false),
            (3, false, false),
            (1, true, false),
            (1, false, true),
        ] {
            tch::set_num_threads(threads);
            crate::simd::NARROW.set(narrow);
            crate::simd::PLAIN.set(plain);
            let case = published(config, live);
            let [q, k, v] = &case.qkv;
            let scale = 0.125;
            let ours = case.predictor.attend([q, k, v], case.live.as_ref(), scale);
            let ours = ours.expect("the kernel applies").to_kind(Kind::Double);
            let (expected, clear) = case.composed(scale);
            let share = clear
                .to_kind(Kind::Double)
                .mean(Kind::Double)
                .double_value(&[]);
            assert!(
                share > 0.9,
                "{config:?} {live:?}: only {share} of the rows compared"
            );
            let difference = (ours - expected).abs() * clear.to_kind(Kind::Double);
            let error = difference.max().double_value(&[]);
            assert!(error < 1e-5, "{config:?} {live:?}: {error}");
        }
    }
    tch::set_num_threads(1);
}

/// With every key kept, so that rounding flips no choice.
#[test]
fn the_kernel_takes_strided_bf16() {
    let case = published(
        ConnectivityConfig {
            coefficients: Keep::Largest(32),
            connections: Keep::Largest(197),
            ..SPARSIFINER
        },
        None,
    );
    let [q, k, v] = case.qkv.each_ref().map(|t| t.to_kind(Kind::BFloat16));
    let joint = Tensor::stack(&[&q, &k, &v], 3).transpose(1, 2).contiguous();
    let views = [0, 1, 2].map(|i| joint.select(3, i).transpose(1, 2));
    let [qs, ks, vs] = &views;
    assert!(!qs.is_contiguous());
    let ours = case.predictor.attend([qs, ks, vs], None, 0.125);
    let ours = ours.expect("the kernel applies");
    assert_eq!(ours.kind(), Kind::BFloat16);
    let (expected, _) = case.composed(0.125);
    let difference = error(&ours.to_kind(Kind::Double), &expected);
    let size = expected.abs().max().double_value(&[]);
    assert!(difference < 1e-2 * size, "{difference} of {size}");
}
