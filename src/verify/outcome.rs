//! What came of a record, as data.

use serde::Serialize;

/// The form of the model that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As trained.
    Plain,
    /// After `fuse()`.
    Fused,
}

/// The error of one output.
#[derive(Debug, Clone, Serialize)]
pub struct OutputError {
    /// Name of the output.
    pub output: String,
    /// The form that ran.
    pub form: Form,
    /// max |a - b| / max |b|, or `None` where the model shows no such output.
    pub relative_error: Option<f64>,
    /// Whether a large error here fails the record.
    pub decides: bool,
}

/// Why a record fails.
#[derive(Debug, Clone, Serialize, PartialEq)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub enum Failure {
    /// The number of parameters differs.
    Params {
        /// The record's.
        recorded: u64,
        /// The model's.
        found: u64,
    },
    /// Tensors that only the record has.
    MissingNames {
        /// Their names.
        names: Vec<String>,
    },
    /// Tensors that only the model has.
    ExtraNames {
        /// Their names.
        names: Vec<String>,
    },
    /// Tensors of another shape.
    Shapes {
        /// Name, recorded shape, the model's shape.
        differ: Vec<(String, Vec<i64>, Vec<i64>)>,
    },
    /// An output of another shape.
    OutputShape {
        /// Its name.
        output: String,
        /// The record's.
        recorded: Vec<i64>,
        /// The model's.
        found: Vec<i64>,
    },
    /// An output further away than the tolerance, or not there.
    Output {
        /// Its name.
        output: String,
        /// The form that ran.
        form: Form,
    },
    /// The model did not run.
    Engine {
        /// Why.
        reason: String,
    },
}

/// What came of a record.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Name of the record.
    pub record: String,
    /// The zoo's name of the model that ran, or why none did.
    pub model: Result<String, String>,
    /// Compared tensors of the state_dict.
    pub names: usize,
    /// Largest relative error allowed.
    pub tolerance: f64,
    /// Errors by output and form.
    pub outputs: Vec<OutputError>,
    /// Empty when the record holds.
    pub failures: Vec<Failure>,
}

impl Outcome {
    /// Nothing yet: neither a model nor an output.
    pub(super) fn of(record: &str) -> Self {
        Outcome {
            record: record.to_owned(),
            model: Err(String::new()),
            names: 0,
            tolerance: 0.0,
            outputs: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Adds an output that decides, and a failure where it is absent or beyond the tolerance.
    pub(super) fn decide(&mut self, output: &str, form: Form, error: Option<f64>) {
        if error.is_none_or(|e| e.is_nan() || e > self.tolerance) {
            self.failures.push(Failure::Output {
                output: output.to_owned(),
                form,
            });
        }
        self.outputs.push(OutputError {
            output: output.to_owned(),
            form,
            relative_error: error,
            decides: true,
        });
    }

    /// Whether the record ran and holds.
    pub fn passed(&self) -> bool {
        self.model.is_ok() && self.failures.is_empty()
    }

    /// The largest error of the outputs that count, or of all where none does.
    pub fn worst(&self, form: Form) -> Option<f64> {
        let of = |decides: bool| {
            self.outputs
                .iter()
                .filter(|o| o.form == form && o.decides == decides)
                .filter_map(|o| o.relative_error)
                .reduce(f64::max)
        };
        of(true).or_else(|| of(false))
    }
}
