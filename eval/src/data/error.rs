//! What can be wrong with a data set: every message names the file and the remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Why a data set could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// Nothing that is known as a data set.
    #[error(
        "{}: no images here in any layout that is known ({found}). Give the folder that holds class folders, \
         flat images with LOC_val_solution.csv or val.txt, ImageNet's tars, WebDataset shards, or a CIFAR-10 .bin file",
        path.display()
    )]
    NothingFound {
        /// What was opened.
        path: PathBuf,
        /// What was there instead.
        found: String,
    },

    /// A format that is known and not read.
    #[error("{}: {what} is not read. {remedy}", path.display())]
    NotRead {
        /// The file.
        path: PathBuf,
        /// The format.
        what: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },

    /// Images without labels where labels are needed.
    #[error("{}: {images} images, but no labels: {missing}", root.display())]
    NoLabels {
        /// What was opened.
        root: PathBuf,
        /// How many images there are.
        images: usize,
        /// What is missing, and what to do.
        missing: String,
    },

    /// A line of a label list that cannot be read.
    #[error("{}:{line}: {what}", path.display())]
    BadLine {
        /// The list.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What is wrong with it and what is expected.
        what: String,
    },

    /// The list names images that are not there.
    #[error(
        "{}: {count} of the images it lists are missing in {}: {first}. \
         An accuracy over the rest would not be comparable: complete the folder, or allow missing images",
        list.display(), root.display()
    )]
    MissingFiles {
        /// The list.
        list: PathBuf,
        /// Where the images should be.
        root: PathBuf,
        /// How many are missing.
        count: usize,
        /// The first few.
        first: String,
    },

    /// Images that the list does not name.
    #[error(
        "{}: {count} images in {} are not in this list: {first}. \
         Move them away, complete the list, or allow missing images to leave them out",
        list.display(), root.display()
    )]
    UnlistedFiles {
        /// The list.
        list: PathBuf,
        /// Where the images are.
        root: PathBuf,
        /// How many are not listed.
        count: usize,
        /// The first few.
        first: String,
    },

    /// Some class folders are ImageNet-1k's and some are not, so neither rule for the index is safe.
    #[error(
        "{}: {standard} class folders are wnids of ImageNet-1k and {other} are not ({first}). \
         Move the others away, or state how folders are numbered: by wnid or by sorted position",
        root.display()
    )]
    MixedFolders {
        /// The folder of class folders.
        root: PathBuf,
        /// How many are of ImageNet-1k.
        standard: usize,
        /// How many are not.
        other: usize,
        /// The first few of these.
        first: String,
    },

    /// An image or a symbolic link to one that cannot be reached.
    #[error("{}: {count} images cannot be reached: {first}. Repair the links, or allow missing images", root.display())]
    Unreachable {
        /// The folder.
        root: PathBuf,
        /// How many.
        count: usize,
        /// The first few.
        first: String,
    },

    /// Two images with the same name.
    #[error("{}: two images are called {id}; results are kept by name, so names must be unique", path.display())]
    Duplicate {
        /// The archive or folder.
        path: PathBuf,
        /// The name that both have.
        id: String,
    },

    /// A file name that is not UTF-8.
    #[error("{}: the file name is not UTF-8, and results are kept by name. Rename it", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },

    /// A tar that cannot be what its headers say.
    #[error("{}: {member}: {what}", path.display())]
    BadArchive {
        /// The archive.
        path: PathBuf,
        /// The member, or where in the archive.
        member: String,
        /// What is wrong and what to do.
        what: String,
    },

    /// A file that is not in CIFAR-10's binary form.
    #[error("{}: not a CIFAR-10 binary file: {what}", path.display())]
    BadCifar {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },

    /// A class index outside the class list.
    #[error("{}: {id}: class {label} is outside 0..{classes}", path.display())]
    LabelOutOfRange {
        /// The file that says so.
        path: PathBuf,
        /// The image.
        id: String,
        /// The class index.
        label: u64,
        /// How many classes there are.
        classes: usize,
    },

    /// A folder that was to be written to and holds something.
    #[error("{}: not empty; what is there would become part of the data set. Name a new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },

    /// Several data sets in one folder and no rule to choose.
    #[error("{}: more than one data set fits: {choices}. Name one of them", path.display())]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// The candidates.
        choices: String,
    },
}

impl DataError {
    pub(super) fn io(path: &Path, source: io::Error) -> DataError {
        DataError::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// The first few of many names, for a message.
pub(super) fn first_few<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 3;
    let mut text: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    if names.len() > SHOWN {
        text.push("...");
    }
    text.join(", ")
}
