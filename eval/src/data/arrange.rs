//! From images that were found, in a folder or in an archive, to a labelled data set: class folders or flat.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::classes::{Classes, imagenet_index, is_wnid};
use super::error::{DataError, first_few};
use super::layout::{Labels, SkipReason, Skipped};
use super::list::{LIST_NAMES, LabelList, SYNSET_MAPPING, check_synset_mapping};
use super::open::{FolderRule, OpenOptions};
use super::walk::{Found, base_name};
use super::{Sample, Source};

const DEVKIT_TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";

/// Images, their labels, and whether they lay in class folders.
pub(super) struct Arranged {
    pub samples: Vec<Sample>,
    pub labels: Labels,
    pub classes: Classes,
    pub in_folders: bool,
}

/// Goes into lone containers: while all images lie in one folder that is no wnid, ids lose it.
///
/// Returns what was removed, `val` or `a/b`.
pub(super) fn strip_containers(found: &mut Found) -> String {
    let mut removed: Vec<String> = Vec::new();
    while let Some(container) = lone_container(&found.samples) {
        let prefix = format!("{container}/");
        for sample in &mut found.samples {
            sample.id.drain(..prefix.len());
        }
        found.folders = found
            .folders
            .iter()
            .filter_map(|folder| folder.strip_prefix(&prefix).map(str::to_owned))
            .collect();
        removed.push(container);
    }
    removed.join("/")
}

fn lone_container(samples: &[Sample]) -> Option<String> {
    let (first, _) = samples.first()?.id.split_once('/')?;
    let prefix = format!("{first}/");
    let lone = !is_wnid(first) && samples.iter().all(|s| s.id.starts_with(&prefix));
    lone.then(|| first.to_owned())
}

/// Labels what was found in `root`; `beside` are the folders where a list may lie.
pub(super) fn arrange(
    found: &mut Found,
    root: &Path,
    beside: &[PathBuf],
    options: &OpenOptions,
) -> Result<Arranged, DataError> {
    let in_folders = found.samples.iter().filter(|s| s.id.contains('/')).count();
    if options.labels.is_none() && 2 * in_folders > found.samples.len() {
        return class_folders(found, root, options.folders);
    }
    flat(found, root, beside, options)
}

/// The images of each top folder; folders without images, too.
fn by_folder(found: &mut Found) -> BTreeMap<String, Vec<Sample>> {
    let tops = found.folders.iter().filter(|f| !f.contains('/'));
    let mut folders: BTreeMap<String, Vec<Sample>> =
        tops.map(|top| (top.clone(), Vec::new())).collect();
    for sample in std::mem::take(&mut found.samples) {
        match sample.id.split_once('/') {
            Some((top, _)) => folders.entry(top.to_owned()).or_default().push(sample),
            None => found
                .skipped
                .push(Skipped::new(sample.id, SkipReason::BesideClasses)),
        }
    }
    folders
}

fn class_folders(found: &mut Found, root: &Path, rule: FolderRule) -> Result<Arranged, DataError> {
    let folders = by_folder(found);
    let filled: Vec<&str> = folders
        .iter()
        .filter(|(_, samples)| !samples.is_empty())
        .map(|(name, _)| name.as_str())
        .collect();
    let other: Vec<&str> = filled
        .iter()
        .copied()
        .filter(|name| imagenet_index(name).is_none())
        .collect();
    let standard = filled.len() - other.len();
    let by_wnid = match rule {
        FolderRule::Wnid => true,
        FolderRule::Position => false,
        FolderRule::Auto if standard > 0 && !other.is_empty() => {
            return Err(DataError::MixedFolders {
                root: root.to_owned(),
                standard,
                other: other.len(),
                first: first_few(&other),
            });
        }
        FolderRule::Auto => standard > 0,
    };
    let classes = if by_wnid {
        Classes::imagenet().clone()
    } else {
        Classes::named(folders.keys())
    };
    let mut samples = Vec::new();
    for (position, (name, images)) in folders.into_iter().enumerate() {
        if images.is_empty() {
            let empty = Skipped::new(name, SkipReason::EmptyClass);
            found.skipped.push(empty);
            continue;
        }
        let label = if by_wnid {
            imagenet_index(&name)
        } else {
            Some(position)
        };
        let Some(label) = label else {
            let skip = |s: Sample| Skipped::new(s.id, SkipReason::OtherFolder);
            found.skipped.extend(images.into_iter().map(skip));
            continue;
        };
        samples.extend(images.into_iter().map(|sample| Sample {
            label: Some(label),
            ..sample
        }));
    }
    Ok(Arranged {
        samples,
        labels: if by_wnid {
            Labels::Wnids
        } else {
            Labels::FolderOrder
        },
        classes,
        in_folders: true,
    })
}

fn flat(
    found: &mut Found,
    root: &Path,
    beside: &[PathBuf],
    options: &OpenOptions,
) -> Result<Arranged, DataError> {
    let mut samples = std::mem::take(&mut found.samples);
    let labels = match list_labels(&mut samples, found, root, beside, options) {
        Ok(labels) => labels,
        Err(error) if options.need_labels => return Err(error),
        Err(error) => {
            samples.iter_mut().for_each(|s| s.label = None);
            Labels::None {
                missing: error.to_string(),
            }
        }
    };
    let classes = match labels {
        Labels::None { .. } => Classes::default(),
        _ => Classes::imagenet().clone(),
    };
    Ok(Arranged {
        samples,
        labels,
        classes,
        in_folders: false,
    })
}

