//! Records of work and energy: every product and layer of neurons of a pass, and the totals that follow.

use super::check::{model_session, relative_error};
use super::outcome::{Failure, Form, Outcome};
use super::rule::Check;
use super::{Record, RecordError};
use crate::counting;
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use tch::Tensor;
use zoo_energy::{Charged, WeightTraffic, step};
use zoo_ops::work::{Contraction, NeuronCall, Op, Work};
use zoo_runtime::Session;

/// What the reference counted.
#[derive(Debug, Deserialize)]
struct Counted {
    /// Name of the model's own record.
    of: String,
    layers: Vec<Layer>,
    neurons: Vec<Neurons>,
    totals: BTreeMap<String, f64>,
}

#[derive(Debug, Deserialize)]
struct Layer {
    layer: String,
    op: String,
    macs: f64,
    out: Vec<f64>,
    weights: Option<f64>,
    in_nonzero: f64,
    in_mean: f64,
    rhs_nonzero: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Neurons {
    layer: String,
    elements: f64,
    rate: f64,
    nonzero: f64,
}

/// Float64 only, as rates are counts of decisions. The tolerance of 1e-12 leaves no room for a count that is off by one.
pub(super) fn verify(record: &Record, check: &Check) -> Result<Outcome, RecordError> {
    let mut outcome = Outcome::of(&record.name);
    outcome.tolerance = check.tolerance.unwrap_or(1e-12);
    let counted: Counted = read(&record.path)?;
    outcome.names = counted.layers.len() + counted.neurons.len();
    let model = model_record(record, &counted.of)?;
    for form in [Form::Plain, Form::Fused] {
        let (variant, session, input) = match model_session(&model, check, form) {
            Ok(opened) => opened,
            Err(reason) => {
                outcome.model = Err(reason);
                return Ok(outcome);
            }
        };
        outcome.model = Ok(variant.name.to_owned());
        match session.work(&input) {
            Ok(work) => {
                let run = Run {
                    counted: &counted,
                    form,
                };
                run.compare(&work, &session, &input, &mut outcome);
            }
            Err(e) => outcome.failures.push(Failure::Engine {
                reason: e.to_string(),
            }),
        }
    }
    Ok(outcome)
}

fn read(path: &Path) -> Result<Counted, RecordError> {
    let io = |source| RecordError::Io {
        path: path.to_path_buf(),
        source,
    };
    let text = std::fs::read_to_string(path).map_err(io)?;
    serde_json::from_str(&text).map_err(|source| RecordError::Json {
        path: path.to_path_buf(),
        source,
    })
}

/// The record of the model, which has the tensors that are constants; where it does not lie beside this one, this one
/// under the model's name.
fn model_record(record: &Record, of: &str) -> Result<Record, RecordError> {
    let beside = record.path.with_file_name(format!("{of}.json"));
    let mut model = if beside.is_file() {
        Record::open(&beside)?
    } else {
        record.clone()
    };
    model.name = of.to_owned();
    model.kind = None;
    Ok(model)
}

struct Run<'a> {
    counted: &'a Counted,
    form: Form,
}

