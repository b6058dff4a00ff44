use super::*;
use proptest::prelude::*;

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Row or column of slot `a` of query `i`, if it is on the map.
fn key(border: Border, length: i64, kernel: i64, i: i64, a: i64) -> Option<i64> {
    let first = match border {
        Border::Cut => i - kernel / 2,
        Border::Shifted => (i - kernel / 2).max(0).min(length - kernel),
    };
    (0..length).contains(&(first + a)).then_some(first + a)
}

struct Case {
    border: Border,
    map: [i64; 2],
    kernel: [i64; 2],
}

impl Case {
    /// Calls `see` with (head and image, query row, column, slot, key row, column) of every key that is there.
    fn visit(&self, mut see: impl FnMut([i64; 2], [i64; 2], i64, [i64; 2])) {
        let ([h, w], [kh, kw]) = (self.map, self.kernel);
        for (n, i, j, slot) in (0..4)
            .flat_map(|n| (0..h).map(move |i| (n, i)))
            .flat_map(|(n, i)| (0..w).map(move |j| (n, i, j)))
            .flat_map(|(n, i, j)| (0..kh * kw).map(move |s| (n, i, j, s)))
        {
            let row = key(self.border, h, kh, i, slot / kw);
            let column = key(self.border, w, kw, j, slot % kw);
            if let (Some(row), Some(column)) = (row, column) {
                see([n / 2, n % 2], [i, j], slot, [row, column]);
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let shifted = [
        ([5, 5], [5, 5]),
        ([6, 9], [5, 3]),
        ([8, 8], [4, 4]),
        ([21, 5], [3, 5]),
        ([26, 23], [3, 2]),
        ([33, 20], [4, 3]),
    ];
    let cut = [([5, 4], [3, 3]), ([1, 2], [3, 5]), ([7, 7], [5, 1])];
    let case = |border| {
        move |(map, kernel)| Case {
            border,
            map,
            kernel,
        }
    };
    let shifted = shifted.into_iter().map(case(Border::Shifted));
    shifted
        .chain(cut.into_iter().map(case(Border::Cut)))
        .collect()
}

fn at(t: &Tensor, index: &[i64]) -> f64 {
    t.double_value(index)
}

#[test]
fn scores_are_those_of_the_definition() {
    tch::manual_seed(1);
    for case in cases() {
        let [h, w] = case.map;
        let mut op = Neighborhood::new(case.kernel, case.border);
        op.fuse();
        let [q, k] = [0, 1].map(|_| Tensor::randn([2, 2, h, w, 1], F64));
        let ours = op.scores(&q, &k);
        assert_eq!(ours.size(), [2, 2, h, w, op.slots()]);
        let mut expected = Tensor::zeros(ours.size(), F64);
        case.visit(|[b, g], [i, j], slot, [r, c]| {
            let product = at(&q, &[b, g, i, j, 0]) * at(&k, &[b, g, r, c, 0]);
            let _ = expected
                .get(b)
                .get(g)
                .get(i)
                .get(j)
                .get(slot)
                .fill_(product);
        });
        expected -= ours;
        assert!(expected.abs().max().double_value(&[]) < 1e-13);
    }
}

#[test]
fn sums_are_those_of_the_definition() {
    tch::manual_seed(2);
    for case in cases() {
        let [h, w] = case.map;
        let op = Neighborhood::new(case.kernel, case.border);
        let weights = Tensor::randn([2, 2, h, w, op.slots()], F64);
        let v = Tensor::randn([2, 2, h, w, 3], F64);
        let ours = op.mix(&weights, &v);
        assert_eq!(ours.size(), v.size());
        let mut expected = Tensor::zeros(v.size(), F64);
        case.visit(|[b, g], [i, j], slot, [r, c]| {
            let value = v.get(b).get(g).get(r).get(c) * at(&weights, &[b, g, i, j, slot]);
            let mut sum = expected.get(b).get(g).get(i).get(j);
            sum += value;
        });
        expected -= ours;
        assert!(expected.abs().max().double_value(&[]) < 1e-12);
    }
}

#[test]
fn the_bias_is_looked_up_at_key_minus_query() {
    tch::manual_seed(3);
    for case in cases() {
        let ([h, w], [kh, kw]) = (case.map, case.kernel);
        let op = Neighborhood::new(case.kernel, case.border);
        let inside = op.inside(case.map, Device::Cpu);
        let mut seen = Tensor::zeros([h, w, op.slots()], F64);
        let table = Tensor::randn([2, 2 * kh - 1, 2 * kw - 1], F64);
        let shifted = case.border == Border::Shifted;
        let bias = shifted.then(|| op.position_bias(&table, case.map));
        case.visit(|[_, g], [i, j], slot, [r, c]| {
            let _ = seen.get(i).get(j).get(slot).fill_(1.0);
            if let Some(bias) = &bias {
                let wanted = at(&table, &[g, r - i + kh - 1, c - j + kw - 1]);
                assert_eq!(at(bias, &[g, i, j, slot]), wanted);
            }
        });
        seen -= inside.to_kind(Kind::Double);
        assert_eq!(seen.abs().max().double_value(&[]), 0.0);
    }
}

#[test]
fn gradients_reach_weights_and_values() {
    tch::manual_seed(4);
    let op = Neighborhood::new([3, 3], Border::Shifted);
    let weights = Tensor::randn([1, 1, 20, 4, 9], F64).set_requires_grad(true);
    let v = Tensor::randn([1, 1, 20, 4, 2], F64).set_requires_grad(true);
    op.mix(&weights, &v).sum(Kind::Double).backward();
    // Every weight's gradient is the sum of its value's entries; every value is seen at least 4 times.
    let expected = op.scores(&v.ones_like(), &v.detach());
    let error = (weights.grad() - expected).abs().max();
    assert!(error.double_value(&[]) < 1e-13);
    assert!(v.grad().abs().min().double_value(&[]) > 0.0);
}

/// Logits, bias and values for windows of `kernel`; values as slices of a channels-last map.
fn attended(batch: i64, groups: i64, map: [i64; 2], kernel: [i64; 2], dim: i64) -> [Tensor; 3] {
    let ([h, w], slots) = (map, kernel[0] * kernel[1]);
    let noise = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let logits = noise(&[batch, groups, h, w, slots + 3]) * 2.0;
    [
        logits.narrow(4, 2, slots),
        noise(&[groups, h, w, slots]),
        noise(&[batch, h, w, 2, groups, dim])
            .permute([3, 0, 4, 1, 2, 5])
            .get(1),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_kernel_is_the_definition(
        batch in 1i64..3, groups in 1i64..4, kernel in [1i64..8, 1i64..8], more in [0i64..14, 0i64..9],
        dim in 1i64..35, biased: bool,
    ) {
        let map = [kernel[0] + more[0], kernel[1] + more[1]];
        tch::manual_seed(map[0] * 64 + map[1]);
        let [logits, bias, v] = attended(batch, groups, map, kernel, dim);
        let window = Neighborhood::new(kernel, Border::Shifted);
        for (kind, allowed) in [(Kind::Float, 1e-5), (Kind::BFloat16, 4e-2)] {
            let [logits, bias, v] = [&logits, &bias, &v].map(|t| t.to_kind(kind));
            let bias = biased.then_some(&bias);
            let exact = |t: &Tensor| t.to_kind(Kind::Double);
            let truth = window.attend(&exact(&logits), bias.map(exact).as_ref(), &exact(&v), |_| ());
            for isa in Isa::available() {
                let ours = fused::attend(isa, kernel, &logits, bias, &v);
                prop_assert_eq!(ours.kind(), kind);
                let error = (exact(&ours) - &truth).abs().max().double_value(&[]);
                prop_assert!(error < allowed, "{:?} {:?}: {:e}", isa, kind, error);
            }
        }
    }
}

#[test]
fn the_kernel_is_taken_once_fused_and_counts_windows_only() {
    let [logits, bias, v] = attended(1, 2, [9, 8], [5, 3], 4);
    let mut window = Neighborhood::new([5, 3], Border::Shifted);
    let attend = |window: &Neighborhood, seen: &mut bool| {
        work::record(|| window.attend(&logits, Some(&bias), &v, |_| *seen = true))
    };
    let mut seen = false;
    let (composed, _) = attend(&window, &mut seen);
    assert!(seen);
    window.fuse();
    seen = false;
    let (kernel, done) = attend(&window, &mut seen);
    assert!(!seen);
    assert!((kernel - composed).abs().max().double_value(&[]) < 1e-5);
    assert_eq!(done.contractions.len(), 1);
    assert_eq!(done.contractions[0].macs, 2 * 9 * 8 * 15 * 4);
}
