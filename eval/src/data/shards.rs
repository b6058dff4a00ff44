//! ImageNet in tars: flat, class folders, a tar of class tars, WebDataset shards.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arrange::{arrange, file_name, sort_unique, strip_containers};
use super::classes::Classes;
use super::error::{DataError, first_few};
use super::layout::{Labels, Layout, SkipReason, Skipped};
use super::open::OpenOptions;
use super::tar::{Member, Members, Tar};
use super::walk::{Found, is_image};
use super::{DataSet, Sample, Source};

/// A `.cls` member is a decimal number: longer ones are refused unread.
const MAX_CLS_BYTES: u64 = 32;

/// Opens one tar, whatever it holds.
pub(super) fn open_tar(path: &Path, options: &OpenOptions) -> Result<DataSet, DataError> {
    let tar = Tar::open(path)?;
    let listed = tar.list()?;
    if has_extension(&listed, "cls") {
        return webdataset(vec![(tar, listed)], path);
    }
    let of_tars =
        has_extension(&listed, "tar") && !listed.members.iter().any(|m| is_image(&m.name));
    let mut found = if of_tars {
        class_tars(&tar, listed)?
    } else {
        images(&tar, listed)
    };
    if found.samples.is_empty() {
        return Err(DataError::NothingFound {
            path: path.to_owned(),
            found: "a tar without images".to_owned(),
        });
    }
    strip_containers(&mut found);
    sort_unique(&mut found.samples, path)?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let arranged = arrange(&mut found, path, &[folder], options)?;
    let layout = match (of_tars, arranged.in_folders) {
        (true, _) => Layout::TarOfTars,
        (false, true) => Layout::ClassTar,
        (false, false) => Layout::FlatTar,
    };
    Ok(DataSet {
        root: path.display().to_string(),
        layout,
        labels: arranged.labels,
        samples: arranged.samples,
        classes: arranged.classes,
        skipped: found.skipped,
    })
}

/// Opens the tars of a folder: one, or shards.
pub(super) fn open_tars(
    folder: &Path,
    tars: &[PathBuf],
    options: &OpenOptions,
) -> Result<DataSet, DataError> {
    let chosen = choose(folder, tars)?;
    if let [path] = chosen.as_slice() {
        return open_tar(path, options);
    }
    if !options.allow_missing {
        check_gaps(folder, &chosen)?;
    }
    let mut shards = Vec::new();
    for path in &chosen {
        let tar = Tar::open(path)?;
        let listed = tar.list()?;
        if !has_extension(&listed, "cls") {
            let names: Vec<String> = chosen.iter().map(|p| file_name(p)).collect();
            return Err(DataError::Ambiguous {
                path: folder.to_owned(),
                choices: format!("{} (tars that are no WebDataset shards)", first_few(&names)),
            });
        }
        shards.push((tar, listed));
    }
    webdataset(shards, folder)
}

/// The tars of one data set: names that differ in their number only; of several, those for validation.
fn choose(folder: &Path, tars: &[PathBuf]) -> Result<Vec<PathBuf>, DataError> {
    if let Some(val) = tars
        .iter()
        .find(|p| file_name(p) == "ILSVRC2012_img_val.tar")
    {
        return Ok(vec![val.clone()]);
    }
    let mut groups: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for path in tars {
        let (stem, _) = numbered(path);
        match groups.iter_mut().find(|(name, _)| *name == stem) {
            Some((_, paths)) => paths.push(path.clone()),
            None => groups.push((stem, vec![path.clone()])),
        }
    }
    if groups.len() > 1
        && groups
            .iter()
            .filter(|(stem, _)| stem.contains("val"))
            .count()
            == 1
    {
        groups.retain(|(stem, _)| stem.contains("val"));
    }
    if groups.len() > 1 {
        let names: Vec<String> = tars.iter().map(|p| file_name(p)).collect();
        return Err(DataError::Ambiguous {
            path: folder.to_owned(),
            choices: first_few(&names),
        });
    }
    Ok(groups.pop().map(|(_, paths)| paths).unwrap_or_default())
}