impl Run<'_> {
    fn compare(&self, work: &Work, session: &Session, input: &Tensor, outcome: &mut Outcome) {
        self.layers(work, outcome);
        self.neurons(work, outcome);
        self.totals(work, session, input.size()[0] as u64, outcome);
    }

    fn decide(&self, outcome: &mut Outcome, name: &str, found: &[f64], recorded: &[f64]) {
        outcome.decide(name, self.form, relative_error(found, recorded));
    }

    fn layers(&self, work: &Work, outcome: &mut Outcome) {
        let calls = work.contractions.iter();
        let calls = calls.map(|c| ((c.layer.as_str(), c.op == Op::MatMul), c));
        let recorded = &self.counted.layers;
        let wanted = recorded.iter().map(|l| (l.layer.as_str(), l.op == "bmm"));
        let show = |(layer, product): &(&str, bool)| {
            format!("{} of {layer}", if *product { "product" } else { "layer" })
        };
        let Some(found) = paired(calls, wanted, show, outcome) else {
            return;
        };
        let pairs: Vec<(&Contraction, &Layer)> = found.into_iter().zip(recorded).collect();
        let mut column = |name: &str, of: &dyn Fn(&Contraction, &Layer) -> Option<[f64; 2]>| {
            let (found, recorded): (Vec<f64>, Vec<f64>) = pairs
                .iter()
                .filter_map(|(c, l)| of(c, l))
                .map(|[found, recorded]| (found, recorded))
                .unzip();
            self.decide(outcome, &format!("layers.{name}"), &found, &recorded);
        };
        column("macs", &|c, l| Some([c.macs as f64, l.macs]));
        column("out", &|c, l| {
            Some([c.outputs as f64, l.out.iter().product()])
        });
        column("weights", &|c, l| {
            Some([c.weights as f64, l.weights.unwrap_or(0.0)])
        });
        column("in_nonzero", &|c, l| Some([c.input.nonzero, l.in_nonzero]));
        column("in_mean", &|c, l| Some([c.input.mean, l.in_mean]));
        let other = |c: &Contraction| c.other.map_or(f64::NAN, |o| o.nonzero);
        if pairs.iter().any(|(_, l)| l.rhs_nonzero.is_some()) {
            column("rhs_nonzero", &|c, l| Some([other(c), l.rhs_nonzero?]));
        }
    }

    fn neurons(&self, work: &Work, outcome: &mut Outcome) {
        let calls = work.neurons.iter().map(|n| (n.layer.as_str(), n));
        let recorded = &self.counted.neurons;
        let wanted = recorded.iter().map(|n| n.layer.as_str());
        let show = |layer: &&str| format!("neurons of {layer}");
        let Some(found) = paired(calls, wanted, show, outcome) else {
            return;
        };
        let mut column = |name: &str, of: fn(&NeuronCall) -> f64, by: fn(&Neurons) -> f64| {
            let found: Vec<f64> = found.iter().map(|n| of(n)).collect();
            let recorded: Vec<f64> = recorded.iter().map(by).collect();
            self.decide(outcome, &format!("neurons.{name}"), &found, &recorded);
        };
        column("elements", |n| n.elements as f64, |n| n.elements);
        column("rate", |n| n.rate, |n| n.rate);
        column("nonzero", |n| n.nonzero, |n| n.nonzero);
    }

    fn totals(&self, work: &Work, session: &Session, images: u64, outcome: &mut Outcome) {
        let counts = counting::counts(work, images);
        let images = images as f64;
        let estimate = step(&counts, Charged::FirstAndLast, WeightTraffic::Once);
        let fired = work.neurons.iter().map(|n| n.nonzero * n.elements as f64);
        let found = [
            ("dense_macs_all_steps", Some(counts.dense_macs() * images)),
            (
                "first_and_head_macs",
                Some(estimate.operations.macs * images),
            ),
            ("sops", Some(estimate.operations.acs * images)),
            ("e_compute_pj", Some(estimate.energy.arithmetic_pj * images)),
            ("neuron_updates", Some(counts.updates() * images)),
            ("spikes_nonzero", Some(fired.sum())),
            ("step_firing_rate", counts.firing_rate()),
            ("weights", Some(weights(session))),
            (
                "e_state_pj_32bit",
                estimate.energy.state_pj.map(|e| e * images),
            ),
        ];
        for (name, recorded) in &self.counted.totals {
            let ours = found.iter().find(|(n, _)| n == name);
            let value = ours.and_then(|(_, value)| *value);
            let error = value.and_then(|v| relative_error(&[v], &[*recorded]));
            outcome.decide(&format!("totals.{name}"), self.form, error);
        }
    }
}

/// Parameters without the thresholds and alphas of neurons.
fn weights(session: &Session) -> f64 {
    let of_neurons = |name: &str| name.ends_with("threshold") || name.ends_with("act_fun.alpha");
    let left_out = session.state().iter().filter(|(name, _)| of_neurons(name));
    let scalars: i64 = left_out
        .map(|(_, shape)| shape.iter().product::<i64>())
        .sum();
    session.params() as f64 - scalars as f64
}

/// The calls that belong to the wanted keys, the first call of a key to its first mention; `None`, and failures, where
/// some are missing or left over.
fn paired<'a, K: Ord + Copy, T>(
    calls: impl Iterator<Item = (K, &'a T)>,
    wanted: impl Iterator<Item = K>,
    show: impl Fn(&K) -> String,
    outcome: &mut Outcome,
) -> Option<Vec<&'a T>> {
    let mut by_key: BTreeMap<K, VecDeque<&T>> = BTreeMap::new();
    for (key, call) in calls {
        by_key.entry(key).or_default().push_back(call);
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for key in wanted {
        match by_key.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(call) => found.push(call),
            None => missing.push(show(&key)),
        }
    }
    let left = by_key.iter().filter(|(_, calls)| !calls.is_empty());
    let extra: Vec<String> = left.map(|(key, _)| show(key)).collect();
    let complete = missing.is_empty() && extra.is_empty();
    if !missing.is_empty() {
        let names = missing;
        outcome.failures.push(Failure::MissingNames { names });
    }
    if !extra.is_empty() {
        outcome.failures.push(Failure::ExtraNames { names: extra });
    }
    complete.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_paired_by_name_in_their_order() {
        let calls = [("attn", 1), ("fc", 2), ("attn", 3)];
        let pair = |wanted: &[&'static str]| {
            let mut outcome = Outcome::of("record");
            let calls = calls.iter().map(|(name, call)| (*name, call));
            let found = paired(
                calls,
                wanted.iter().copied(),
                |k| k.to_string(),
                &mut outcome,
            );
            let found = found.map(|f| f.into_iter().copied().collect::<Vec<i32>>());
            (found, outcome.failures)
        };
        let (found, failures) = pair(&["fc", "attn", "attn"]);
        assert_eq!((found, failures), (Some(vec![2, 1, 3]), Vec::new()));
        let (found, failures) = pair(&["attn", "attn", "attn"]);
        assert_eq!(found, None);
        let names = |name: &str| vec![name.to_owned()];
        let missing = Failure::MissingNames {
            names: names("attn"),
        };
        let extra = Failure::ExtraNames { names: names("fc") };
        assert_eq!(failures, [missing, extra]);
    }
}
