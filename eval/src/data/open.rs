//! Finding out what a path holds.

use std::fs;
use std::path::{Path, PathBuf};

use super::DataSet;
use super::arrange::{arrange, file_name, sort_unique, strip_containers};
use super::cifar;
use super::error::{DataError, first_few};
use super::layout::{Labels, Layout};
use super::shards::{open_tar, open_tars};
use super::walk::{Found, is_image, walk};

/// Where Kaggle's tree has the validation images, below its root.
const KAGGLE_VAL: &str = "ILSVRC/Data/CLS-LOC/val";

/// How class folders are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FolderRule {
    /// By wnid where all are wnids of ImageNet-1k, by position where none is, else an error.
    #[default]
    Auto,
    /// By wnid; images in other folders are left out.
    Wnid,
    /// By position in sorted order, as torchvision does; empty folders count.
    Position,
}

/// How a data set is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// A list of labels to use instead of what is found: Kaggle's form where it ends in `.csv`, else `name index` lines.
    pub labels: Option<PathBuf>,
    /// Whether a set without labels is an error (evaluation) or not (prediction). True by default.
    pub need_labels: bool,
    /// Go on without images that a list names and that are missing, images that no list names, images behind broken
    /// links, and missing shards; each is named in [`DataSet::skipped`]. False by default.
    pub allow_missing: bool,
    /// How class folders are numbered.
    pub folders: FolderRule,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            labels: None,
            need_labels: true,
            allow_missing: false,
            folders: FolderRule::Auto,
        }
    }
}

impl DataSet {
    /// Opens what `path` holds; see the [module](super) for what is found and in which order.
    ///
    /// Reads names, lists and headers, no image.
    ///
    /// # Errors
    /// [`DataError`]: each variant says what was found and what to do.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<DataSet, DataError> {
        let metadata = fs::metadata(path).map_err(|e| DataError::io(path, e))?;
        let set = if metadata.is_dir() {
            open_folder(path, options)?
        } else {
            open_file(path, options)?
        };
        if set.samples.is_empty() {
            return Err(DataError::NothingFound {
                path: path.to_owned(),
                found: set.describe_skipped().unwrap_or_default(),
            });
        }
        match &set.labels {
            Labels::None { missing } if options.need_labels => Err(DataError::NoLabels {
                root: path.to_owned(),
                images: set.samples.len(),
                missing: missing.clone(),
            }),
            _ => Ok(set),
        }
    }
}

fn open_file(path: &Path, options: &OpenOptions) -> Result<DataSet, DataError> {
    let name = file_name(path).to_ascii_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let not_read = |what, remedy| {
        Err(DataError::NotRead {
            path: path.to_owned(),
            what,
            remedy,
        })
    };
    if ends(&[".tar"]) {
        return open_tar(path, options);
    }
    if ends(&[".bin"]) {
        return cifar::open_cifar(path);
    }
    if ends(&[".parquet"]) {
        return not_read(
            "Parquet (Hugging Face)",
            "Support is not there yet: give class folders, flat images with a list, or WebDataset shards",
        );
    }
    if ends(&[".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip"]) {
        return not_read(
            "a compressed archive",
            "Unpack it, or repack it as a plain .tar",
        );
    }
    let found = match &name {
        name if is_image(name) => "one image file; give the folder it is in",
        name if name.ends_with(".csv") || name.ends_with(".txt") => {
            "a list; give the folder of the images, and the list as the labels"
        }
        _ => "a file of another kind",
    };
    Err(DataError::NothingFound {
        path: path.to_owned(),
        found: found.to_owned(),
    })
}

/// Folders within `root` where the images may be, the preferred first, `root` itself last.
fn places(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let kaggle: Vec<&str> = KAGGLE_VAL.split('/').collect();
    let mut names: Vec<String> = (0..kaggle.len()).map(|i| kaggle[i..].join("/")).collect();
    names.extend(["validation", "valid"].map(str::to_owned));
    if only_splits(root)? {
        names.extend(["test", "train"].map(str::to_owned));
    }
    names.push(String::new());
    let paths = names.iter().map(|name| match name.as_str() {
        "" => root.to_owned(),
        name => root.join(name),
    });
    Ok(paths.filter(|path| path.is_dir()).collect())
}

