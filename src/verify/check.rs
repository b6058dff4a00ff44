//! One record against one model.

use super::outcome::{Failure, Form, Outcome, OutputError};
use super::rule::Check;
use super::{Record, RecordError, StateEntry, spiking};
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;
use zoo_backbones::Variant;
use zoo_ops::spiking::NeuronKind;
use zoo_runtime::{Head, Options, Precision, Session, SessionError, WeightsSource};
use zoo_weights::formula::Formula;

/// Elements kept of an output other than `logits`.
const SAMPLES: i64 = 512;

/// Runs a record: names and shapes first, then every output of the plain and of the fused form.
///
/// A record that this version has no code for is no error: `Outcome::model` says why it did not run.
pub fn verify(record: &Record, check: &Check) -> Result<Outcome, RecordError> {
    let mut outcome = Outcome::of(&record.name);
    match record.kind.as_deref() {
        Some("neuron") => return super::neuron::verify(record, check),
        Some("encoding") => return super::encoding::verify(record, check),
        Some("events") => return super::events::verify(record),
        Some("energy") => return super::energy::verify(record, check),
        _ => {}
    }
    let (variant, shape, neuron) = match runnable(record) {
        Ok(found) => found,
        Err(reason) => {
            outcome.model = Err(reason);
            return Ok(outcome);
        }
    };
    outcome.model = Ok(variant.name.to_owned());
    let recorded = record.values()?;
    let subject = Subject {
        variant,
        size: size(shape),
        neuron,
    };
    for form in [Form::Plain, Form::Fused] {
        let session = match open(record, &subject, check, form) {
            Ok(session) => session,
            Err(e) => {
                outcome.failures.push(Failure::Engine {
                    reason: e.to_string(),
                });
                break;
            }
        };
        if form == Form::Plain {
            compare_state(record, &session, &mut outcome);
        }
        compare_outputs(
            record,
            &recorded,
            &session,
            (shape, form),
            check,
            &mut outcome,
        );
    }
    Ok(outcome)
}

/// What a record is of.
struct Subject {
    variant: &'static Variant,
    size: Option<[i64; 2]>,
    neuron: Option<NeuronKind>,
}

/// Height and width of images, frames and clips; sequences and points are as long as published.
fn size(shape: &[i64]) -> Option<[i64; 2]> {
    match shape {
        [_, _, .., height, width] => Some([*height, *width]),
        _ => None,
    }
}

type Found<'a> = (&'static Variant, &'a [i64], Option<NeuronKind>);

/// The model, the input shape and the exchanged neuron of a record, or why it can not be run.
fn runnable(record: &Record) -> Result<Found<'_>, String> {
    if let Some(kind) = &record.kind {
        return Err(format!("no code for records of kind `{kind}` yet"));
    }
    let Some(shape) = &record.input_shape else {
        return Err("no code for records without `input_shape` (operators) yet".to_owned());
    };
    let name = record.model.as_deref().unwrap_or(&record.name);
    let plain = without_size(name);
    let found = zoo_backbones::find(name).or_else(|| zoo_backbones::find(plain));
    if let Some(variant) = found {
        return Ok((variant, shape, None));
    }
    spiking::without_neuron(plain)
        .and_then(|(name, neuron)| Some((zoo_backbones::find(name)?, neuron)))
        .map(|(variant, neuron)| (variant, shape.as_slice(), Some(neuron)))
        .ok_or_else(|| format!("no model `{name}` in this zoo (a record may name one as `model`)"))
}

/// `biformer_tiny_256x128` is `biformer_tiny` at another size.
fn without_size(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((model, size)) if size.split('x').all(|n| n.parse::<u32>().is_ok()) => model,
        _ => name,
    }
}

fn open(
    record: &Record,
    subject: &Subject,
    check: &Check,
    form: Form,
) -> Result<Session, SessionError> {
    let classes = record.config.get("num_classes").and_then(|n| n.as_i64());
    let head = classes.map_or(Head::Published, Head::Classes);
    let options = Options {
        precision: check.precision,
        fuse: form == Form::Fused,
        head,
        size: subject.size,
        spiking: spiking::options(record, subject.neuron),
        ..check.options.clone()
    };
    let weights = WeightsSource::Overridden {
        formula: formula(record),
        constants: spiking::overrides(record),
    };
    Session::open(subject.variant, &weights, &options)
}

/// The model of a record in float64, and the input; or why it can not be run.
pub(super) fn model_session(
    record: &Record,
    check: &Check,
    form: Form,
) -> Result<(&'static Variant, Session, Tensor), String> {
    let (variant, shape, neuron) = runnable(record)?;
    let subject = Subject {
        variant,
        size: size(shape),
        neuron,
    };
    let exact = Check {
        precision: Precision::F64,
        ..check.clone()
    };
    let session = open(record, &subject, &exact, form).map_err(|e| e.to_string())?;
    Ok((variant, session, input(record, shape)))
}

/// The formula's input of this shape.
fn input(record: &Record, shape: &[i64]) -> Tensor {
    let unsigned: Vec<usize> = shape.iter().map(|n| n.unsigned_abs() as usize).collect();
    Tensor::from_slice(&formula(record).fill_input(&unsigned)).reshape(shape)
}

pub(super) fn formula(record: &Record) -> Formula {
    Formula {
        salt: record.salt.clone(),
        gain: record.gain,
    }
}

fn compare_state(record: &Record, session: &Session, outcome: &mut Outcome) {
    compare_names(record, session.state(), outcome);
    let found = session.params();
    if let Some(recorded) = record.num_params.filter(|n| *n != found) {
        outcome.failures.push(Failure::Params { recorded, found });
    }
}

