//! Strict loading: what a model wants held against what a checkpoint has. Nothing loads "mostly".

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Serialize;
use thiserror::Error;

use crate::checkpoint::Checkpoint;
use crate::dtype::count_non_finite;
use crate::error::{Listed, ReadError};

/// A tensor that a model has a place for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name in the model.
    pub name: String,
    /// Shape in the model.
    pub shape: Vec<usize>,
    /// Whether the model can do without it (a buffer that it computes).
    pub optional: bool,
}

impl Wanted {
    /// A tensor that must be there.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Wanted {
        Wanted {
            name: name.into(),
            shape: shape.into(),
            optional: false,
        }
    }

    /// The same, but the model can do without it.
    pub fn optional(self) -> Wanted {
        Wanted {
            optional: true,
            ..self
        }
    }
}

/// A tensor whose shape in the checkpoint is not the model's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Misshapen {
    /// Its name.
    pub name: String,
    /// Shape in the model.
    pub wanted: Vec<usize>,
    /// Shape in the checkpoint.
    pub found: Vec<usize>,
}

/// Every tensor of a model and of a checkpoint, each in one list (those with bad values in one more).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoadReport {
    /// In both, with the same shape.
    pub applied: Vec<String>,
    /// Wanted and not there.
    pub missing: Vec<String>,
    /// Not there, but the model can do without.
    pub absent_optional: Vec<String>,
    /// There and not wanted.
    pub unused: Vec<String>,
    /// In both, with different shapes.
    pub misshapen: Vec<Misshapen>,
    /// Applied, but with values that are infinite or not a number.
    pub non_finite: Vec<String>,
}

impl LoadReport {
    /// Holds `wanted` against the tensors of a checkpoint and looks at their values.
    ///
    /// # Errors
    /// [`ReadError`] when the bytes of a tensor are damaged.
    pub fn compare(wanted: &[Wanted], checkpoint: &Checkpoint) -> Result<LoadReport, ReadError> {
        let found: Vec<_> = checkpoint
            .tensors()
            .iter()
            .map(|t| (t.name.as_str(), t.shape.as_slice()))
            .collect();
        let mut report = LoadReport::compare_shapes(wanted, &found);
        for name in &report.applied {
            let bytes = checkpoint.bytes(name)?;
            let dtype = checkpoint.get(name).map(|info| info.dtype);
            if dtype.is_some_and(|dtype| count_non_finite(dtype, &bytes) > 0) {
                report.non_finite.push(name.clone());
            }
        }
        Ok(report)
    }

    /// Holds `wanted` against names and shapes; `non_finite` stays empty.
    pub fn compare_shapes(wanted: &[Wanted], found: &[(&str, &[usize])]) -> LoadReport {
        let shapes: HashMap<_, _> = found.iter().copied().collect();
        let names: HashSet<_> = wanted.iter().map(|w| w.name.as_str()).collect();
        let mut report = LoadReport::default();
        for Wanted {
            name,
            shape,
            optional,
        } in wanted
        {
            match shapes.get(name.as_str()) {
                Some(found) if found == shape => report.applied.push(name.clone()),
                Some(found) => {
                    let (name, wanted, found) = (name.clone(), shape.clone(), found.to_vec());
                    report.misshapen.push(Misshapen {
                        name,
                        wanted,
                        found,
                    });
                }
                None if *optional => report.absent_optional.push(name.clone()),
                None => report.missing.push(name.clone()),
            }
        }
        report.unused = found
            .iter()
            .filter(|(name, _)| !names.contains(name))
            .map(|(name, _)| (*name).into())
            .collect();
        report
    }

    /// `Ok` when every tensor is applied, with finite values and no other left over, but for the allowed extras.
    ///
    /// # Errors
    /// [`LoadError`] with everything that is not right.
    pub fn check(&self, allowed: &AllowedExtras) -> Result<(), LoadError> {
        let refused = |names: &[String], patterns: &[String]| -> Vec<String> {
            names
                .iter()
                .filter(|name| !patterns.iter().any(|p| matches(p, name)))
                .cloned()
                .collect()
        };
        let error = LoadError {
            applied: self.applied.len(),
            missing: refused(&self.missing, &allowed.missing),
            unused: refused(&self.unused, &allowed.unused),
            misshapen: self.misshapen.clone(),
            non_finite: self.non_finite.clone(),
        };
        if error.is_empty() { Ok(()) } else { Err(error) }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors applied", self.applied.len())?;
        if !self.absent_optional.is_empty() {
            write!(
                f,
                "; {} optional absent: {}",
                self.absent_optional.len(),
                Listed(&self.absent_optional)
            )?;
        }
        differences(
            f,
            &self.missing,
            &self.unused,
            &self.misshapen,
            &self.non_finite,
        )
    }
}

fn differences(
    f: &mut fmt::Formatter<'_>,
    missing: &[String],
    unused: &[String],
    misshapen: &[Misshapen],
    non_finite: &[String],
) -> fmt::Result {
    let shapes = |m: &Misshapen| format!("{} (wanted {:?}, found {:?})", m.name, m.wanted, m.found);
    let misshapen: Vec<_> = misshapen.iter().map(shapes).collect();
    let lists = [
        ("missing", missing),
        ("unused", unused),
        ("misshapen", &misshapen),
        ("not finite", non_finite),
    ];
    for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
        write!(f, "; {} {what}: {}", names.len(), Listed(names))?;
    }
    Ok(())
}

/// A checkpoint that does not fit a model: everything that is wrong, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Error)]
pub struct LoadError {
    /// How many tensors would fit.
    pub applied: usize,
    /// Wanted, not there and not allowed to be missing.
    pub missing: Vec<String>,
    /// There, not wanted and not allowed.
    pub unused: Vec<String>,
    /// In both, with different shapes.
    pub misshapen: Vec<Misshapen>,
    /// With values that are infinite or not a number.
    pub non_finite: Vec<String>,
}

impl LoadError {
    fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unused.is_empty()
            && self.misshapen.is_empty()
            && self.non_finite.is_empty()
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the weights do not fit the model and were not loaded ({} tensors would fit)",
            self.applied
        )?;
        differences(
            f,
            &self.missing,
            &self.unused,
            &self.misshapen,
            &self.non_finite,
        )
    }
}

/// Which tensors may be missing or left over. In a pattern `*` stands for any text, also none.
///
/// The default allows the batch counters of batch norms, `*num_batches_tracked`, which inference does not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedExtras {
    missing: Vec<String>,
    unused: Vec<String>,
}

impl Default for AllowedExtras {
    fn default() -> Self {
        let counters: Vec<String> = ["num_batches_tracked", "*.num_batches_tracked"]
            .map(Into::into)
            .into();
        AllowedExtras {
            missing: counters.clone(),
            unused: counters,
        }
    }
}

impl AllowedExtras {
    /// Also allows tensors of the model to be missing.
    pub fn and_missing<'p>(mut self, patterns: impl IntoIterator<Item = &'p str>) -> Self {
        self.missing.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Also allows tensors of the checkpoint to be left over.
    pub fn and_unused<'p>(mut self, patterns: impl IntoIterator<Item = &'p str>) -> Self {
        self.unused.extend(patterns.into_iter().map(Into::into));
        self
    }
}

/// Whether `name` is what `pattern` describes, `*` standing for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = rest
        .rsplit_once('*')
        .map_or(("", rest), |(middle, end)| (middle, end));
    for part in middle.split('*') {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests;