/// Whether all visible folders are splits: `train` may otherwise be a class beside `bus` and `car`.
fn only_splits(root: &Path) -> Result<bool, DataError> {
    const SPLITS: [&str; 5] = ["val", "validation", "valid", "test", "train"];
    for entry in fs::read_dir(root).map_err(|e| DataError::io(root, e))? {
        let entry = entry.map_err(|e| DataError::io(root, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || SPLITS.contains(&name.as_str()) {
            continue;
        }
        let kind = entry.file_type().map_err(|e| DataError::io(root, e))?;
        if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn open_folder(root: &Path, options: &OpenOptions) -> Result<DataSet, DataError> {
    for place in places(root)? {
        let found = walk(&place, options.allow_missing)?;
        if !found.samples.is_empty() {
            return open_images(&place, root, found, options);
        }
    }
    open_others(root, options)
}

/// Images in `place`, which is `root` or lies in it.
fn open_images(
    place: &Path,
    root: &Path,
    mut found: Found,
    options: &OpenOptions,
) -> Result<DataSet, DataError> {
    let inner = strip_containers(&mut found);
    let place = match inner.as_str() {
        "" => place.to_owned(),
        inner => place.join(inner),
    };
    let (beside, kaggle) = beside(&place, root)?;
    let mut arranged = arrange(&mut found, &place, &beside, options)?;
    sort_unique(&mut arranged.samples, &place)?;
    let layout = match (arranged.in_folders, kaggle) {
        (true, _) => Layout::ClassFolders,
        (false, true) => Layout::Kaggle,
        (false, false) => Layout::Flat,
    };
    Ok(DataSet {
        root: place.display().to_string(),
        layout,
        labels: arranged.labels,
        samples: arranged.samples,
        classes: arranged.classes,
        skipped: found.skipped,
    })
}

/// Folders where a list may lie (the images', the one above, what was opened, the root of Kaggle's tree), and
/// whether the images are in Kaggle's tree.
fn beside(place: &Path, root: &Path) -> Result<(Vec<PathBuf>, bool), DataError> {
    let place = std::path::absolute(place).map_err(|e| DataError::io(place, e))?;
    let root = std::path::absolute(root).map_err(|e| DataError::io(root, e))?;
    let kaggle = place.ends_with(KAGGLE_VAL);
    let mut folders = vec![place.clone()];
    folders.extend(place.parent().map(Path::to_owned));
    folders.push(root);
    if kaggle {
        folders.extend(place.ancestors().nth(4).map(Path::to_owned));
    }
    let mut unique: Vec<PathBuf> = Vec::new();
    for folder in folders {
        if !unique.contains(&folder) {
            unique.push(folder);
        }
    }
    Ok((unique, kaggle))
}

/// A folder without images: archives, records, or nothing.
fn open_others(root: &Path, options: &OpenOptions) -> Result<DataSet, DataError> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(root).map_err(|e| DataError::io(root, e))? {
        let path = entry.map_err(|e| DataError::io(root, e))?.path();
        if path.is_file() && !file_name(&path).starts_with('.') {
            files.push(path);
        }
    }
    files.sort_unstable();
    let with = |ending: &str| -> Vec<PathBuf> {
        let matches = |p: &&PathBuf| file_name(p).to_ascii_lowercase().ends_with(ending);
        files.iter().filter(matches).cloned().collect()
    };
    let tars = with(".tar");
    if !tars.is_empty() {
        return open_tars(root, &tars, options);
    }
    let bins = with(".bin");
    if !bins.is_empty() {
        return cifar::open_cifar(&cifar::choose(root, &bins)?);
    }
    for ending in [".parquet", ".tar.gz", ".tgz", ".zip"] {
        if let Some(path) = with(ending).first() {
            return open_file(path, options);
        }
    }
    let names: Vec<String> = files.iter().map(|p| file_name(p)).collect();
    Err(DataError::NothingFound {
        path: root.to_owned(),
        found: match names.as_slice() {
            [] => "no files".to_owned(),
            names => first_few(names),
        },
    })
}