/// Names and shapes of a state_dict; buffers need not be ours.
pub(super) fn compare_names(record: &Record, state: &[(String, Vec<i64>)], outcome: &mut Outcome) {
    let ours: BTreeMap<&str, &[i64]> = state
        .iter()
        .map(|(name, shape)| (name.as_str(), shape.as_slice()))
        .collect();
    let theirs: BTreeSet<&str> = record.state_dict.iter().map(|e| e.0.as_str()).collect();
    let required = record.state_dict.iter().filter(|e| e.2 != "buffer");
    let missing: Vec<String> = required
        .filter(|e| !ours.contains_key(e.0.as_str()))
        .map(|e| e.0.clone())
        .collect();
    let extra: Vec<String> = ours
        .keys()
        .filter(|name| !theirs.contains(*name))
        .map(|name| (*name).to_owned())
        .collect();
    let differ: Vec<_> = record
        .state_dict
        .iter()
        .filter_map(|StateEntry(name, shape, _)| {
            let found = *ours.get(name.as_str())?;
            (found != shape).then(|| (name.clone(), shape.clone(), found.to_vec()))
        })
        .collect();
    outcome.names = ours.len();
    if !missing.is_empty() {
        outcome
            .failures
            .push(Failure::MissingNames { names: missing });
    }
    if !extra.is_empty() {
        outcome.failures.push(Failure::ExtraNames { names: extra });
    }
    if !differ.is_empty() {
        outcome.failures.push(Failure::Shapes { differ });
    }
}

fn compare_outputs(
    record: &Record,
    recorded: &BTreeMap<String, Vec<f64>>,
    session: &Session,
    (shape, form): (&[i64], Form),
    check: &Check,
    outcome: &mut Outcome,
) {
    let input = input(record, shape);
    let seen = match observe(record, session, &input) {
        Ok(seen) => seen,
        Err(e) => {
            let reason = e.to_string();
            outcome.failures.push(Failure::Engine { reason });
            return;
        }
    };
    let rule = check.rule(record, session);
    outcome.tolerance = rule.tolerance;
    for (name, values) in recorded {
        let found = seen.get(name);
        if let (Some(t), Some(shape)) = (found, record.outputs.get(name))
            && t.size() != *shape
        {
            outcome.failures.push(Failure::OutputShape {
                output: name.clone(),
                recorded: shape.clone(),
                found: t.size(),
            });
            continue;
        }
        let error = found.and_then(|t| relative_error(&sampled(name, t), values));
        let decides = rule.decides(name);
        if decides && error.is_none_or(|e| e.is_nan() || e > rule.tolerance) {
            outcome.failures.push(Failure::Output {
                output: name.clone(),
                form,
            });
        }
        outcome.outputs.push(OutputError {
            output: name.clone(),
            form,
            relative_error: error,
            decides,
        });
    }
}

/// Everything the model shows of an input, firing rates included where they are recorded.
fn observe(
    record: &Record,
    session: &Session,
    input: &Tensor,
) -> Result<BTreeMap<String, Tensor>, SessionError> {
    let mut seen = if spiking::has_rates(record) {
        let (mut seen, work) = session.observe(input)?;
        seen.extend(spiking::rates(record, &work));
        seen
    } else {
        session.record(input)?
    };
    spiking::stages(record, &mut seen);
    spiking::without_batch(record, &mut seen);
    Ok(seen)
}

/// The elements that a record keeps of an output: all of `logits`, else floor(j * numel / 512).
fn sampled(name: &str, t: &Tensor) -> Vec<f64> {
    let flat = t
        .to_device(tch::Device::Cpu)
        .to_kind(tch::Kind::Double)
        .contiguous()
        .flatten(0, -1);
    let numel = flat.size()[0];
    let kept = if name == "logits" || numel <= SAMPLES {
        flat
    } else {
        let index: Vec<i64> = (0..SAMPLES).map(|j| j * numel / SAMPLES).collect();
        flat.index_select(0, &Tensor::from_slice(&index))
    };
    Vec::<f64>::try_from(&kept).unwrap_or_default()
}

/// max |a - b| / max |b|; the absolute error where b is all zero; `None` where the lengths differ.
pub(super) fn relative_error(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let worst = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(0.0, |worst: f64, v| {
            // f64::max would drop a NaN.
            if worst.is_nan() || v.abs() <= worst {
                worst
            } else {
                v.abs()
            }
        })
    };
    let difference = worst(&mut a.iter().zip(b).map(|(a, b)| a - b));
    let scale = worst(&mut b.iter().copied());
    Some(if scale > 0.0 {
        difference / scale
    } else {
        difference
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_largest_value() {
        assert_eq!(relative_error(&[1.0, 4.5], &[1.0, 4.0]), Some(0.125));
        assert_eq!(relative_error(&[0.5], &[0.0]), Some(0.5));
        assert_eq!(relative_error(&[1.0], &[1.0, 2.0]), None);
        assert!(
            relative_error(&[f64::NAN, 1.0], &[1.0, 1.0])
                .unwrap()
                .is_nan()
        );
    }

    #[test]
    fn a_size_suffix_is_not_part_of_the_name() {
        assert_eq!(without_size("biformer_tiny_256x128"), "biformer_tiny");
        assert_eq!(without_size("deit_tiny_patch16_224"), "deit_tiny_patch16");
        assert_eq!(without_size("shvit_s1_dist"), "shvit_s1_dist");
    }

    #[test]
    fn samples_are_evenly_spaced() {
        let t = Tensor::arange(1024, (tch::Kind::Double, tch::Device::Cpu));
        let kept = sampled("stem", &t);
        assert_eq!((kept.len(), kept[1], kept[511]), (512, 2.0, 1022.0));
        assert_eq!(sampled("logits", &t).len(), 1024);
    }
}
