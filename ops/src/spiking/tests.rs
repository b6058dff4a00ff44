//! Forms agree: fused and composed, all steps at once and one at a time; gradients flow as the surrogates say.

use super::*;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn, no_grad};

const ALL: [&str; 14] = [
    "if",
    "lif",
    "lif-braincog",
    "plif",
    "eif",
    "ilif",
    "nilif",
    "klif",
    "clif",
    "glif",
    "psn",
    "hdlif",
    "izhikevich",
    "hh",
];

fn layer(store: &nn::VarStore, config: &NeuronConfig) -> Neuron {
    Neuron::new(store.root() / "lif", config)
}

fn currents(size: &[i64], seed: i64) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randn(size, (Kind::Float, Device::Cpu)) * 1.5 + 0.5
}

/// Equal bits, where -0 is 0.
fn same(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.equal(b)
}

#[test]
fn a_lif_does_what_its_equations_say() {
    let store = nn::VarStore::new(Device::Cpu);
    let lif = layer(&store, &NeuronConfig::lif());
    // Two steps of two neurons, tau 2, threshold 1: 2/2 = 1 fires and resets; 1.5/2 = 0.75, then 0.75 + 0.25 / 2.
    let x = Tensor::from_slice(&[2.0f32, 1.5, 1.0, 1.0]).reshape([2, 2]);
    let seen = no_grad(|| lif.trace(&x, 2, State::default()));
    let floats = |t: &Tensor| Vec::<f32>::try_from(t.flatten(0, -1)).unwrap();
    assert_eq!(floats(&seen.spikes), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(floats(&seen.mem_pre), [1.0, 0.75, 0.5, 0.875]);
    assert_eq!(floats(&seen.mem_post.unwrap()), [0.0, 0.75, 0.5, 0.875]);
    let strict = layer(
        &nn::VarStore::new(Device::Cpu),
        &NeuronConfig::lif_braincog().threshold(1.0),
    );
    assert_eq!(floats(&no_grad(|| strict.forward(&x, 2))), [0.0; 4]);
}

#[test]
fn names_are_those_of_the_official_state_dicts() {
    let names = |config: NeuronConfig| {
        let store = nn::VarStore::new(Device::Cpu);
        layer(&store, &config);
        let mut names: Vec<String> = store.variables().into_keys().collect();
        names.sort();
        names
    };
    assert_eq!(
        names(NeuronConfig::lif()),
        ["lif.act_fun.alpha", "lif.threshold"]
    );
    assert_eq!(names(NeuronConfig::named("clif").unwrap()), [] as [&str; 0]);
    assert_eq!(
        names(NeuronConfig::named("psn").unwrap()),
        ["lif.act_func.alpha", "lif.fc.bias", "lif.fc.weight"]
    );
    let hdlif = names(NeuronConfig::named("hdlif").unwrap().input_dims(3));
    assert!(hdlif.contains(&"lif.experts.2.w".to_owned()), "{hdlif:?}");
    assert_eq!(hdlif.len(), 1 + 4 * 2 + 1 + 2);
}

#[test]
fn every_name_is_parsed_and_printed() {
    for name in ALL {
        assert_eq!(NeuronConfig::named(name).unwrap().to_string(), name);
    }
    let error = NeuronConfig::named("LIF ").unwrap_err().to_string();
    assert!(
        error.contains("`LIF `") && error.contains("plif"),
        "{error}"
    );
}

#[test]
fn one_step_at_a_time_gives_the_same() {
    for name in ALL {
        let config = NeuronConfig::named(name).unwrap().input_dims(6);
        if !config.stepwise() {
            continue;
        }
        let store = nn::VarStore::new(Device::Cpu);
        let neuron = layer(&store, &config);
        let x = currents(&[4 * 2, 6, 5], 1);
        let at_once = no_grad(|| neuron.forward(&x, 4));
        let composed = no_grad(|| neuron.trace(&x, 4, State::default()).spikes);
        let mut state = State::default();
        let steps: Vec<Tensor> = x
            .chunk(4, 0)
            .iter()
            .map(|x_t| no_grad(|| neuron.step(x_t, &mut state)))
            .collect();
        let stepped = Tensor::cat(&steps, 0);
        assert!(same(&at_once, &composed), "{name}");
        assert!(same(&at_once, &stepped), "{name}");
        assert_eq!(state.step, 4, "{name}");
    }
}

#[test]
fn an_hdlif_of_rows_is_one_of_single_places() {
    let store = nn::VarStore::new(Device::Cpu);
    let neuron = layer(&store, &NeuronConfig::named("hdlif").unwrap().input_dims(6));
    let x = currents(&[4 * 2, 6], 4);
    let rows = no_grad(|| neuron.forward(&x, 4));
    let places = no_grad(|| neuron.forward(&x.unsqueeze(-1), 4));
    assert!(same(&rows, &places.squeeze_dim(-1)));
}

#[test]
fn a_carried_state_goes_on_where_it_was() {
    for name in ["lif", "klif", "clif", "izhikevich"] {
        let store = nn::VarStore::new(Device::Cpu);
        let neuron = layer(&store, &NeuronConfig::named(name).unwrap());
        let x = currents(&[6, 40], 2);
        let whole = no_grad(|| neuron.forward(&x, 6));
        let (first, state) = no_grad(|| neuron.forward_from(&x.narrow(0, 0, 4), 4, None));
        let (second, _) = no_grad(|| neuron.forward_from(&x.narrow(0, 4, 2), 2, Some(state)));
        assert!(same(&whole, &Tensor::cat(&[first, second], 0)), "{name}");
    }
}

/// Axes as a convolution may leave them.
fn stored(x: Tensor, channels_last: bool) -> Tensor {
    if channels_last {
        crate::channels_last(&x)
    } else {
        x
    }
}

proptest! {
    #[test]
    fn fused_equals_composed_to_the_last_bit(
        kind in prop::sample::select(vec!["if", "lif", "lif-braincog", "plif"]),
        (steps, batch, channels, side) in (1i64..6, 1i64..4, 1i64..20, 1i64..9),
        tau in prop::sample::select(vec![1.5f64, 2.0, 3.0, 4.0]),
        threshold in -0.5f64..1.5,
        channels_last: bool,
        format in prop::sample::select(vec![Kind::Float, Kind::BFloat16]),
        seed in 0i64..1000,
    ) {
        let mut store = nn::VarStore::new(Device::Cpu);
        let config = NeuronConfig::named(kind).unwrap().tau(tau).threshold(threshold);
        let neuron = layer(&store, &config);
        store.set_kind(format);
        let drawn = |size: &[i64], seed| stored(currents(size, seed).to_kind(format), channels_last);
        let x = drawn(&[steps * batch, channels, side, side], seed);
        let before = drawn(&[batch, channels, side, side], seed + 1);
        let state = |v: &Tensor| State { potential: Some(v.copy()), ..State::default() };
        let (spikes, after) = no_grad(|| neuron.forward_from(&x, steps, Some(state(&before))));
        let composed = no_grad(|| neuron.trace(&x, steps, state(&before)));
        prop_assert!(same(&spikes, &composed.spikes));
        let last = composed.mem_post.unwrap().narrow(0, (steps - 1) * batch, batch);
        prop_assert!(same(&after.potential.unwrap(), &last));
        let fresh = no_grad(|| neuron.forward(&x, steps));
        let composed = no_grad(|| neuron.trace(&x, steps, State::default()));
        prop_assert!(same(&fresh, &composed.spikes));
    }
}

#[test]
fn the_kernel_runs_where_it_should() {
    let x = currents(&[4, 3, 5, 5], 1);
    assert!(fused::applies(&x, 2, None));
    assert!(fused::applies(&crate::channels_last(&x), 2, None));
    let bf16 = x.to_kind(Kind::BFloat16);
    assert!(fused::applies(&bf16, 2, None));
    assert!(
        !fused::applies(&bf16, 2, Some(&x.narrow(0, 0, 2))),
        "potentials of another format"
    );
    assert!(
        !fused::applies(&x, 3, None),
        "rows are no multiple of the steps"
    );
    assert!(!fused::applies(&x.narrow(2, 0, 3), 2, None), "has gaps");
    assert!(
        !fused::applies(&x.transpose(0, 1), 3, None),
        "time is not slowest"
    );
    assert!(!fused::applies(&x.to_kind(Kind::Double), 2, None));
    assert!(!fused::applies(&x.set_requires_grad(true), 2, None));
}

/// Currents of two classes, [4 steps * 32 images, 6], and the classes.
fn toy_classes() -> (Tensor, Tensor) {
    let images = currents(&[32, 6], 5);
    let classes = images
        .select(1, 0)
        .gt_tensor(&images.select(1, 1))
        .to_kind(Kind::Int64);
    (images.repeat([4, 1]), classes)
}

#[test]
fn gradient_steps_lower_the_loss_through_every_neuron() {
    use nn::OptimizerConfig;
    tch::set_num_threads(1);
    for name in ALL
        .iter()
        .filter(|name| !["izhikevich", "hh", "hdlif"].contains(name))
    {
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let config = NeuronConfig::named(name).unwrap().threshold(0.5);
        let first = nn::linear(store.root() / "first", 6, 24, Default::default());
        let neuron = layer(&store, &config);
        let head = nn::linear(store.root() / "head", 24, 2, Default::default());
        let (x, classes) = toy_classes();
        let loss = || {
            let spikes = neuron.forward(&x.apply(&first), 4);
            let rates = spikes.reshape([4, -1, 24]).mean_dim(0, false, None);
            rates.apply(&head).cross_entropy_for_logits(&classes)
        };
        let before = no_grad(|| loss().double_value(&[]));
        let first_weight = first.ws.copy();
        let mut adam = nn::Adam::default().build(&store, 0.02).unwrap();
        for _ in 0..30 {
            adam.backward_step(&loss());
        }
        let after = no_grad(|| loss().double_value(&[]));
        assert!(after < 0.8 * before, "{name}: {before} to {after}");
        assert!(
            !first.ws.equal(&first_weight),
            "{name}: nothing passed the spikes"
        );
        if let Some(threshold) = store.variables().get("lif.threshold") {
            assert_eq!(
                threshold.double_value(&[]),
                config.threshold,
                "{name} trained its threshold"
            );
        }
    }
}
