//! Records of single layers of neurons: what the official classes fire, and the gradient that passes through.

use super::check::{compare_names, formula, relative_error};
use super::outcome::{Failure, Form, Outcome};
use super::rule::Check;
use super::{Record, RecordError, StateEntry};
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, nn, no_grad};
use zoo_ops::spiking::{Neuron, NeuronConfig, NeuronKind, NeuronTrace, State};
use zoo_weights::formula::Kind as Filled;

/// Official classes and the kinds they are; BrainCog's classes of the same name are told apart by their repository.
const CLASSES: [(&str, NeuronKind); 13] = [
    ("IFNode", NeuronKind::If),
    ("LIFNode", NeuronKind::Lif),
    ("PLIFNode", NeuronKind::Plif),
    ("EIFNode", NeuronKind::Eif),
    ("ILIFNode", NeuronKind::Ilif),
    ("NILIFNode", NeuronKind::Nilif),
    ("KLIFNode", NeuronKind::Klif),
    ("ComplementaryLIFNeuron", NeuronKind::Clif),
    ("GLIFTorch", NeuronKind::Glif),
    ("PSNTorch", NeuronKind::Psn),
    ("HDLIFNode", NeuronKind::HdLif),
    ("IzhNode", NeuronKind::Izhikevich),
    ("HHNode", NeuronKind::HodgkinHuxley),
];

/// Float64 only, whatever the check asks for: a spike is a decision, and rounding flips decisions.
///
/// `Form::Plain` is the composed form that also shows potentials, `Form::Fused` the forward pass that models call.
pub(super) fn verify(record: &Record, check: &Check) -> Result<Outcome, RecordError> {
    let mut outcome = Outcome::of(&record.name);
    outcome.tolerance = check.exact_tolerance();
    let config = match configure(record) {
        Ok(config) => config,
        Err(reason) => {
            outcome.model = Err(reason);
            return Ok(outcome);
        }
    };
    outcome.model = Ok(format!("neuron {config}"));
    let recorded = record.values()?;
    let mut store = nn::VarStore::new(Device::Cpu);
    let neuron = Neuron::new(store.root(), &config);
    store.double();
    let state: Vec<(String, Vec<i64>)> = store
        .variables()
        .into_iter()
        .map(|(name, t)| (name, t.size()))
        .collect();
    // A record without any state_dict keeps its constants in `config` alone.
    if !record.state_dict.is_empty() {
        compare_names(record, &state, &mut outcome);
    }
    outcome.names = state.len();
    if let Err(reason) = fill(record, &store) {
        outcome.failures.push(Failure::Engine { reason });
        return Ok(outcome);
    }
    let input = match input(record) {
        Ok(input) => input,
        Err(reason) => {
            outcome.failures.push(Failure::Engine { reason });
            return Ok(outcome);
        }
    };
    let run = Run {
        neuron: &neuron,
        config: &config,
        input: &input,
        recorded: &recorded,
        training: record.config["training"].as_bool().unwrap_or(false),
    };
    run.values(&mut outcome);
    run.gradient(record, &mut outcome);
    Ok(outcome)
}

/// The neuron of a record, or what is not understood of it.
fn configure(record: &Record) -> Result<NeuronConfig, String> {
    let given = &record.config;
    let class = given["class"].as_str().unwrap_or_default();
    let found = CLASSES.iter().find(|(name, _)| *name == class);
    let (_, kind) = found.ok_or_else(|| format!("no code for neurons of class `{class}` yet"))?;
    let from_braincog = record.source["repo"]
        .as_str()
        .is_some_and(|r| r.contains("Brain-Cog"));
    let kind = match kind {
        NeuronKind::Lif if from_braincog || record.name.ends_with("braincog") => {
            NeuronKind::LifBrainCog
        }
        kind => *kind,
    };
    let mut config = NeuronConfig::new(kind);
    let set = |key: &str, to: &mut f64| {
        if let Some(value) = given[key].as_f64() {
            *to = value;
        }
    };
    set("threshold", &mut config.threshold);
    set("v_threshold", &mut config.threshold);
    set("tau", &mut config.tau);
    set("D", &mut config.levels);
    set("delta_T", &mut config.exponential[0]);
    set("theta_rh", &mut config.exponential[1]);
    set("dt", &mut config.izhikevich.dt);
    for (key, to) in ["a", "b", "c", "d"]
        .into_iter()
        .zip(&mut config.izhikevich.abcd)
    {
        set(key, to);
    }
    config.steps = given["step"].as_i64().unwrap_or(config.steps);
    config.input_dims = given["input_dims"].as_i64().or(Some(1));
    config.reset = given["v_reset"].as_f64().or(config.reset);
    config.decay_input = given["decay_input"].as_bool().unwrap_or(config.decay_input);
    config.glif.static_gate = given["static_gate"].as_bool().unwrap_or(true);
    if kind == NeuronKind::HodgkinHuxley {
        hodgkin_huxley(given, &mut config)?;
    }
    Ok(config)
}

