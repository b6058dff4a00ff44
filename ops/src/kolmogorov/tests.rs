//! Every basis against its formula, one score and one unit at a time.

use super::*;
use std::f64::consts::PI;
use tch::Device;

const HEADS: i64 = 2;
const TOKENS: i64 = 5;
const RANK: i64 = 3;
const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

fn map(basis: Basis, base: Base) -> (nn::VarStore, ScoreMap) {
    tch::manual_seed(8);
    let mut vs = nn::VarStore::new(Device::Cpu);
    let config = ScoreMapConfig {
        heads: HEADS,
        tokens: TOKENS,
        rank: RANK,
        basis,
        base,
        simplex: false,
    };
    let map = ScoreMap::new(&vs.root(), &config);
    vs.double();
    tch::no_grad(|| {
        for (name, t) in vs.variables().iter_mut() {
            let _ = match name.as_str() {
                "scale" => t.uniform_(0.5, 1.5),
                _ => t.normal_(0.0, 1.0),
            };
        }
    });
    (vs, map)
}

/// One unit of one head: its parameters by name and index within the unit.
struct Unit<'a> {
    store: &'a nn::VarStore,
    at: [i64; 3],
}

impl Unit<'_> {
    fn get(&self, name: &str, index: &[i64]) -> f64 {
        let t = &self.store.variables()[name];
        if name == "scale" {
            let [h, p, q] = self.at;
            return t.double_value(&[(h * RANK + p) * TOKENS + q]);
        }
        t.double_value(&[&self.at, index].concat())
    }

    fn sum_of(&self, name: &str, terms: std::ops::Range<i64>, f: impl Fn(i64) -> f64) -> f64 {
        terms.map(|i| self.get(name, &[i]) * f(i)).sum()
    }

    fn z(&self, x: f64) -> f64 {
        (x - self.get("tau", &[])) / self.get("scale", &[])
    }
}

/// Compares phi of random scores, plain and fused, with the sum over keys of `unit`.
fn check(basis: Basis, base: Base, unit: impl Fn(&Unit, f64) -> f64) {
    let (store, mut map) = map(basis, base);
    let scores = Tensor::randn([2, HEADS, 4, TOKENS], F64) * 2.0;
    let plain = map.phi(&scores);
    map.fuse();
    let fused = map.phi(&scores);
    assert_eq!(plain.size(), [2, HEADS, 4, RANK]);
    for (b, h, k, p) in [(0, 0, 0, 0), (1, 1, 3, 2), (0, 1, 2, 1), (1, 0, 1, 0)] {
        let expected: f64 = (0..TOKENS)
            .map(|q| {
                let at = [h, p, q];
                let store = &store;
                unit(&Unit { store, at }, scores.double_value(&[b, h, k, q]))
            })
            .sum();
        for phi in [&plain, &fused] {
            let error = (phi.double_value(&[b, h, k, p]) - expected).abs();
            assert!(
                error < 1e-12 * expected.abs().max(1.0),
                "{basis:?}: {error}"
            );
        }
    }
}

fn fourier(unit: &Unit, x: f64) -> f64 {
    unit.sum_of("a", 0..4, |m| ((m + 1) as f64 * x).cos())
        + unit.sum_of("b", 0..4, |m| ((m + 1) as f64 * x).sin())
}

#[test]
fn fourier_units_and_bases() {
    let basis = Basis::Fourier { grid: 4 };
    check(basis, Base::Zero, fourier);
    check(basis, Base::Identity, |u, x| x + fourier(u, x));
    check(basis, Base::Silu, |u, x| {
        x / (1.0 + (-x).exp()) + fourier(u, x)
    });
}

#[test]
fn rational_units() {
    check(Basis::Rational, Base::Zero, |u, x| {
        let numerator = u.sum_of("a", 0..6, |i| x.powi(i as i32));
        let inner = u.sum_of("b", 0..4, |i| x.powi(i as i32 + 1));
        numerator / (1.0 + inner.abs())
    });
}

#[test]
fn wavelet_units() {
    let gauss = |z: f64| (-z * z / 2.0).exp();
    let with = |wavelet, psi: &dyn Fn(f64) -> f64| {
        check(Basis::Wavelet(wavelet), Base::Zero, |u, x| {
            u.get("u", &[]) * psi(u.z(x))
        });
    };
    with(Wavelet::MexicanHat, &|z| {
        2.0 / (3f64.sqrt() * PI.powf(0.25)) * (z * z - 1.0) * gauss(z)
    });
    with(Wavelet::Morlet, &|z| (5.0 * z).cos() * gauss(z));
    with(Wavelet::Dog, &|z| z * gauss(z));
    with(Wavelet::Meyer, &|z| {
        let v = z.abs();
        let t = 2.0 * v - 1.0;
        let nu = t.powi(4) * (35.0 - 84.0 * t + 70.0 * t * t - 20.0 * t.powi(3));
        let m = match v {
            v if v <= 0.5 => 1.0,
            v if v >= 1.0 => 0.0,
            _ => (PI / 2.0 * nu).cos(),
        };
        (PI * v).sin() * m
    });
    check(Basis::Wavelet(Wavelet::Shannon), Base::Zero, |u, x| {
        let z = u.z(x);
        let window = 0.54 - 0.46 * (2.0 * PI * u.at[2] as f64 / (TOKENS - 1) as f64).cos();
        u.get("u", &[]) * z.sin() / z * window
    });
}

/// Cox-de Boor on the knots -4 + 0.8 (i - 3), half-open intervals.
fn cox_de_boor(m: i64, degree: i64, x: f64) -> f64 {
    let knot = |i: i64| -4.0 + 0.8 * (i - 3) as f64;
    if degree == 0 {
        return f64::from(u8::from(knot(m) <= x && x < knot(m + 1)));
    }
    let left = (x - knot(m)) / (knot(m + degree) - knot(m));
    let right = (knot(m + degree + 1) - x) / (knot(m + degree + 1) - knot(m + 1));
    left * cox_de_boor(m, degree - 1, x) + right * cox_de_boor(m + 1, degree - 1, x)
}

#[test]
fn spline_units() {
    check(Basis::Spline, Base::Zero, |u, x| {
        let splines = u.sum_of("c", 0..13, |m| cox_de_boor(m, 3, x));
        u.get("u", &[]) * (x / (1.0 + (-x).exp()) + splines)
    });
}

#[test]
fn gathering_needs_no_attention_matrix() {
    for simplex in [false, true] {
        let (_vs, mut map) = map(Basis::Fourier { grid: 3 }, Base::Gelu);
        map.simplex = simplex.then(|| Simplex::new(RANK));
        let scores = Tensor::randn([2, HEADS, 4, TOKENS], F64);
        let v = Tensor::randn([2, HEADS, TOKENS, 7], F64);
        let phi = map.phi(&scores);
        let error = map.sigma(&phi).matmul(&v) - map.gather(&phi, &v);
        assert!(error.abs().max().double_value(&[]) < 1e-12);
    }
}

#[test]
fn a_batch_in_tiles_is_the_batch_at_once() {
    let (mut vs, mut map) = map(Basis::Rational, Base::Identity);
    vs.freeze();
    vs.float();
    // More scores than a tile holds, and a number of images that tiles do not divide.
    let queries = 1 + TILE * i64::from(tch::get_num_threads()) / (2 * HEADS * TOKENS);
    let scores = Tensor::randn([5, HEADS, queries, TOKENS], (Kind::Float, Device::Cpu));
    let plain = map.phi(&scores);
    map.fuse();
    assert!(onednn::applies(&scores));
    assert!(map.phi(&scores).equal(&plain));
}
