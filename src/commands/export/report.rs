//! What an export is told as: a line, JSON, a row of a Markdown table.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zoo::export::Verification;

/// Name of the JSON schema.
pub const SCHEMA: &str = "zoo.export/1";

/// All exports of a call.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    pub exports: Vec<Exported>,
}

/// One export.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exported {
    pub model: String,
    /// Height and width, where they are not the published ones.
    pub size: Option<[i64; 2]>,
    /// Empty where it was discarded.
    pub file: String,
    pub weights: String,
    pub bytes: u64,
    /// Operators, all and by kind.
    pub nodes: usize,
    pub kinds: BTreeMap<String, usize>,
    /// `null` with --no-verify.
    pub verification: Option<Verification>,
    pub error: Option<String>,
}

impl Exported {
    /// The model, and its input's height and width where they are not the published ones.
    pub fn name(&self) -> String {
        match self.size {
            Some([height, width]) => format!("{} {height}x{width}", self.model),
            None => self.model.clone(),
        }
    }

    /// For people.
    pub fn line(&self) -> String {
        if let Some(error) = &self.error {
            return format!("{}: FAILED: {error}", self.name());
        }
        let file = match self.file.as_str() {
            "" => String::new(),
            file => format!(", {file}"),
        };
        let size = self.bytes as f64 / 1e6;
        let written = format!(
            "{}: {} operators, {size:.1} MB{file}, weights {}",
            self.name(),
            self.nodes,
            self.weights
        );
        match &self.verification {
            Some(v) => format!("{written}; {}", held(v)),
            None => format!("{written}; NOT verified"),
        }
    }
}

fn held(v: &Verification) -> String {
    let mut text = format!(
        "equal to libtorch within {:.1e} of the largest logit on {} of {} inputs (random ones in batches of {:?}), same top-1 \
         on {} of {} images",
        v.max_relative_difference,
        v.inputs - v.decided_otherwise,
        v.inputs,
        v.random_batches,
        v.same_top1,
        v.images
    );
    if v.decided_otherwise > 0 {
        text += &format!(
            "; on {} inputs a decision fell otherwise: {:.1e} apart, where libtorch's own logits move by {:.1e} under changes \
             as small as rounding",
            v.decided_otherwise, v.max_decided_difference, v.own_rounding
        );
    }
    text
}

/// What the columns of [`row`] are.
pub const COLUMNS: [&str; 7] = [
    "model",
    "weights",
    "operators",
    "MB",
    "max difference",
    "decided otherwise",
    "same top-1",
];

/// An export's cells in a table.
pub fn row(e: &Exported) -> [String; 7] {
    let (difference, decided, top1) = match (&e.error, &e.verification) {
        (Some(error), _) => (format!("FAILED: {error}"), String::new(), String::new()),
        (None, None) => ("not verified".to_owned(), String::new(), String::new()),
        (None, Some(v)) => (
            format!("{:.1e}", v.max_relative_difference),
            match v.decided_otherwise {
                0 => format!("0 of {}", v.inputs),
                n => format!(
                    "{n} of {}: {:.1e}, libtorch {:.1e}",
                    v.inputs, v.max_decided_difference, v.own_rounding
                ),
            },
            match v.images {
                0 => "no images".to_owned(),
                images => format!("{} of {images}", v.same_top1),
            },
        ),
    };
    [
        e.name(),
        e.weights.clone(),
        e.nodes.to_string(),
        format!("{:.1}", e.bytes as f64 / 1e6),
        difference,
        decided,
        top1,
    ]
}