/// `p`: threshold, gNa, gK, gl, VNa, VK, Vl, C; `dt`, `substeps`.
fn hodgkin_huxley(given: &Value, config: &mut NeuronConfig) -> Result<(), String> {
    let p: Option<Vec<f64>> = given["p"]
        .as_array()
        .and_then(|p| p.iter().map(Value::as_f64).collect());
    let Some(&[threshold, na, k, l, v_na, v_k, v_l, capacity]) = p.as_deref() else {
        return Err("config.p is not eight numbers".to_owned());
    };
    config.threshold = threshold;
    let hh = &mut config.hodgkin_huxley;
    hh.conductances = [na, k, l];
    hh.potentials = [v_na, v_k, v_l];
    hh.capacity = capacity;
    hh.dt = given["dt"].as_f64().unwrap_or(hh.dt);
    hh.substeps = given["substeps"].as_u64().map_or(1, |n| n as usize);
    Ok(())
}

/// Parameters by the formula, defaults from `config.values`.
fn fill(record: &Record, store: &nn::VarStore) -> Result<(), String> {
    let entries: BTreeMap<&str, &StateEntry> = record
        .state_dict
        .iter()
        .map(|e| (e.0.as_str(), e))
        .collect();
    for (name, mut variable) in store.variables() {
        let Some(StateEntry(_, shape, kind)) = entries.get(name.as_str()) else {
            continue;
        };
        let values = if kind == "param" {
            let shape: Vec<usize> = shape.iter().map(|n| n.unsigned_abs() as usize).collect();
            let filled = formula(record).fill(&name, &shape, Filled::Param);
            filled.map(|values| values.into_iter().map(f64::from).collect())
        } else {
            let mut values = Vec::new();
            flatten(&record.config["values"][&name], &mut values);
            (!values.is_empty()).then_some(values)
        };
        let Some(values) = values else { continue };
        if values.len() != variable.numel() {
            return Err(format!(
                "config.values has {} values for {name}",
                values.len()
            ));
        }
        let t = Tensor::from_slice(&values).reshape(variable.size());
        no_grad(|| variable.copy_(&t));
    }
    Ok(())
}

fn flatten(value: &Value, into: &mut Vec<f64>) {
    match value {
        Value::Array(values) => values.iter().for_each(|v| flatten(v, into)),
        other => into.extend(other.as_f64()),
    }
}

/// The formula's input, scaled and moved.
fn input(record: &Record) -> Result<Tensor, String> {
    let shape = record
        .input_shape
        .as_deref()
        .ok_or("the record has no `input_shape`")?;
    let of = |key: &str, default: f64| record.input[key].as_f64().unwrap_or(default);
    Ok(synthetic(record, "input", shape) * of("scale", 1.0) + of("offset", 0.0))
}

/// Uniform with variance 1 under any name, in float64.
fn synthetic(record: &Record, name: &str, shape: &[i64]) -> Tensor {
    let bound = 3f64.sqrt();
    let spread = zoo_weights::formula::Spread {
        lo: -bound,
        hi: bound,
        pow: 1.0,
        floor: false,
    };
    let unsigned: Vec<usize> = shape.iter().map(|n| n.unsigned_abs() as usize).collect();
    let values = match name {
        "input" => formula(record).fill_input(&unsigned),
        _ => formula(record).fill_spread(name, &unsigned, spread),
    };
    Tensor::from_slice(&values)
        .to_kind(Kind::Double)
        .reshape(shape)
}

