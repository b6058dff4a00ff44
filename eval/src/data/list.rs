//! Lists of labels beside flat images: Kaggle's `LOC_val_solution.csv`, Caffe's `val.txt`; Kaggle's list of classes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Sample;
use super::classes::{Classes, imagenet_index};
use super::error::{DataError, first_few};
use super::layout::{SkipReason, Skipped};

/// The lists that are looked for, the preferred first.
pub(super) const LIST_NAMES: [&str; 2] = ["LOC_val_solution.csv", "val.txt"];

/// Kaggle's list of classes: line i is class i.
pub(super) const SYNSET_MAPPING: &str = "LOC_synset_mapping.txt";

/// A list of labels: standard indices of ImageNet-1k by image.
#[derive(Debug)]
pub(super) struct LabelList {
    pub path: PathBuf,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    label: usize,
    line: usize,
}

/// A line that is being read.
struct Line<'a> {
    path: &'a Path,
    number: usize,
}

impl Line<'_> {
    fn bad(&self, what: impl Into<String>) -> DataError {
        DataError::BadLine {
            path: self.path.to_owned(),
            line: self.number,
            what: what.into(),
        }
    }
}

impl LabelList {
    /// Reads a list: Kaggle's form where the name ends in `.csv`, else Caffe's.
    ///
    /// # Errors
    /// [`DataError::Io`], and [`DataError::BadLine`] for the first line that is malformed, names a class that is not
    /// among the 1000, or an image that an earlier line names.
    pub fn read(path: &Path) -> Result<LabelList, DataError> {
        let text = read_text(path)?;
        let csv = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("csv"));
        let mut rows = Vec::new();
        for (i, raw) in text.lines().enumerate() {
            let line = Line {
                path,
                number: i + 1,
            };
            let raw = raw.trim();
            if raw.is_empty() || (csv && i == 0 && raw == "ImageId,PredictionString") {
                continue;
            }
            let (name, label) = if csv {
                kaggle_line(raw, &line)?
            } else {
                caffe_line(raw, &line)?
            };
            rows.push(Row {
                name: bare(name).to_owned(),
                label,
                line: i + 1,
            });
        }
        let list = LabelList {
            path: path.to_owned(),
            rows,
        };
        list.check_unique()?;
        Ok(list)
    }

    fn check_unique(&self) -> Result<(), DataError> {
        let mut lines: HashMap<&str, usize> = HashMap::with_capacity(self.rows.len());
        for row in &self.rows {
            if let Some(first) = lines.insert(&row.name, row.line) {
                return Err(DataError::BadLine {
                    path: self.path.clone(),
                    line: row.line,
                    what: format!("{} is already in line {first}", row.name),
                });
            }
        }
        Ok(())
    }

    /// Whether the list names any of these images.
    pub fn fits(&self, samples: &[Sample]) -> bool {
        let names = names_of(samples);
        self.rows
            .iter()
            .any(|row| names.contains_key(row.name.as_str()))
    }

    /// Gives every image its label.
    ///
    /// # Errors
    /// [`DataError::MissingFiles`] and [`DataError::UnlistedFiles`], unless `allow_missing`: then the latter are removed
    /// from `samples` and both are added to `skipped`. [`DataError::BadLine`] for a row that fits two images.
    pub fn apply(
        &self,
        samples: &mut Vec<Sample>,
        root: &Path,
        allow_missing: bool,
        skipped: &mut Vec<Skipped>,
    ) -> Result<(), DataError> {
        let (labels, missing) = self.match_rows(samples)?;
        let unlisted: Vec<&str> = samples
            .iter()
            .zip(&labels)
            .filter(|(_, label)| label.is_none())
            .map(|(sample, _)| sample.id.as_str())
            .collect();
        if !missing.is_empty() && !allow_missing {
            return Err(DataError::MissingFiles {
                list: self.path.clone(),
                root: root.to_owned(),
                count: missing.len(),
                first: first_few(&missing),
            });
        }
        if !unlisted.is_empty() && !allow_missing {
            return Err(DataError::UnlistedFiles {
                list: self.path.clone(),
                root: root.to_owned(),
                count: unlisted.len(),
                first: first_few(&unlisted),
            });
        }
        let skip = |reason| move |id: &str| Skipped::new(id, reason);
        skipped.extend(missing.into_iter().map(skip(SkipReason::Missing)));
        skipped.extend(unlisted.into_iter().map(skip(SkipReason::Unlisted)));
        for (sample, label) in samples.iter_mut().zip(labels) {
            sample.label = label;
        }
        samples.retain(|sample| sample.label.is_some());
        Ok(())
    }

    /// The label of each image, and the names that fit none.
    fn match_rows(&self, samples: &[Sample]) -> Result<(Vec<Option<usize>>, Vec<&str>), DataError> {
        let names = names_of(samples);
        let mut labels = vec![None; samples.len()];
        let mut missing = Vec::new();
        for row in &self.rows {
            let what = match names.get(row.name.as_str()) {
                None => {
                    missing.push(row.name.as_str());
                    continue;
                }
                Some(Match::One(i)) if labels[*i].is_none() => {
                    labels[*i] = Some(row.label);
                    continue;
                }
                Some(Match::One(i)) => format!("a second line for {}", samples[*i].id),
                Some(Match::Several) => format!("{} fits more than one image", row.name),
            };
            return Err(DataError::BadLine {
                path: self.path.clone(),
                line: row.line,
                what,
            });
        }
        missing.sort_unstable();
        Ok((labels, missing))
    }
}

