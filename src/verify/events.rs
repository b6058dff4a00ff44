//! Records of event streams integrated into frames.

use super::check::relative_error;
use super::outcome::{Failure, Form, Outcome};
use super::{Record, RecordError};
use zoo_events::{Event, EventsError, Recording, frames, resize};
use zoo_weights::formula::Formula;

/// Microseconds over which the record's events are spread.
const SPAN: f64 = 1_000_003.0;

/// `frames` exactly, `resized` within 1e-9.
pub(super) fn verify(record: &Record) -> Result<Outcome, RecordError> {
    let mut outcome = Outcome::of(&record.name);
    outcome.tolerance = 1e-9;
    let of = |key: &str| record.config[key].as_u64().map(|n| n as usize);
    let (Some(count), Some(width), Some(height), Some(bins), Some(size)) =
        (of("n"), of("W"), of("H"), of("time_bins"), of("size"))
    else {
        outcome.model = Err("its config does not say n, W, H, time_bins and size".to_owned());
        return Ok(outcome);
    };
    outcome.model = Ok("events to frames".to_owned());
    let recorded = record.values()?;
    let recording = recording(&record.salt, count, [width, height]);
    match integrate(&recording, bins, size) {
        Ok(values) => {
            for (name, found) in values {
                let error = recorded.get(name).and_then(|r| relative_error(&found, r));
                outcome.decide(name, Form::Plain, error);
            }
        }
        Err(e) => outcome.failures.push(Failure::Engine {
            reason: e.to_string(),
        }),
    }
    Ok(outcome)
}

fn integrate(
    recording: &Recording,
    bins: usize,
    size: usize,
) -> Result<[(&'static str, Vec<f64>); 2], EventsError> {
    let frames = frames(recording, bins)?;
    let resized = resize(&frames, size, size)?;
    let counts = frames.counts.iter().map(|n| f64::from(*n)).collect();
    Ok([("frames", counts), ("resized", resized.values)])
}

/// t sorted, x, y and p in the order they were drawn.
fn recording(salt: &str, count: usize, [width, height]: [usize; 2]) -> Recording {
    let formula = Formula {
        salt: salt.to_owned(),
        gain: 1.0,
    };
    let draw = |name: &str, below: f64| -> Vec<i64> {
        let uniform = formula.uniform(name, count);
        uniform.map(|u| (u * below).floor() as i64).collect()
    };
    let mut t = draw("t", SPAN);
    t.sort_unstable();
    let (x, y, p) = (
        draw("x", width as f64),
        draw("y", height as f64),
        draw("p", 2.0),
    );
    let event = |i: usize| Event {
        t: t[i],
        x: x[i] as u16,
        y: y[i] as u16,
        on: p[i] == 1,
    };
    Recording::new((0..count).map(event).collect(), Some([width, height]))
}
