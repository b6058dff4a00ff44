//! Energies of a profile: estimated from counts, measured by a counter.

use super::{Arguments, open, run};
use crate::commands::bench::energy_counter;
use crate::commands::energy::{ONES, print_summary};
use crate::commands::output::print;
use anyhow::{Context, Result};
use serde::Serialize;
use tch::Tensor;
use zoo::backbones::Variant;
use zoo::counting::graph_counts;
use zoo::energy::Summary;
use zoo::eval::bench::{Clock, SystemClock};
use zoo::graph::Graph;
use zoo::graph::cost::Costs;
use zoo::power::{Energy, Window};
use zoo::runtime::{Engine, Session};

/// Seconds of work from the first to the last tick of the counter.
const SECONDS: f64 = 2.0;

/// Estimates and what they are computed from; what was measured.
#[derive(Serialize)]
pub(super) struct Energies {
    /// `graph`, or `images` for spiking networks.
    pub counts: &'static str,
    measured: Measured,
    #[serde(flatten)]
    summary: Summary,
}

/// A counter's figure of the form that runs.
#[derive(Serialize)]
struct Measured {
    /// Images of a call.
    batch: i64,
    #[serde(flatten)]
    energy: Energy,
}

pub(super) fn energies(
    arguments: &Arguments,
    session: &Session,
    graph: &Graph,
    costs: &Costs,
) -> Result<Energies> {
    let (counts, summary) = estimated(arguments, session, graph, costs)?;
    Ok(Energies {
        counts,
        measured: measured(arguments, session.variant())?,
        summary,
    })
}

/// From the graph, but for spiking networks: what they skip is seen on images only.
fn estimated(
    arguments: &Arguments,
    session: &Session,
    graph: &Graph,
    costs: &Costs,
) -> Result<(&'static str, Summary)> {
    let plain = open(arguments, session.variant(), true)?;
    if let Some((average, data)) = run::spikes(arguments, &plain)? {
        let images = average.images() as u64;
        let summary = Summary::new(average.counts(), images, data, ONES);
        return Ok(("images", summary));
    }
    let counts = graph_counts(graph, costs);
    let data = "counted from the graph, all numbers taken for not zero".to_owned();
    Ok(("graph", Summary::new(&counts, 1, data, ONES)))
}

/// What the device uses while the form that runs by default takes a batch over and over.
fn measured(arguments: &Arguments, variant: &'static Variant) -> Result<Measured> {
    let batch = arguments.batch;
    let mut counter = match energy_counter(arguments.run.device) {
        Ok(counter) => counter,
        Err(e) => {
            let reason = e.to_string();
            let energy = Energy::Unavailable { reason };
            return Ok(Measured { batch, energy });
        }
    };
    let mut session = open(arguments, variant, false)?;
    let x = input(arguments, &session)?;
    let x = Engine::prepare(&session, &x);
    let clock = SystemClock::default();
    let call = || {
        let _logits = Engine::logits(&mut session, &x)?;
        session.synchronize();
        Ok::<_, zoo::runtime::EngineError>(())
    };
    let energy = Window::of(SECONDS).measure(counter.as_mut(), || clock.now_s(), call);
    let energy = energy.context("measuring energy")?;
    Ok(Measured { batch, energy })
}

/// As many of the images as a batch has, from the beginning again where there are fewer.
fn input(arguments: &Arguments, session: &Session) -> Result<Tensor> {
    let mut parts = Vec::new();
    run::each(arguments, session, |x, _| {
        parts.push(x.shallow_clone());
        Ok(())
    })?;
    let all = Tensor::cat(&parts, 0);
    let index: Vec<i64> = (0..arguments.batch).map(|i| i % all.size()[0]).collect();
    Ok(all.index_select(0, &Tensor::from_slice(&index)))
}

impl Energies {
    pub(super) fn print(&self) -> Result<()> {
        print(match self.counts {
            "graph" => "energy, ESTIMATED from the graph's counts (docs/energy.md):",
            _ => "energy, ESTIMATED from the work on images (docs/energy.md):",
        })?;
        print_summary(&self.summary)?;
        print(self.measured.line())
    }
}

impl Measured {
    fn line(&self) -> String {
        match &self.energy {
            Energy::Measured(m) => format!(
                "energy, MEASURED: {:.3} mJ an image at batch {}, {:.1} W over {:.1} s and {} ticks, idle power included ({})",
                1e3 * m.joules_per_call / self.batch as f64,
                self.batch,
                m.watts,
                m.seconds,
                m.ticks,
                m.source
            ),
            Energy::Unavailable { reason } => format!("energy, MEASURED: unavailable: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_of_one_image() {
        let energy = Energy::Measured(zoo::power::Measured {
            source: "a meter".to_owned(),
            joules_per_call: 0.5,
            watts: 20.0,
            seconds: 2.0,
            calls: 80,
            ticks: 10,
        });
        let line = Measured { batch: 4, energy }.line();
        assert!(line.contains("125.000 mJ an image at batch 4"), "{line}");
        let reason = "no counter".to_owned();
        let energy = Energy::Unavailable { reason };
        let line = Measured { batch: 4, energy }.line();
        assert!(line.ends_with("unavailable: no counter"), "{line}");
    }
}