enum Match {
    One(usize),
    Several,
}

/// Images by what lists call them: the path below the root, with and without its extension.
fn names_of(samples: &[Sample]) -> HashMap<&str, Match> {
    let mut names = HashMap::with_capacity(2 * samples.len());
    for (i, sample) in samples.iter().enumerate() {
        let name = bare(&sample.id);
        let stem = name.rsplit_once('.').map(|(stem, _)| stem);
        for form in std::iter::once(name).chain(stem) {
            let once = !names.contains_key(form);
            names.insert(form, if once { Match::One(i) } else { Match::Several });
        }
    }
    names
}

/// A name without the `./` or `val/` that some lists and tars put before it.
fn bare(name: &str) -> &str {
    let name = name.strip_prefix("./").unwrap_or(name);
    name.strip_prefix("val/").unwrap_or(name)
}

/// `ILSVRC2012_val_00000003,n01753488 1 1 200 150 n01753488 5 6 100 75`: groups of a wnid and a box.
fn kaggle_line<'a>(text: &'a str, line: &Line) -> Result<(&'a str, usize), DataError> {
    let expected = "expected `ImageId,wnid x1 y1 x2 y2 ...`";
    let Some((name, boxes)) = text.split_once(',') else {
        return Err(line.bad(format!("no comma; {expected}")));
    };
    let fields: Vec<&str> = boxes.split_whitespace().collect();
    if name.is_empty() || fields.is_empty() || !fields.len().is_multiple_of(5) {
        let n = fields.len();
        return Err(line.bad(format!(
            "{n} fields after the comma, not groups of five; {expected}"
        )));
    }
    let wnid = fields[0];
    if let Some(other) = fields.iter().step_by(5).find(|other| **other != wnid) {
        return Err(line.bad(format!("two classes for one image: {wnid} and {other}")));
    }
    Ok((name.trim(), wnid_label(wnid, line)?))
}

/// `ILSVRC2012_val_00000001.JPEG 65`: a name, perhaps with blanks, and the standard index from 0 or a wnid.
fn caffe_line<'a>(text: &'a str, line: &Line) -> Result<(&'a str, usize), DataError> {
    let Some((name, label)) = text.rsplit_once(char::is_whitespace) else {
        return Err(line.bad("expected `name label`, two fields with a blank between them"));
    };
    let name = name.trim_end();
    if !label.bytes().all(|b| b.is_ascii_digit()) {
        return Ok((name, wnid_label(label, line)?));
    }
    let classes = Classes::imagenet().len();
    match label.parse::<usize>() {
        Ok(index) if index < classes => Ok((name, index)),
        _ => Err(line.bad(format!(
            "class {label} is outside 0..{classes} (the standard index counts from 0)"
        ))),
    }
}

fn wnid_label(wnid: &str, line: &Line) -> Result<usize, DataError> {
    imagenet_index(wnid)
        .ok_or_else(|| line.bad(format!("{wnid} is not a wnid of the 1000 of ImageNet-1k")))
}

/// Holds Kaggle's list of classes to the standard order: a tree with another one would be mislabelled.
///
/// # Errors
/// [`DataError::Io`], and [`DataError::BadLine`] for the first line that differs.
pub(super) fn check_synset_mapping(path: &Path) -> Result<(), DataError> {
    let text = read_text(path)?;
    let wnids: Vec<&str> = text
        .lines()
        .map(|l| l.split_whitespace().next().unwrap_or(""))
        .collect();
    let mut expected = Classes::imagenet().iter().filter_map(|c| c.wnid.as_deref());
    for (i, wnid) in wnids.iter().enumerate() {
        let line = Line {
            path,
            number: i + 1,
        };
        match expected.next() {
            Some(standard) if standard == *wnid => {}
            Some(standard) => {
                return Err(line.bad(format!(
                    "class {i} is {wnid}; in the standard order it is {standard}, so this list is not ImageNet-1k's"
                )));
            }
            None if wnid.is_empty() => {}
            None => return Err(line.bad("more than 1000 classes; this list is not ImageNet-1k's")),
        }
    }
    match expected.next() {
        None => Ok(()),
        Some(standard) => Err(Line {
            path,
            number: wnids.len() + 1,
        }
        .bad(format!(
            "the list ends before class {standard}; it is cut short"
        ))),
    }
}

/// A list's text, without the byte-order mark that spreadsheets write.
fn read_text(path: &Path) -> Result<String, DataError> {
    let text = fs::read_to_string(path).map_err(|e| DataError::io(path, e))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}
