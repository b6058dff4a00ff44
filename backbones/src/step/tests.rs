//! What holds for spiking networks and no record shows: both orders of time, and learning through spikes.

use super::variants::neurons;
use super::{network::OverTime, spikformer};
use crate::{Backbone, BuildOptions, SpikingOptions, TimeForm, Variant};
use tch::nn::OptimizerConfig;
use tch::{Device, Kind, Tensor, nn};
use zoo_ops::spiking::NeuronKind;
use zoo_ops::work;

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

fn options(neuron: NeuronKind, steps: i64, time: TimeForm) -> BuildOptions {
    BuildOptions {
        classes: 10,
        size: [32, 32],
        spiking: SpikingOptions {
            neuron: Some(neuron),
            steps: Some(steps),
            time,
            ..SpikingOptions::default()
        },
    }
}

/// Values without a generator, whose state the tests of this process share.
fn wave(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let x = Tensor::arange(count, F64) * 12.9898 + phase;
    (x.sin() * 43_758.545_3).frac().reshape(shape) * 2.0
}

/// Weights large enough for spikes, the same for every store.
fn fill(vs: &mut nn::VarStore) {
    vs.double();
    let mut named: Vec<_> = vs.variables().into_iter().collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    tch::no_grad(|| {
        for (i, (_, mut t)) in named.into_iter().enumerate() {
            if t.dim() > 1 {
                let fan_in = t.numel() as f64 / t.size()[0] as f64;
                t.copy_(&(wave(&t.size(), i as f64) * 3.0 / fan_in.sqrt()));
            }
        }
    });
}

fn network(variant: &Variant, options: &BuildOptions) -> (nn::VarStore, Box<dyn Backbone>) {
    let mut vs = nn::VarStore::new(Device::Cpu);
    let net = (variant.build)(&vs.root(), options);
    fill(&mut vs);
    (vs, net)
}

/// Small inputs that a network takes.
fn inputs(net: &dyn Backbone, variant: &Variant) -> Tensor {
    let size = [[8, 12], [16, 16], [64, 64]]
        .into_iter()
        .find(|[height, width]| net.check_input(*height, *width).is_ok());
    let size = size.unwrap_or(variant.build_options().size);
    wave(&net.input_form().shape(2, net.input_channels(), size), 0.5)
}

#[test]
fn all_steps_at_once_and_one_by_one_give_the_same_numbers() {
    let every = crate::variants().filter(|v| v.name.starts_with("step-"));
    for variant in every.filter(|v| !v.name.ends_with("imagenet") && v.params < 15_000_000) {
        let neurons: &[(NeuronKind, i64)] = if variant.name == "step-spikformer-cifar" {
            &[(NeuronKind::Plif, 2), (NeuronKind::Psn, 2)]
        } else {
            &[(NeuronKind::Lif, 3)]
        };
        for &(neuron, steps) in neurons {
            let [folded, stepwise] = [TimeForm::Folded, TimeForm::Stepwise].map(|time| {
                let (_vs, net) = network(variant, &options(neuron, steps, time));
                let x = inputs(net.as_ref(), variant);
                tch::no_grad(|| (net.logits(&x), net.stages(&x)))
            });
            let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            assert!(apart(&folded.0, &stepwise.0) < 1e-9, "{}", variant.name);
            for (a, b) in folded.1.iter().zip(&stepwise.1) {
                assert!(
                    a.abs().max().double_value(&[]) > 0.0,
                    "{} fires, {neuron}",
                    variant.name
                );
                assert!(apart(a, b) < 1e-9, "{}", variant.name);
            }
        }
    }
}

#[test]
fn encodings_give_the_currents_of_every_step() {
    let variant = &super::VARIANTS[0];
    let logits = |encoding: &str, time| {
        let mut options = options(NeuronKind::Lif, 4, time);
        options.spiking.encoding = encoding.parse().expect("an encoding");
        let (_vs, net) = network(variant, &options);
        let x = inputs(net.as_ref(), variant).abs() / 2.0;
        tch::no_grad(|| net.logits(&x))
    };
    let direct = logits("direct", TimeForm::Folded);
    for encoding in ["rate:7", "ttfs", "phase"] {
        let folded = logits(encoding, TimeForm::Folded);
        let stepwise = logits(encoding, TimeForm::Stepwise);
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        assert!(apart(&folded, &stepwise) < 1e-9, "{encoding}");
        assert!(apart(&folded, &direct) > 1e-6, "{encoding} changes nothing");
        assert!(
            folded.equal(&logits(encoding, TimeForm::Folded)),
            "{encoding}"
        );
    }
}

#[test]
fn a_step_against_the_gradient_lowers_the_loss() {
    let config = spikformer::Config {
        width: 32,
        heads: 2,
        depth: 1,
        ..spikformer::Config::cifar()
    };
    let options = options(NeuronKind::Lif, 2, TimeForm::Folded);
    let mut vs = nn::VarStore::new(Device::Cpu);
    let neurons = neurons(NeuronKind::Lif, 2, &options);
    let net = spikformer::Spikformer::new(&vs.root(), config, (10, 0), &neurons);
    let net = OverTime::new(net, &neurons.0, &options);
    fill(&mut vs);
    let x = wave(&[4, 3, 16, 16], 0.5);
    let labels = Tensor::from_slice(&[1i64, 4, 7, 9]);
    let loss = || net.logits(&x).cross_entropy_for_logits(&labels);
    let mut sgd = nn::Sgd::default().build(&vs, 1e-2).expect("an optimiser");
    let before = loss();
    sgd.backward_step(&before);
    let stem = &vs.variables()["patch_embed.proj_conv.weight"];
    let reached = stem.grad().abs().max().double_value(&[]);
    assert!(reached > 0.0, "gradients pass every layer of neurons");
    let mut last = loss().double_value(&[]);
    for _ in 0..10 {
        sgd.backward_step(&loss());
        last = loss().double_value(&[]);
    }
    assert!(last < before.double_value(&[]), "{before} to {last}");
}

#[test]
fn the_firing_rate_of_every_layer_is_seen() {
    let variant = &super::VARIANTS[0];
    let (_vs, net) = network(variant, &options(NeuronKind::Lif, 4, TimeForm::Stepwise));
    let x = wave(&[1, 3, 16, 16], 0.5);
    let (_, work) = work::record(|| tch::no_grad(|| net.logits(&x)));
    assert_eq!(work.neurons.len(), 5 + 4 * 7);
    assert_eq!(work.neurons[0].layer, "patch_embed.proj_lif");
    assert_eq!(work.neurons[0].elements, 4 * 48 * 16 * 16);
}