/// `imagenet1k-validation-0003.tar` is number 3 of `imagenet1k-validation-`.
fn numbered(path: &Path) -> (String, Option<u64>) {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.to_owned(), name[stem.len()..].parse().ok())
}

/// A shard that is missing between two others is an interrupted download.
fn check_gaps(folder: &Path, shards: &[PathBuf]) -> Result<(), DataError> {
    let mut numbers: Vec<u64> = shards.iter().filter_map(|p| numbered(p).1).collect();
    numbers.sort_unstable();
    let gap = numbers.windows(2).find(|pair| pair[1] - pair[0] > 1);
    let Some(pair) = gap else { return Ok(()) };
    Err(DataError::BadArchive {
        path: folder.to_owned(),
        member: format!("{}{}", numbered(&shards[0]).0, pair[0] + 1),
        what: "this shard is missing between others; download it, or allow missing images"
            .to_owned(),
    })
}

fn has_extension(listed: &Members, extension: &str) -> bool {
    listed.members.iter().any(|member| {
        let ending = Path::new(&member.name).extension();
        ending.is_some_and(|e| e.eq_ignore_ascii_case(extension))
    })
}

fn source(tar: &Tar, member: &Member) -> Source {
    Source::Archive {
        path: Arc::clone(tar.path()),
        offset: member.offset,
        len: member.len,
    }
}

fn images(tar: &Tar, listed: Members) -> Found {
    let mut found = Found {
        samples: Vec::new(),
        folders: listed.folders,
        skipped: listed.skipped,
    };
    for member in listed.members {
        if !is_image(&member.name) {
            let skipped = Skipped::new(member.name, SkipReason::NotAnImage);
            found.skipped.push(skipped);
            continue;
        }
        found.samples.push(Sample {
            source: source(tar, &member),
            id: member.name,
            label: None,
        });
    }
    found
}

/// `n01440764.tar` of flat images, and so on: each inner tar is the class folder of its name.
fn class_tars(tar: &Tar, listed: Members) -> Result<Found, DataError> {
    let mut found = Found {
        skipped: listed.skipped,
        ..Found::default()
    };
    for member in listed.members {
        let Some(class) = member.name.strip_suffix(".tar") else {
            let skipped = Skipped::new(member.name, SkipReason::NotAnImage);
            found.skipped.push(skipped);
            continue;
        };
        let inner = tar.inner(&member);
        let listed = inner.list().map_err(|e| within(e, &member.name))?;
        let of_class = images(&inner, listed);
        let below = |id: String| format!("{class}/{id}");
        found.folders.push(class.to_owned());
        found
            .skipped
            .extend(of_class.skipped.into_iter().map(|s| Skipped {
                path: below(s.path),
                ..s
            }));
        found
            .samples
            .extend(of_class.samples.into_iter().map(|s| Sample {
                id: below(s.id),
                ..s
            }));
    }
    Ok(found)
}

/// Names the inner tar in an error about one of its members.
fn within(error: DataError, inner: &str) -> DataError {
    match error {
        DataError::BadArchive { path, member, what } => DataError::BadArchive {
            path,
            member: format!("{inner}: {member}"),
            what,
        },
        other => other,
    }
}

/// Consecutive members with one key.
struct Group<'a> {
    key: &'a str,
    members: Vec<(&'a str, &'a Member)>,
}

/// The key is the path up to the first dot of the file name; the rest says what the member is.
fn split_key(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[base..].find('.') {
        Some(dot) => (&name[..base + dot], &name[base + dot + 1..]),
        None => (name, ""),
    }
}

fn groups(members: &[Member]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for member in members {
        let (key, part) = split_key(&member.name);
        match groups.last_mut() {
            Some(group) if group.key == key => group.members.push((part, member)),
            _ => groups.push(Group {
                key,
                members: vec![(part, member)],
            }),
        }
    }
    groups
}

