//! The names of layouts, of label sources and of reasons to skip, as reports print them.

use std::collections::BTreeMap;
use std::fmt;

use super::error::first_few;

/// How the images of a data set lie.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// A folder for each class, as torchvision's `ImageFolder` has it.
    ClassFolders,
    /// All images in one folder.
    Flat,
    /// Kaggle's `ILSVRC/Data/CLS-LOC/val`.
    Kaggle,
    /// A tar of flat images, such as `ILSVRC2012_img_val.tar`.
    FlatTar,
    /// A tar of class folders.
    ClassTar,
    /// A tar with a tar for each class, such as `ILSVRC2012_img_train.tar`.
    TarOfTars,
    /// WebDataset shards: tars of `key.jpg`, `key.cls`.
    WebDataset {
        /// How many shards.
        shards: usize,
    },
    /// CIFAR-10's binary records.
    Cifar10,
    /// The set that zoo draws itself.
    Drawn,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::ClassFolders => "class folders (torchvision)",
            Layout::Flat => "flat folder",
            Layout::Kaggle => "flat folder (Kaggle's tree)",
            Layout::FlatTar => "tar of flat files",
            Layout::ClassTar => "tar of class folders",
            Layout::TarOfTars => "tar of class tars",
            Layout::WebDataset { shards: 1 } => "WebDataset, 1 shard",
            Layout::WebDataset { shards } => return write!(f, "WebDataset, {shards} shards"),
            Layout::Cifar10 => "CIFAR-10 binary records",
            Layout::Drawn => "drawn by zoo",
        })
    }
}

/// Where the labels of a data set come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Labels {
    /// The class folder's wnid: its standard index among the 1000 of ImageNet-1k.
    Wnids,
    /// The class folder's position in sorted order.
    FolderOrder,
    /// A list, by its file name.
    List(String),
    /// A wnid in each file's name.
    FileNames,
    /// `key.cls` beside each image in a shard.
    Cls,
    /// The first byte of each CIFAR-10 record.
    Records,
    /// The kind of thing that was drawn.
    Kinds,
    /// There are none.
    None {
        /// What is missing, and what to do.
        missing: String,
    },
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Labels::Wnids => "labels from wnids",
            Labels::FolderOrder => "labels from the sorted order of the folders",
            Labels::List(name) => return write!(f, "labels from {name}"),
            Labels::FileNames => "labels from wnids in the file names",
            Labels::Cls => "labels from .cls members",
            Labels::Records => "labels from the records",
            Labels::Kinds => "labels from the kinds",
            Labels::None { .. } => "no labels",
        })
    }
}

/// Something that was there and is not in the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its path below what was opened, or its name in the archive.
    pub path: String,
    /// Why it is left out.
    pub reason: SkipReason,
}

impl Skipped {
    pub(super) fn new(path: impl Into<String>, reason: SkipReason) -> Skipped {
        Skipped {
            path: path.into(),
            reason,
        }
    }
}

/// Why something is not in the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its name begins with a dot.
    Hidden,
    /// Its extension is no image's.
    NotAnImage,
    /// A pipe, socket or device; in a tar, a link or a device.
    NotAFile,
    /// A link back to a folder that it lies in.
    LinkLoop,
    /// A link to nothing, or an image that cannot be reached.
    BrokenLink,
    /// A class folder without an image; it keeps its place in the sorted order.
    EmptyClass,
    /// An image beside the class folders.
    BesideClasses,
    /// An image in a folder beside the flat images.
    BesideFlat,
    /// An image in a folder that is not a wnid of ImageNet-1k.
    OtherFolder,
    /// An image that the list does not name.
    Unlisted,
    /// An image that the list names and that is not there.
    Missing,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SkipReason::Hidden => "hidden",
            SkipReason::NotAnImage => "not an image by its extension",
            SkipReason::NotAFile => "not a regular file",
            SkipReason::LinkLoop => "link back to a folder above",
            SkipReason::BrokenLink => "cannot be reached",
            SkipReason::EmptyClass => "class folder without images",
            SkipReason::BesideClasses => "image beside the class folders",
            SkipReason::BesideFlat => "image in a folder beside the flat images",
            SkipReason::OtherFolder => "image in a folder that is no wnid of ImageNet-1k",
            SkipReason::Unlisted => "not in the list of labels",
            SkipReason::Missing => "in the list of labels, but missing",
        })
    }
}

pub(super) fn describe_skipped(skipped: &[Skipped]) -> Option<String> {
    let mut by_reason: BTreeMap<SkipReason, Vec<&str>> = BTreeMap::new();
    for item in skipped {
        by_reason.entry(item.reason).or_default().push(&item.path);
    }
    let part = |(reason, paths): (&SkipReason, &Vec<&str>)| {
        format!("{} {reason} ({})", paths.len(), first_few(paths))
    };
    let parts: Vec<String> = by_reason.iter().map(part).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
