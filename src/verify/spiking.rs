//! What records of spiking networks have beyond others: constants set after the formula, firing rates, exchanged neurons.

use super::Record;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use tch::Tensor;
use zoo_backbones::SpikingOptions;
use zoo_ops::spiking::NeuronKind;
use zoo_ops::work::Work;

/// The names of the neuron layers of each stage: `config.rates_layers`.
fn rates_layers(record: &Record) -> Vec<Vec<String>> {
    let layers = record.config.get("rates_layers").cloned();
    layers
        .and_then(|l| serde_json::from_value(l).ok())
        .unwrap_or_default()
}

/// Whether firing rates are recorded.
pub(super) fn has_rates(record: &Record) -> bool {
    record.outputs.keys().any(|name| is_rates(name))
}

/// Whether an output is the firing rates of a stage.
pub(super) fn is_rates(output: &str) -> bool {
    output.starts_with("rates.")
}

/// `rates.i`: the mean output of every call of the layers of stage i, in the record's order. A layer called more than
/// once gives its calls one after another; one that was not called leaves its stage out.
pub(super) fn rates(record: &Record, work: &Work) -> BTreeMap<String, Tensor> {
    let mut calls: BTreeMap<&str, VecDeque<f64>> = BTreeMap::new();
    for call in &work.neurons {
        calls.entry(&call.layer).or_default().push_back(call.rate);
    }
    let mut rates = BTreeMap::new();
    for (stage, layers) in rates_layers(record).iter().enumerate() {
        let of_stage: Option<Vec<f64>> = layers
            .iter()
            .map(|layer| calls.get_mut(layer.as_str())?.pop_front())
            .collect();
        if let Some(values) = of_stage {
            rates.insert(format!("rates.{stage}"), Tensor::from_slice(&values));
        }
    }
    rates
}

/// `stages.i` is the output of the module that `config.stages` names, where the model shows that.
pub(super) fn stages(record: &Record, seen: &mut BTreeMap<String, Tensor>) {
    let names = record.config.get("stages").and_then(Value::as_array);
    for (i, module) in names.into_iter().flatten().enumerate() {
        if let Some(shown) = module.as_str().and_then(|name| seen.get(name)) {
            let shown = shown.shallow_clone();
            seen.insert(format!("stages.{i}"), shown);
        }
    }
}

/// Official code that averages over the batch gives the logits of one image without an axis for it.
pub(super) fn without_batch(record: &Record, seen: &mut BTreeMap<String, Tensor>) {
    let (Some(recorded), Some(found)) = (record.outputs.get("logits"), seen.get("logits")) else {
        return;
    };
    if found.size().split_first() == Some((&1, recorded.as_slice())) {
        let squeezed = found.squeeze_dim(0);
        seen.insert("logits".to_owned(), squeezed);
    }
}

/// `config.overrides`: tensors that are constants after the formula fill, one number or one for each element.
pub(super) fn overrides(record: &Record) -> BTreeMap<String, Vec<f32>> {
    let Some(overrides) = record.config.get("overrides").and_then(Value::as_object) else {
        return BTreeMap::new();
    };
    let mut constants = BTreeMap::new();
    for (name, value) in overrides {
        let mut numbers = Vec::new();
        collect(value, &mut numbers);
        constants.insert(name.clone(), numbers);
    }
    constants
}

fn collect(value: &Value, numbers: &mut Vec<f32>) {
    match value {
        Value::Array(inner) => inner.iter().for_each(|v| collect(v, numbers)),
        other => numbers.extend(other.as_f64().map(|v| v as f32)),
    }
}

/// `step_spikformer_cifar_plif` is `step_spikformer_cifar` with PLIF neurons.
pub(super) fn without_neuron(name: &str) -> Option<(&str, NeuronKind)> {
    let (model, neuron) = name.rsplit_once('_')?;
    Some((model, neuron.parse().ok()?))
}

/// The record's time steps and neuron.
pub(super) fn options(record: &Record, neuron: Option<NeuronKind>) -> SpikingOptions {
    SpikingOptions {
        neuron,
        steps: record.config.get("step").and_then(Value::as_i64),
        ..SpikingOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zoo_ops::work::NeuronCall;

    fn record(config: Value) -> Record {
        serde_json::from_value(serde_json::json!({ "name": "r", "config": config })).unwrap()
    }

    #[test]
    fn rates_follow_the_records_order_and_repeated_calls() {
        let record = record(serde_json::json!({ "rates_layers": [["b", "a", "b"], ["c"]] }));
        let call = |layer: &str, rate| NeuronCall {
            layer: layer.to_owned(),
            elements: 1,
            steps: 1,
            rate,
            nonzero: rate,
        };
        let work = Work {
            neurons: vec![call("a", 0.5), call("b", 0.25), call("b", 0.75)],
            ..Work::default()
        };
        let rates = rates(&record, &work);
        assert_eq!(rates.len(), 1, "c was not called");
        assert!(rates["rates.0"].equal(&Tensor::from_slice(&[0.25, 0.5, 0.75])));
    }

    #[test]
    fn overrides_are_numbers_or_nested_lists() {
        let record = record(serde_json::json!({ "overrides": { "a": 0.5, "b": [[1, 2]] } }));
        let constants = overrides(&record);
        assert_eq!(constants["a"], [0.5]);
        assert_eq!(constants["b"], [1.0, 2.0]);
    }

    #[test]
    fn a_neuron_may_end_the_name() {
        let (model, neuron) = without_neuron("step_spikformer_cifar_plif").unwrap();
        assert_eq!((model, neuron), ("step_spikformer_cifar", NeuronKind::Plif));
        assert!(without_neuron("step_spikformer_cifar").is_none());
    }
}
