//! Records of input encodings.

use super::check::{formula, relative_error};
use super::outcome::{Failure, Form, Outcome};
use super::rule::Check;
use super::{Record, RecordError};
use tch::{Kind, Tensor};
use zoo_ops::spiking::{Encoding, rate_from};
use zoo_weights::formula::Spread;

/// Uniform in [0, 1).
const UNIT: Spread = Spread {
    lo: 0.0,
    hi: 1.0,
    pow: 1.0,
    floor: false,
};

/// `encoded` from the formula's input, `encoded_edge` from the stored `edge_input`; in float64.
pub(super) fn verify(record: &Record, check: &Check) -> Result<Outcome, RecordError> {
    let mut outcome = Outcome::of(&record.name);
    outcome.tolerance = check.exact_tolerance();
    let name = record.config["type"].as_str().unwrap_or_default();
    let (Ok(encoding), Some(steps)) = (name.parse::<Encoding>(), record.config["step"].as_i64())
    else {
        outcome.model = Err(format!(
            "no code for the encoding `{name}` yet, or no `step` in its config"
        ));
        return Ok(outcome);
    };
    outcome.model = Ok(format!("encoding {name}"));
    let recorded = record.values()?;
    let shape = record.input_shape.clone().unwrap_or_default();
    let edge_shape = record
        .outputs
        .get("edge_input")
        .cloned()
        .unwrap_or_default();
    let edge = recorded.get("edge_input").cloned().unwrap_or_default();
    if edge.len() as i64 != edge_shape.iter().product::<i64>() || shape.is_empty() {
        let reason = "`input_shape` or the shape of `edge_input` is missing".to_owned();
        outcome.failures.push(Failure::Engine { reason });
        return Ok(outcome);
    }
    let cases = [
        ("encoded", "rate", uniform(record, "input", &shape)),
        (
            "encoded_edge",
            "rate_edge",
            Tensor::from_slice(&edge).reshape(&edge_shape),
        ),
    ];
    for (output, drawn, input) in cases {
        let Some(expected) = recorded.get(output) else {
            continue;
        };
        let encoded = match encoding {
            // The record's random numbers are the formula's.
            Encoding::Rate { .. } => {
                let mut shape = input.size();
                shape[0] *= steps;
                rate_from(&input, &uniform(record, drawn, &shape), steps)
            }
            encoding => encoding.encode(&input, steps),
        };
        let found = Vec::<f64>::try_from(encoded.flatten(0, -1)).unwrap_or_default();
        outcome.decide(output, Form::Plain, relative_error(&found, expected));
    }
    Ok(outcome)
}

fn uniform(record: &Record, name: &str, shape: &[i64]) -> Tensor {
    let unsigned: Vec<usize> = shape.iter().map(|n| n.unsigned_abs() as usize).collect();
    let values = formula(record).fill_spread(name, &unsigned, UNIT);
    Tensor::from_slice(&values)
        .to_kind(Kind::Double)
        .reshape(shape)
}