fn list_labels(
    samples: &mut Vec<Sample>,
    found: &mut Found,
    root: &Path,
    beside: &[PathBuf],
    options: &OpenOptions,
) -> Result<Labels, DataError> {
    if let Some(path) = &options.labels {
        refuse_devkit(path, root, samples.len())?;
        let list = LabelList::read(path)?;
        return use_list(&list, samples, found, root, options);
    }
    leave_folders_out(samples, found);
    let mut unfit = Vec::new();
    for path in candidates(beside) {
        let list = LabelList::read(&path)?;
        if list.fits(samples) {
            return use_list(&list, samples, found, root, options);
        }
        unfit.push(path);
    }
    if label_from_names(samples) {
        return Ok(Labels::FileNames);
    }
    Ok(Labels::None {
        missing: what_is_missing(&unfit, beside),
    })
}

fn use_list(
    list: &LabelList,
    samples: &mut Vec<Sample>,
    found: &mut Found,
    root: &Path,
    options: &OpenOptions,
) -> Result<Labels, DataError> {
    let mapping = list.path.with_file_name(SYNSET_MAPPING);
    if mapping.is_file() {
        check_synset_mapping(&mapping)?;
    }
    list.apply(samples, root, options.allow_missing, &mut found.skipped)?;
    let name = file_name(&list.path);
    let used = |s: &Skipped| {
        s.reason == SkipReason::NotAnImage && [&name, SYNSET_MAPPING].contains(&base_name(&s.path))
    };
    found.skipped.retain(|s| !used(s));
    Ok(Labels::List(name))
}

/// Images in folders beside flat ones: no list names them, and torchvision's rule does not hold either.
fn leave_folders_out(samples: &mut Vec<Sample>, found: &mut Found) {
    samples.retain(|sample| {
        let inside = sample.id.contains('/');
        if inside {
            let skipped = Skipped::new(sample.id.as_str(), SkipReason::BesideFlat);
            found.skipped.push(skipped);
        }
        !inside
    });
}

fn candidates(beside: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let paths = |name: &'static str| beside.iter().map(move |folder| folder.join(name));
    LIST_NAMES
        .into_iter()
        .flat_map(paths)
        .filter(|path| path.is_file())
}

/// Labels from wnids in the file names, as in `ILSVRC2012_val_00000001_n01751748.JPEG` or `n01440764_18.JPEG`:
/// all images or none.
fn label_from_names(samples: &mut [Sample]) -> bool {
    let labels: Option<Vec<usize>> = samples.iter().map(|s| name_label(&s.id)).collect();
    let Some(labels) = labels else { return false };
    for (sample, label) in samples.iter_mut().zip(labels) {
        sample.label = Some(label);
    }
    true
}

fn name_label(id: &str) -> Option<usize> {
    let words = base_name(id).split(['_', '-', '.']);
    let found: BTreeSet<usize> = words.filter_map(imagenet_index).collect();
    match found.len() {
        1 => found.first().copied(),
        _ => None,
    }
}

fn what_is_missing(unfit: &[PathBuf], beside: &[PathBuf]) -> String {
    let remedy = format!(
        "put Kaggle's {} or a val.txt (lines `name index`, the standard index from 0) beside the images, or name such a list",
        LIST_NAMES[0]
    );
    if let Some(truth) = devkit_truth(beside) {
        return devkit_message(&truth, &remedy);
    }
    match unfit {
        [] => format!("no list of labels and no wnids in the file names; {remedy}"),
        [path, ..] => format!("{} names none of the images; {remedy}", path.display()),
    }
}

fn devkit_truth(beside: &[PathBuf]) -> Option<PathBuf> {
    let places = ["", "ILSVRC2012_devkit_t12/data", "data"];
    let in_folder = |folder: &PathBuf| {
        let paths = places.map(|place| folder.join(place).join(DEVKIT_TRUTH));
        paths.into_iter().find(|path| path.is_file())
    };
    beside.iter().find_map(in_folder)
}

fn devkit_message(truth: &Path, remedy: &str) -> String {
    format!(
        "{} numbers classes in the devkit's own order (1 is n02119789), which is not the standard one, \
         and the devkit's meta.mat is not read; {remedy}",
        truth.display()
    )
}

fn refuse_devkit(list: &Path, root: &Path, images: usize) -> Result<(), DataError> {
    if file_name(list) != DEVKIT_TRUTH {
        return Ok(());
    }
    let remedy = format!(
        "name Kaggle's {} or a val.txt (lines `name index`, the standard index from 0) instead",
        LIST_NAMES[0]
    );
    Err(DataError::NoLabels {
        root: root.to_owned(),
        images,
        missing: devkit_message(list, &remedy),
    })
}

pub(super) fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Sorts by id and holds ids to be unique.
///
/// # Errors
/// [`DataError::Duplicate`].
pub(super) fn sort_unique(samples: &mut [Sample], root: &Path) -> Result<(), DataError> {
    samples.sort_by(|a, b| a.id.cmp(&b.id));
    let same = samples.windows(2).find(|pair| pair[0].id == pair[1].id);
    match same {
        None => Ok(()),
        Some(pair) => Err(DataError::Duplicate {
            path: archive_of(&pair[1].source).unwrap_or(root).to_owned(),
            id: pair[1].id.clone(),
        }),
    }
}

fn archive_of(source: &Source) -> Option<&Path> {
    match source {
        Source::Archive { path, .. } => Some(path),
        _ => None,
    }
}
