//! Counted multiply-accumulates, held to figures that others counted.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// How far a count may be from a figure that was counted the same way, beside half of the figure's last digit.
pub const TOLERANCE: f64 = 1e-3;

/// Figures of a file such as `tests/figures/macs.json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Models with the figures that were counted on the official modules.
    figures: Vec<Figure>,
    /// Why counts differ, by a key that figures name.
    reasons: BTreeMap<String, String>,
    /// What the claims of a source count, by the source.
    #[serde(default)]
    claims: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figure {
    models: Vec<String>,
    /// As published, such as `241.3 M`.
    macs: String,
    /// A reason, where the same thing is not counted.
    differs: Option<String>,
}

/// Figures that can not be used.
#[derive(Debug, thiserror::Error)]
pub enum FiguresError {
    /// The file can not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A count beside the figure it is held to.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// As published.
    pub figure: String,
    /// (counted - figure) / figure.
    pub difference: f64,
    /// What may be: 0.1 % and half of the figure's last digit.
    pub tolerance: f64,
    /// The reason that the file gives for a difference.
    pub differs: Option<String>,
}

impl Agreement {
    /// Whether the count agrees and nothing is said to differ, or differs as said.
    pub fn holds(&self) -> bool {
        (self.difference.abs() <= self.tolerance) == self.differs.is_none()
    }

    /// The name of the reason, or what is wrong.
    pub fn note(&self) -> Option<String> {
        match (&self.differs, self.holds()) {
            (None, true) => None,
            (Some(reason), true) => Some(reason.clone()),
            (None, false) => Some("DIFFERS, nobody says why".to_owned()),
            (Some(reason), false) => Some(format!("AGREES, against `{reason}`")),
        }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.3} % of {}", 100.0 * self.difference, self.figure)?;
        self.note().map_or(Ok(()), |note| write!(f, " ({note})"))
    }
}

impl Figures {
    /// Reads a file.
    ///
    /// # Errors
    /// [`FiguresError`]: no such file, no such form, a number that is none, a reason that is not given.
    pub fn read(path: &Path) -> Result<Figures, FiguresError> {
        let text = std::fs::read_to_string(path).map_err(|source| FiguresError::Io {
            path: path.to_owned(),
            source,
        })?;
        let form = |reason| FiguresError::Form {
            path: path.to_owned(),
            reason,
        };
        let figures: Figures = serde_json::from_str(&text).map_err(|e| form(e.to_string()))?;
        for figure in &figures.figures {
            let macs = &figure.macs;
            parse(macs).ok_or_else(|| form(format!("`{macs}` is no number of M or G")))?;
            if let Some(reason) = figure.differs.as_ref()
                && !figures.reasons.contains_key(reason)
            {
                return Err(form(format!("the reason `{reason}` is not given")));
            }
        }
        Ok(figures)
    }

    /// The models that there are figures of.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        let models = self.figures.iter().flat_map(|figure| &figure.models);
        models.map(String::as_str)
    }

    /// Holds a count to the figure of a model; `None` where there is none.
    pub fn hold(&self, model: &str, counted: u64) -> Option<Agreement> {
        let figure = self
            .figures
            .iter()
            .find(|f| f.models.iter().any(|m| m == model))?;
        let (macs, unit) = parse(&figure.macs)?;
        Some(Agreement {
            figure: figure.macs.clone(),
            difference: (counted as f64 - macs) / macs,
            tolerance: TOLERANCE + unit / 2.0 / macs,
            differs: figure.differs.clone(),
        })
    }

    /// What the claims of this source count, where the file says it.
    pub fn claims_of(&self, source: &str) -> Option<&str> {
        self.claims.get(source).map(String::as_str)
    }

    /// The reasons that figures of these models name, as items of a list.
    pub fn reasons<'a>(
        &'a self,
        models: impl Iterator<Item = &'a str>,
    ) -> impl Iterator<Item = String> + 'a {
        let models: Vec<&str> = models.collect();
        let named = move |key: &String| {
            let mut figures = self.figures.iter();
            figures.any(|figure| {
                let mut of = figure.models.iter();
                figure.differs.as_ref() == Some(key) && of.any(|m| models.contains(&m.as_str()))
            })
        };
        let reasons = self.reasons.iter().filter(move |(key, _)| named(key));
        reasons.map(|(key, text)| format!("- **{key}**: {text}"))
    }
}

/// A figure such as `241.3 M`, and the unit of its last digit.
fn parse(figure: &str) -> Option<(f64, f64)> {
    let (digits, unit) = figure.split_once(' ')?;
    let unit = match unit {
        "M" => 1e6,
        "G" => 1e9,
        _ => return None,
    };
    let number: f64 = digits
        .parse()
        .ok()
        .filter(|n: &f64| n.is_finite() && *n > 0.0)?;
    let places = digits.split_once('.').map_or(0, |(_, behind)| behind.len());
    Some((
        number * unit,
        unit / 10f64.powi(i32::try_from(places).ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(differs: Option<&str>) -> Figures {
        Figures {
            figures: vec![Figure {
                models: vec!["net".to_owned()],
                macs: "241.3 M".to_owned(),
                differs: differs.map(str::to_owned),
            }],
            reasons: [("padding".to_owned(), "padded".to_owned())].into(),
            claims: BTreeMap::new(),
        }
    }

    #[test]
    fn a_figure_is_as_exact_as_its_digits() {
        assert_eq!(parse("241.3 M"), Some((241.3e6, 1e5)));
        assert_eq!(parse("2.22 G"), Some((2.22e9, 1e7)));
        for none in ["2.22", "x G", "-1 G", "inf G", "2 k"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn a_count_agrees_or_differs_for_a_reason() {
        let holds = |differs, macs| figures(differs).hold("net", macs).unwrap().holds();
        assert!(holds(None, 241_500_000));
        assert!(!holds(None, 242_000_000));
        assert!(holds(Some("padding"), 242_000_000));
        // A reason for nothing is out of date.
        assert!(!holds(Some("padding"), 241_300_000));
        assert!(figures(None).hold("other", 1).is_none());
    }

    #[test]
    fn reasons_are_those_of_the_models_shown() {
        let figures = figures(Some("padding"));
        let of = |name| figures.reasons([name].into_iter()).collect::<Vec<_>>();
        assert_eq!(of("net"), ["- **padding**: padded"]);
        assert!(of("other").is_empty());
    }
}
