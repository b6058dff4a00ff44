//! What lies in a folder tree: images by extension, everything else by the reason for which it is left out.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{DataError, first_few};
use super::layout::{SkipReason, Skipped};
use super::{Sample, Source};

/// Files with these extensions, in any case, are taken for images.
pub const IMAGE_EXTENSIONS: [&str; 10] = [
    "jpg", "jpeg", "png", "bmp", "gif", "webp", "ppm", "pgm", "tif", "tiff",
];

/// Whether a file is taken for an image by its name.
pub(super) fn is_image(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    extension.is_some_and(|e| IMAGE_EXTENSIONS.iter().any(|x| x.eq_ignore_ascii_case(e)))
}

/// The last component of an id.
pub(super) fn base_name(id: &str) -> &str {
    id.rsplit_once('/').map_or(id, |(_, base)| base)
}

/// What lies in a folder or in an archive, before anything is known about labels.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The images, unlabelled.
    pub samples: Vec<Sample>,
    /// Every visible folder, as an id.
    pub folders: Vec<String>,
    /// What is left out.
    pub skipped: Vec<Skipped>,
}

/// Walks a folder and everything below it, following links to files and folders, each loop once.
///
/// # Errors
/// [`DataError::Io`] for a folder that cannot be listed, [`DataError::NotUtf8`]; [`DataError::Unreachable`] for images
/// behind broken links, unless `allow_missing`.
pub(super) fn walk(root: &Path, allow_missing: bool) -> Result<Found, DataError> {
    let canonical = fs::canonicalize(root).map_err(|e| DataError::io(root, e))?;
    let mut walker = Walker {
        found: Found::default(),
        unreachable: Vec::new(),
        above: vec![canonical],
    };
    walker.folder(root, "")?;
    if !walker.unreachable.is_empty() && !allow_missing {
        walker.unreachable.sort_unstable();
        return Err(DataError::Unreachable {
            root: root.to_owned(),
            count: walker.unreachable.len(),
            first: first_few(&walker.unreachable),
        });
    }
    let mut found = walker.found;
    let broken = |path| Skipped::new(path, SkipReason::BrokenLink);
    found
        .skipped
        .extend(walker.unreachable.into_iter().map(broken));
    found.samples.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    found.folders.sort_unstable();
    found.skipped.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

struct Walker {
    found: Found,
    unreachable: Vec<String>,
    /// Canonical paths of the folders that the present one lies in, itself included: a link to one of them is a loop.
    above: Vec<PathBuf>,
}

impl Walker {
    fn folder(&mut self, path: &Path, id: &str) -> Result<(), DataError> {
        for entry in fs::read_dir(path).map_err(|e| DataError::io(path, e))? {
            let entry = entry.map_err(|e| DataError::io(path, e))?;
            self.entry(&entry, id)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &fs::DirEntry, parent: &str) -> Result<(), DataError> {
        let path = entry.path();
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            let id = join(parent, &name.to_string_lossy());
            return self.skip(id, SkipReason::Hidden);
        }
        let Some(name) = name.to_str() else {
            return Err(DataError::NotUtf8 { path });
        };
        let id = join(parent, name);
        let mut kind = entry.file_type().map_err(|e| DataError::io(&path, e))?;
        let link = kind.is_symlink();
        if link {
            match fs::metadata(&path) {
                Ok(target) => kind = target.file_type(),
                Err(_) if is_image(name) => {
                    self.unreachable.push(id);
                    return Ok(());
                }
                Err(_) => return self.skip(id, SkipReason::BrokenLink),
            }
        }
        if kind.is_dir() {
            return self.descend(path, id, link);
        }
        if !is_image(name) {
            return self.skip(id, SkipReason::NotAnImage);
        }
        if !kind.is_file() {
            return self.skip(id, SkipReason::NotAFile);
        }
        self.found.samples.push(Sample {
            id,
            label: None,
            source: Source::File(path),
        });
        Ok(())
    }

    fn descend(&mut self, path: PathBuf, id: String, link: bool) -> Result<(), DataError> {
        let canonical = match self.above.last() {
            Some(parent) if !link => parent.join(path.file_name().unwrap_or_default()),
            _ => fs::canonicalize(&path).map_err(|e| DataError::io(&path, e))?,
        };
        if link && self.above.contains(&canonical) {
            return self.skip(id, SkipReason::LinkLoop);
        }
        self.above.push(canonical);
        self.folder(&path, &id)?;
        self.above.pop();
        self.found.folders.push(id);
        Ok(())
    }

    fn skip(&mut self, id: String, reason: SkipReason) -> Result<(), DataError> {
        self.found.skipped.push(Skipped::new(id, reason));
        Ok(())
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}/{name}")
    }
}
