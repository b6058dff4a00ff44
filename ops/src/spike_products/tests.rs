//! The fused form against the dense product.

use super::*;
use crate::simd::with_all_lanes;
use crate::work;
use proptest::prelude::*;
use tch::Device;

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Whole numbers up to `most`, not zero at about `rate`, from a seed of their own.
fn counts(shape: &[i64], rate: f64, most: u32, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let values: Vec<f32> = (0..shape.iter().product::<i64>())
        .map(|_| {
            let fires = random() < rate;
            let count = 1 + (random() * f64::from(most)) as u32;
            if fires { count.min(most) as f32 } else { 0.0 }
        })
        .collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// Weights around 0.
fn wave(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let x = Tensor::arange(count, F32).to_kind(Kind::Double) * 12.9898 + phase;
    (x.sin() * 43_758.545_3)
        .frac()
        .reshape(shape)
        .to_kind(Kind::Float)
}

/// The largest difference of sums whose terms add up to `scale` in size.
fn apart(a: &Tensor, dense: &Tensor, scale: &Tensor) -> f64 {
    assert_eq!(a.size(), dense.size());
    let error = (a.to_kind(Kind::Double) - dense).abs() / (scale + 1e-6);
    error.max().double_value(&[])
}

/// Without the cost model: the kernel, if the values are spikes.
fn multiply_always(
    x: &Tensor,
    shape: Shape,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    threads: usize,
) -> Option<(Tensor, u64)> {
    let size = weight.size();
    let [outputs, inputs] = [0, 1].map(|i| size[i] as usize);
    let taps = shape.taps[0] * shape.taps[1];
    let weights = Weights::new(floats(&weight.contiguous()), [outputs, inputs, taps]);
    let plan = Plan::new(shape, shape.output()?, weights.panels(), threads);
    let x = x.contiguous();
    let rows = Rows {
        values: floats(&x),
        width: inputs,
    };
    let lists = pack::pack(rows, &plan, threads > 1)?;
    let [height, width] = plan.output;
    let rows = (shape.images * height * width) as i64;
    let y = Tensor::empty([rows, size[0]], F32);
    let additions = multiply(&y, &lists, &plan, &weights, bias, residual);
    Some((y, additions))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rows_times_weights_are_the_dense_product(
        rows in 1..300i64,
        inputs in 1..150i64,
        outputs in 1..80i64,
        rate in 0.0..=1.0f64,
        most in 1..=31u32,
        threads in 1..4usize,
        seed in any::<u64>(),
    ) {
        let x = counts(&[rows, inputs], rate, most, seed);
        let (w, b, r) = (wave(&[outputs, inputs], 0.1), wave(&[outputs], 0.2), wave(&[rows, outputs], 0.3));
        let double = |t: &Tensor| t.to_kind(Kind::Double);
        let dense = double(&x).matmul(&double(&w).tr()) + double(&b) + double(&r);
        let scale = double(&x).matmul(&double(&w).abs().tr()) + 2.0;
        with_all_lanes(|| {
            let shape = Shape::rows(rows as usize);
            let (y, _) = multiply_always(&x, shape, &w, Some(&b), Some(&r), threads).expect("spikes");
            assert!(apart(&y, &dense, &scale) < 1e-6);
        });
    }

    #[test]
    fn convolutions_are_the_dense_ones(
        images in 1..4i64,
        size in (3..24i64, 3..24i64),
        inputs in 1..80i64,
        outputs in 1..40i64,
        (kernel, padding) in prop_oneof![
            Just(([3i64, 3i64], [1i64, 1i64])),
            Just(([3, 3], [0, 0])),
            Just(([1, 1], [0, 0])),
            Just(([3, 1], [1, 0])),
            Just(([2, 3], [1, 2])),
        ],
        rate in 0.0..=1.0f64,
        most in 1..=4u32,
        seed in any::<u64>(),
    ) {
        let x = counts(&[images, inputs, size.0, size.1], rate, most, seed);
        let w = wave(&[outputs, inputs, kernel[0], kernel[1]], 0.1);
        let b = wave(&[outputs], 0.2);
        let convolve = |w: &Tensor, b: &Tensor| {
            let double = |t: &Tensor| t.to_kind(Kind::Double);
            double(&x).conv2d(&double(w), Some(&double(b)), [1, 1], padding, [1, 1], 1)
        };
        let (dense, scale) = (convolve(&w, &b), convolve(&w.abs(), &b.abs()));
        let shape = Shape {
            images: images as usize,
            input: [size.0 as usize, size.1 as usize],
            taps: kernel.map(|n| n as usize),
            padding: padding.map(|n| n as usize),
        };
        let pixels = x.permute([0, 2, 3, 1]);
        let (y, _) = multiply_always(&pixels, shape, &w, Some(&b), None, 2).expect("spikes");
        let y = y.reshape([images, dense.size()[2], dense.size()[3], outputs]).permute([0, 3, 1, 2]);
        assert!(apart(&y, &dense, &scale) < 1e-6);
    }
}

#[test]
fn anything_but_whole_numbers_up_to_31_runs_dense() {
    let w = wave(&[5, 70], 0.1);
    let product = |x: &Tensor| multiply_always(x, Shape::rows(150), &w, None, None, 2);
    let spikes = counts(&[150, 70], 0.2, 31, 7);
    assert!(product(&spikes).is_some());
    for odd in [
        0.5,
        -1.0,
        32.0,
        f64::NAN,
        f64::INFINITY,
        f64::from(f32::MIN_POSITIVE),
    ] {
        let x = spikes.copy();
        let _ = x.get(149).get(69).fill_(odd);
        assert!(product(&x).is_none(), "{odd}");
    }
    let negative_zero = spikes.neg().neg() * 1.0;
    assert!(product(&negative_zero).is_some());
}

fn layer(inputs: i64, outputs: i64) -> (tch::nn::VarStore, crate::Linear) {
    let vs = tch::nn::VarStore::new(Device::Cpu);
    let mut layer = crate::Linear::new(vs.root(), inputs, outputs, true);
    layer.fuse();
    tch::no_grad(|| {
        vs.variables()["weight"]
            .shallow_clone()
            .copy_(&wave(&[outputs, inputs], 0.4));
    });
    (vs, layer)
}

#[test]
fn a_layer_sums_rare_spikes_and_says_so() {
    let (_vs, layer) = layer(256, 64);
    // Every second channel of a wider tensor: nothing in it is contiguous.
    let wide = counts(&[2, 256, 512], 0.05, 1, 3);
    let x = wide.slice(2, 0, None, 2);
    let spiked = Spiked::new(&x);
    let (y, done) = work::record(|| tch::no_grad(|| layer.forward_spikes(&spiked)));
    let dense = tch::no_grad(|| layer.forward(&x));
    assert_eq!(y.size(), [2, 256, 64]);
    assert!((&y - &dense).abs().max().double_value(&[]) < 1e-5);
    let [product] = done.contractions.as_slice() else {
        panic!("{done:?}");
    };
    assert_eq!(product.macs, 2 * 256 * 256 * 64);
    let spikes = x.count_nonzero(None::<i64>).int64_value(&[]) as u64;
    let additions = product.additions.expect("the kernel ran");
    // One for every nibble with a spike, and the tables of 4 blocks, once for each chunk: how many follows from the threads.
    let most = (spikes + 8 * 4 * 16 * 11) * 64;
    assert!(
        additions <= most && additions < product.macs / 4,
        "{additions} additions, at most {most}; {spikes} spikes, {} MACs",
        product.macs
    );
    let again = tch::no_grad(|| layer.forward_spikes_add(&spiked, &y));
    assert!((again - &dense * 2.0).abs().max().double_value(&[]) < 1e-5);
}

#[test]
fn analog_values_gradients_and_other_formats_run_dense() {
    let (_vs, layer) = layer(256, 64);
    let spikes = counts(&[512, 256], 0.05, 1, 3);
    let ran = |x: &Tensor| {
        let (y, done) = work::record(|| tch::no_grad(|| layer.forward_spikes(&Spiked::new(x))));
        let dense = tch::no_grad(|| layer.forward(x));
        assert!(y.equal(&dense) || done.contractions[0].additions.is_some());
        done.contractions[0].additions
    };
    assert!(ran(&spikes).is_some());
    assert!(ran(&(&spikes * 0.5)).is_none());
    assert!(ran(&spikes.set_requires_grad(true)).is_none());
}
