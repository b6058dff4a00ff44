//! Data sets as users have them on disk: which images, in which order, with which labels.
//!
//! [`DataSet::open`] finds out by itself what it was given, in this order; the first that fits is taken and is
//! named in the report ([`DataSet::describe`]):
//!
//! 1. A file: a `.tar` (flat, class folders, tar of class tars, WebDataset shard), or a CIFAR-10 `.bin`.
//! 2. A folder: within it `ILSVRC/Data/CLS-LOC/val` (Kaggle's tree, or from one of its levels), `val`, `validation`,
//!    `valid`; `test` and `train` where there is nothing but such folders; else the folder itself.
//!    A lone folder whose name is no wnid is a container and is gone into.
//!    1. Class folders: most images lie in folders.
//!    2. Flat images: with the list that was given, else `LOC_val_solution.csv`, else `val.txt`, in the folder, beside
//!       it or at the root of Kaggle's tree, if it names any of the images; else labels from wnids in the file names.
//! 3. A folder without images: `ILSVRC2012_img_val.tar`; else its tars (several are WebDataset shards; where names
//!    differ by more than the number, those with `val`); else CIFAR-10's `.bin` (`test_batch.bin` of several).
//!
//! An image's class index is the standard one of its wnid where the class folders are wnids of ImageNet-1k, also when
//! only some of the 1000 are there; otherwise the folder's position in sorted order, as torchvision has it.
//! Order is that of the ids, bytewise. Images are told by their extension ([`IMAGE_EXTENSIONS`]); what else lies
//! around is skipped and named ([`DataSet::skipped`]).

mod arrange;
mod cifar;
mod classes;
pub mod drawn;
mod error;
mod layout;
mod list;
mod open;
mod shards;
mod tar;
mod walk;

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use classes::{Class, Classes, imagenet_index};
pub use drawn::{drawn, write_drawn};
pub use error::DataError;
pub use layout::{Labels, Layout, SkipReason, Skipped};
pub use open::{FolderRule, OpenOptions};
pub use walk::IMAGE_EXTENSIONS;

/// Where the bytes of an image are.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file of its own.
    File(PathBuf),
    /// A member of an uncompressed archive: `len` bytes at `offset`.
    Archive {
        /// The archive.
        path: Arc<PathBuf>,
        /// First byte of the member.
        offset: u64,
        /// Its size in bytes.
        len: u64,
    },
    /// Bytes that were never on disk (the drawn set).
    Memory(Arc<[u8]>),
    /// Pixels rather than an image file: three planes (all red, all green, all blue), each `height` rows of `width`
    /// bytes from the top, without padding; `3 * width * height` bytes at `offset` (CIFAR-10's records).
    Raw {
        /// The file.
        path: Arc<PathBuf>,
        /// First byte of the red plane.
        offset: u64,
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
}

impl Source {
    /// How many bytes [`Source::read`] gives.
    ///
    /// # Errors
    /// A file of its own that cannot be reached.
    pub fn size(&self) -> io::Result<u64> {
        match self {
            Source::File(path) => Ok(fs::metadata(path)?.len()),
            Source::Archive { len, .. } => Ok(*len),
            Source::Memory(bytes) => Ok(bytes.len() as u64),
            Source::Raw { width, height, .. } => Ok(3 * u64::from(*width) * u64::from(*height)),
        }
    }

    /// The bytes: an encoded image, or for [`Source::Raw`] its three planes.
    ///
    /// # Errors
    /// A file that cannot be read, or an archive that has become shorter since it was opened.
    pub fn read(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Source::File(path) => fs::read(path).map(Cow::Owned),
            Source::Archive { path, offset, len } => read_range(path, *offset, *len),
            Source::Memory(bytes) => Ok(Cow::Borrowed(bytes)),
            Source::Raw { path, offset, .. } => read_range(path, *offset, self.size()?),
        }
    }
}

/// `take` rather than a buffer of `len`: the archive may have changed, and `len` is then anything.
fn read_range(path: &PathBuf, offset: u64, len: u64) -> io::Result<Cow<'static, [u8]>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len {
        return Ok(Cow::Owned(bytes));
    }
    let got = bytes.len();
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{got} of {len} bytes at {offset}: the file has become shorter"),
    ))
}

/// One image of a data set.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Stable name, unique in the set: the path below the root with `/`, or the archive member's name.
    pub id: String,
    /// Index of the class, or `None` where the set has no labels.
    pub label: Option<usize>,
    /// Where the bytes are.
    pub source: Source,
}

/// A data set: its images in order, and what their labels mean.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// Where the images are: the folder that ids are relative to, the archive, or the drawn set's name.
    pub root: String,
    /// How the images lie there.
    pub layout: Layout,
    /// Where the labels come from.
    pub labels: Labels,
    /// The images, sorted by id.
    pub samples: Vec<Sample>,
    /// What the labels mean; empty where there are none.
    pub classes: Classes,
    /// What was there and was left out.
    pub skipped: Vec<Skipped>,
}

impl DataSet {
    /// One line for the report, such as
    /// `class folders (torchvision), 200 images in 200 classes, labels from wnids`.
    pub fn describe(&self) -> String {
        let images = self.samples.len();
        let mut seen: Vec<usize> = self.samples.iter().filter_map(|s| s.label).collect();
        seen.sort_unstable();
        seen.dedup();
        let classes = match seen.len() {
            0 => String::new(),
            1 => " in 1 class".to_owned(),
            n => format!(" in {n} classes"),
        };
        let plural = if images == 1 { "" } else { "s" };
        format!(
            "{}, {images} image{plural}{classes}, {}",
            self.layout, self.labels
        )
    }

    /// What was left out, by reason, with the first few names; `None` where nothing was.
    pub fn describe_skipped(&self) -> Option<String> {
        layout::describe_skipped(&self.skipped)
    }

    /// SHA-256, in hex, over the number of images and each one's id, label and size in order.
    ///
    /// Where the set lies does not enter, so a copy on another machine has the same fingerprint; nor do the pixels.
    ///
    /// # Errors
    /// [`DataError::Io`] for a file that has gone since the set was opened.
    pub fn fingerprint(&self) -> Result<String, DataError> {
        let mut hash = Sha256::new();
        hash.update((self.samples.len() as u64).to_le_bytes());
        for sample in &self.samples {
            let size = sample.source.size().map_err(|e| match &sample.source {
                Source::File(path) => DataError::io(path, e),
                _ => DataError::io(sample.id.as_ref(), e),
            })?;
            hash.update((sample.id.len() as u64).to_le_bytes());
            hash.update(sample.id.as_bytes());
            hash.update(sample.label.map_or(u64::MAX, |l| l as u64).to_le_bytes());
            hash.update(size.to_le_bytes());
        }
        Ok(hex(&hash.finalize()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
