//! Which outputs of a record decide, and how near they must be.

use super::{Record, spiking};
use zoo_runtime::{Options, Precision, Session};

/// A tolerance from which logits in a format coarser than float64 tell nothing: there the firing rates count.
const CHAOTIC: f64 = 0.25;

/// Largest relative error of the firing rates then; up to 1.7e-2 was measured in float32.
const RATES_TOLERANCE: f64 = 5e-2;

/// How to compare.
#[derive(Debug, Clone)]
pub struct Check {
    /// The format to compute in.
    pub precision: Precision,
    /// Largest relative error allowed: max |a - b| / max |b| of an output. `None`: 1e-9 in float64, where every output
    /// counts; 1e-4 in float32 (more where a model says that rounding flips its decisions), 5e-3 in tf32 and 5e-2 in
    /// the half formats, where only `logits` count; 5e-2 of the firing rates alone where flipped decisions leave nothing
    /// of the logits.
    pub tolerance: Option<f64>,
    /// Where and on how many threads to run.
    pub options: Options,
}

impl Check {
    /// In this format, with the default tolerance, on all cores.
    pub fn new(precision: Precision) -> Self {
        Check {
            precision,
            tolerance: None,
            options: Options::default(),
        }
    }

    /// The tolerance for records whose values are kept whole and compared in float64.
    pub(super) fn exact_tolerance(&self) -> f64 {
        self.tolerance.unwrap_or(1e-9)
    }

    /// What is held to what, of a record of this session's model.
    pub(super) fn rule(&self, record: &Record, session: &Session) -> Rule {
        let flips = session.float32_tolerance();
        let (counts, tolerance) = match self.precision {
            Precision::F64 => (Counts::Everything, 1e-9),
            _ if flips >= CHAOTIC && spiking::has_rates(record) => (Counts::Rates, RATES_TOLERANCE),
            Precision::F32 => (Counts::Logits, flips),
            Precision::Tf32 => (Counts::Logits, flips.max(5e-3)),
            Precision::Bf16 | Precision::F16 => (Counts::Logits, flips.max(5e-2)),
        };
        Rule {
            counts,
            tolerance: self.tolerance.unwrap_or(tolerance),
        }
    }
}

/// Outputs that decide whether a record holds, and their largest relative error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    counts: Counts,
    pub tolerance: f64,
}

#[derive(Debug, Clone, Copy)]
enum Counts {
    Everything,
    Logits,
    Rates,
}

impl Rule {
    pub fn decides(self, output: &str) -> bool {
        match self.counts {
            Counts::Everything => true,
            Counts::Logits => output == "logits",
            Counts::Rates => spiking::is_rates(output),
        }
    }
}
