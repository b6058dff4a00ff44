use super::*;
use crate::{Conv2d, ConvConfig, Linear};
use tch::Device;

fn spikes(shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    let t = Tensor::arange(count, (Kind::Float, Device::Cpu)).remainder(4.0);
    t.lt(1.0).to_kind(Kind::Float).reshape(shape)
}

#[test]
fn layers_report_what_they_multiply() {
    let vs = nn::VarStore::new(Device::Cpu);
    let root = vs.root();
    let conv = Conv2d::new(&root / "stem", 4, 6, ConvConfig::same(3).with_groups(2));
    let linear = Linear::new(&root / "head", 6, 5, true);
    let x = spikes(&[2, 4, 8, 8]);
    let (_, work) = record(|| {
        let y = over_steps(2, || conv.forward(&x));
        linear.forward(&y.flatten(2, 3).transpose(1, 2))
    });
    let [stem, head] = work.contractions.as_slice() else {
        panic!("{work:?}");
    };
    assert_eq!(
        (stem.layer.as_str(), stem.op, stem.steps),
        ("stem", Op::Convolution, 2)
    );
    assert_eq!(
        (stem.macs, stem.weights, stem.biases),
        (2 * 6 * 64 * 18, 6 * 18, 0)
    );
    assert_eq!((stem.input.nonzero, stem.input.mean), (0.25, 0.25));
    assert_eq!(stem.input.values, Values::Spikes);
    assert_eq!(
        (head.layer.as_str(), head.op, head.steps),
        ("head", Op::Linear, 1)
    );
    assert_eq!((head.macs, head.weights, head.biases), (128 * 30, 30, 5));
    assert_eq!((head.outputs, head.input.values), (128 * 5, Values::Real));
}

#[test]
fn products_report_both_operands() {
    let vs = nn::VarStore::new(Device::Cpu);
    let site = Site::below(&vs.root(), "attn");
    let (q, k) = (spikes(&[3, 2, 4]), spikes(&[3, 4, 8]) * 3.0);
    let (_, work) = record(|| site.matmul(&q, &k));
    let product = &work.contractions[0];
    assert_eq!(
        (product.macs, product.outputs, product.weights),
        (3 * 2 * 4 * 8, 48, 0)
    );
    assert_eq!(product.matrices, Some([2, 4, 8]));
    let other = product.other.unwrap();
    assert_eq!(
        (other.nonzero, other.mean, other.values),
        (0.25, 0.75, Values::Counts)
    );
}

#[test]
fn layers_side_by_side_report_apart() {
    let vs = nn::VarStore::new(Device::Cpu);
    let root = vs.root();
    let q = Linear::new(&root / "q", 4, 3, false);
    let v = Linear::new(&root / "v", 4, 2, true);
    let both = Linear::side_by_side(&[&q, &v]);
    let x = spikes(&[5, 4]);
    let (_, together) = record(|| both.forward(&x));
    let (_, apart) = record(|| (q.forward(&x), v.forward(&x)));
    let counted = |w: &Work| -> Vec<_> {
        let of = |c: &Contraction| (c.layer.clone(), c.macs, c.weights, c.outputs);
        w.contractions.iter().map(of).collect()
    };
    assert_eq!(counted(&together), counted(&apart));
}

#[test]
fn nothing_is_kept_without_a_recorder() {
    neuron("lif", &spikes(&[4]), 1);
    assert!(!recording());
    let ((), work) = record(|| neuron("lif", &spikes(&[2, 4]), 2));
    assert_eq!(work.neurons[0].rate, 0.25);
    assert_eq!((work.neurons[0].elements, work.neurons[0].steps), (8, 2));
    assert!(!recording());
}

#[test]
fn values_are_told_apart() {
    let of = |values: &[f64]| Values::of(&Tensor::from_slice(values));
    assert_eq!(of(&[0.0, 1.0, 1.0]), Values::Spikes);
    assert_eq!(of(&[0.0, 2.0]), Values::Counts);
    for real in [0.5, -1.0, f64::NAN] {
        assert_eq!(of(&[0.0, real]), Values::Real);
    }
}

#[test]
fn operators_without_a_path_count_for_the_module_before() {
    let vs = nn::VarStore::new(Device::Cpu);
    let attention = crate::SelfAttention::new(&(vs.root() / "blocks" / "0" / "attn"), 8, 2, true);
    let x = Tensor::randn([3, 5, 8], (Kind::Float, Device::Cpu));
    let (_, work) = record(|| attention.mix(&x));
    let found: Vec<_> = work
        .contractions
        .iter()
        .map(|c| (c.layer.as_str(), c.macs))
        .collect();
    let product = 3 * 2 * 5 * 5 * 4;
    let qkv = ("blocks.0.attn.qkv", 3 * 5 * 8 * 24);
    assert_eq!(
        found,
        [qkv, ("blocks.0.attn", product), ("blocks.0.attn", product)]
    );
}

#[test]
fn fused_attention_counts_as_the_composed_one_does() {
    let vs = nn::VarStore::new(Device::Cpu);
    let mut attention = crate::SelfAttention::new(&(vs.root() / "attn"), 64, 2, true);
    let x = Tensor::randn([3, 5, 64], (Kind::Float, Device::Cpu));
    let counted = |attention: &crate::SelfAttention| {
        let (_, work) = record(|| crate::inference_mode(|| attention.mix(&x)));
        let of = |c: &Contraction| (c.macs, c.dense, c.outputs);
        work.contractions.iter().map(of).collect::<Vec<_>>()
    };
    let composed = counted(&attention);
    attention.fuse();
    assert_eq!(counted(&attention), composed);
}

#[test]
fn routed_regions_count_the_listed_ones_only() {
    let regions = crate::Regions::of_count([4, 4], [2, 2]);
    let attention = |fused| crate::GroupedAttention {
        regions,
        heads: 2,
        scale: 0.5,
        fused,
    };
    let x = Tensor::randn([1, 4, 4, 64], (Kind::Float, Device::Cpu));
    let index = Tensor::from_slice(&[0i64, 1, 1, 2, 2, 3, 3, 0]).reshape([1, 4, 2]);
    let macs = |fused: bool| {
        let forward = || attention(fused).forward(&x, &x, &x, Some(&index));
        let (_, work) = record(|| crate::inference_mode(forward));
        work.contractions.iter().map(|c| c.macs).collect::<Vec<_>>()
    };
    // 16 queries of 2 heads see 2 regions of 4 keys each, of 16; 32 channels a head.
    assert_eq!(macs(true), [2 * 16 * 8 * 32; 2]);
    assert_eq!(macs(false), macs(true));
}