fn webdataset(shards: Vec<(Tar, Members)>, root: &Path) -> Result<DataSet, DataError> {
    let count = shards.len();
    let mut samples = Vec::new();
    let mut skipped = Vec::new();
    for (tar, listed) in shards {
        let shard = file_name(tar.path());
        let mut reader = ClsReader::open(&tar)?;
        let mut keys: HashMap<&str, ()> = HashMap::new();
        for group in groups(&listed.members) {
            if keys.insert(group.key, ()).is_some() {
                return Err(reader.bad(
                    group.key,
                    "its members are not adjacent, or the key is there twice",
                ));
            }
            match reader.sample(&group)? {
                Some(sample) => samples.push(Sample {
                    id: format!("{shard}/{}", sample.id),
                    ..sample
                }),
                None => {
                    let path = format!("{shard}/{}", group.key);
                    skipped.push(Skipped::new(path, SkipReason::NotAnImage));
                }
            }
        }
        skipped.extend(listed.skipped.into_iter().map(|s| Skipped {
            path: format!("{shard}/{}", s.path),
            ..s
        }));
    }
    sort_unique(&mut samples, root)?;
    Ok(DataSet {
        root: root.display().to_string(),
        layout: Layout::WebDataset { shards: count },
        labels: Labels::Cls,
        samples,
        classes: Classes::imagenet().clone(),
        skipped,
    })
}

/// Reads the labels of a shard.
struct ClsReader<'a> {
    tar: &'a Tar,
    file: File,
}

impl<'a> ClsReader<'a> {
    fn open(tar: &'a Tar) -> Result<Self, DataError> {
        let file = File::open(&**tar.path()).map_err(|e| DataError::io(tar.path(), e))?;
        Ok(ClsReader { tar, file })
    }

    fn bad(&self, member: &str, what: impl Into<String>) -> DataError {
        DataError::BadArchive {
            path: self.tar.path().to_path_buf(),
            member: member.to_owned(),
            what: what.into(),
        }
    }

    /// The image of a key and its label; `None` for a key without an image.
    fn sample(&mut self, group: &Group) -> Result<Option<Sample>, DataError> {
        let is_whole_image = |part: &str| !part.contains('.') && is_image(&format!("x.{part}"));
        let mut images = group
            .members
            .iter()
            .filter(|(part, _)| is_whole_image(part));
        let Some((_, image)) = images.next() else {
            return Ok(None);
        };
        if images.next().is_some() {
            return Err(self.bad(group.key, "two images with one key"));
        }
        let Some((_, cls)) = group.members.iter().find(|(part, _)| *part == "cls") else {
            return Err(self.bad(&image.name, "no .cls with this key, while others have one"));
        };
        Ok(Some(Sample {
            id: image.name.clone(),
            label: Some(self.label(cls)?),
            source: source(self.tar, image),
        }))
    }

    fn label(&mut self, cls: &Member) -> Result<usize, DataError> {
        if cls.len > MAX_CLS_BYTES {
            return Err(self.bad(&cls.name, format!("{} bytes are no class index", cls.len)));
        }
        let mut text = String::new();
        let read = self
            .file
            .seek(SeekFrom::Start(cls.offset))
            .and_then(|_| (&mut self.file).take(cls.len).read_to_string(&mut text));
        read.map_err(|e| self.bad(&cls.name, e.to_string()))?;
        let classes = Classes::imagenet().len();
        match text.trim().parse::<u64>() {
            Ok(label) if label < classes as u64 => Ok(label as usize),
            Ok(label) => Err(DataError::LabelOutOfRange {
                path: self.tar.path().to_path_buf(),
                id: cls.name.clone(),
                label,
                classes,
            }),
            Err(_) => Err(self.bad(&cls.name, format!("{text:?} is no class index"))),
        }
    }
}