struct Run<'a> {
    neuron: &'a Neuron,
    config: &'a NeuronConfig,
    input: &'a Tensor,
    recorded: &'a BTreeMap<String, Vec<f64>>,
    training: bool,
}

impl Run<'_> {
    /// Spikes, potentials and the neuron's own further states.
    fn values(&self, outcome: &mut Outcome) {
        let steps = self.config.steps;
        let start = self.start();
        let run = || {
            let seen = self.neuron.trace(self.input, steps, start.detach());
            let (forward, _) = (self.neuron).forward_from(self.input, steps, Some(start.detach()));
            (seen, forward)
        };
        // HD-LIF's gate has another form while gradients are recorded.
        let (seen, forward) = if self.training { run() } else { no_grad(run) };
        let values = named(&seen);
        for (name, recorded) in self
            .recorded
            .iter()
            .filter(|(name, _)| *name != "grad_input")
        {
            let found = values
                .get(name.as_str())
                .or_else(|| values.get(name.strip_suffix("_post")?));
            let error = found.and_then(|t| relative_error(&flat(t), recorded));
            outcome.decide(name, Form::Plain, error);
            if name == "spikes" {
                outcome.decide(name, Form::Fused, relative_error(&flat(&forward), recorded));
            }
        }
    }

    /// Rest, or zero where that is what the record began from: a fresh EIF of STEP starts at 0 and only a reset one at
    /// its reset potential, and a record does not say which it was. Its first row does.
    fn start(&self) -> State {
        let rest = self.config.reset.unwrap_or(0.0);
        let first = self
            .input
            .narrow(0, 0, self.input.size()[0] / self.config.steps);
        let from = |v: f64| State {
            potential: Some(first.full_like(v)),
            ..State::default()
        };
        let begins_alike = |v: f64| {
            let seen = no_grad(|| self.neuron.trace(&first, 1, from(v)));
            let charged = flat(&seen.mem_pre);
            let recorded = self.recorded.get("mem_pre");
            recorded.is_some_and(|r| {
                relative_error(&charged, &r[..charged.len().min(r.len())]) < Some(1e-9)
            })
        };
        match self.config.kind {
            NeuronKind::Eif if !begins_alike(rest) => from(0.0),
            NeuronKind::HdLif if self.recorded.get("expert_mem_post").is_some() => {
                self.mixture_start(from(0.0))
            }
            _ => State::default(),
        }
    }

    /// The same for the exponential expert of a mixture.
    fn mixture_start(&self, zero: State) -> State {
        let seen = no_grad(|| {
            self.neuron
                .trace(self.input, self.config.steps, zero.detach())
        });
        let found = named(&seen).remove("expert_mem_post").map(flat);
        match (found, self.recorded.get("expert_mem_post")) {
            (Some(found), Some(recorded)) if relative_error(&found, recorded) < Some(1e-9) => zero,
            _ => State::default(),
        }
    }

    /// The gradient for the input of sum(spikes * c), c being the formula's `cotangent`.
    fn gradient(&self, record: &Record, outcome: &mut Outcome) {
        let Some(recorded) = self.recorded.get("grad_input") else {
            return;
        };
        let x = self.input.copy().set_requires_grad(true);
        let (spikes, _) = self
            .neuron
            .forward_from(&x, self.config.steps, Some(self.start()));
        let cotangent = synthetic(record, "cotangent", &spikes.size());
        (&spikes * cotangent).sum(Kind::Double).backward();
        outcome.decide(
            "grad_input",
            Form::Plain,
            relative_error(&flat(&x.grad()), recorded),
        );
    }
}

fn named(seen: &NeuronTrace) -> BTreeMap<&str, &Tensor> {
    let mut values = BTreeMap::from([("spikes", &seen.spikes), ("mem_pre", &seen.mem_pre)]);
    values.extend(seen.mem_post.as_ref().map(|t| ("mem_post", t)));
    values.extend(seen.others.iter().map(|(name, t)| (*name, t)));
    values
}

fn flat(t: &Tensor) -> Vec<f64> {
    let t = t.detach().to_kind(Kind::Double).contiguous().flatten(0, -1);
    Vec::<f64>::try_from(&t).unwrap_or_default()
}
