//! Where the members of a tar lie: headers only, nothing is extracted.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::error::DataError;
use super::layout::{SkipReason, Skipped};
use super::walk::base_name;

/// More members than any data set here has (ImageNet-21k has 14 million images): a bound on what headers may claim.
const MAX_MEMBERS: usize = 50_000_000;

/// What one member's headers may take, long names and pax records included: the tar crate reads them into memory.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// A regular, visible member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Its path, without a leading `./`.
    pub name: String,
    /// First byte in the file that holds the outermost archive.
    pub offset: u64,
    /// Size in bytes.
    pub len: u64,
}

/// What is in a tar.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub members: Vec<Member>,
    pub folders: Vec<String>,
    pub skipped: Vec<Skipped>,
}

/// Part of a file, as a file of its own, of which headers are read and nothing else.
struct Window<R> {
    inner: R,
    start: u64,
    len: u64,
    position: u64,
    /// Bytes that may still be read for the present member.
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Window<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let room = left.min(buffer.len());
        let n = self.inner.read(&mut buffer[..room])?;
        self.position += n as u64;
        let Some(allowance) = self.allowance.get().checked_sub(n as u64) else {
            let what = format!("headers of more than {MAX_HEADER_BYTES} bytes for one member");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        };
        self.allowance.set(allowance);
        Ok(n)
    }
}

impl<R: Seek> Seek for Window<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, delta) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(delta) => (self.position, delta),
            SeekFrom::End(delta) => (self.len, delta),
        };
        let position = base
            .checked_add_signed(delta)
            .and_then(|p| p.checked_add(self.start).map(|at| (p, at)));
        let Some((position, at)) = position else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.inner.seek(SeekFrom::Start(at))?;
        self.position = position;
        Ok(position)
    }
}

/// An archive that is being listed: a file, or a member of one.
pub(super) struct Tar {
    path: Arc<PathBuf>,
    start: u64,
    len: u64,
}

impl Tar {
    /// The whole file.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn open(path: &Path) -> Result<Tar, DataError> {
        let metadata = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?;
        Ok(Tar {
            path: Arc::new(path.to_owned()),
            start: 0,
            len: metadata.len(),
        })
    }

    /// A tar within this one.
    pub fn inner(&self, member: &Member) -> Tar {
        Tar {
            path: Arc::clone(&self.path),
            start: member.offset,
            len: member.len,
        }
    }

    /// The file.
    pub fn path(&self) -> &Arc<PathBuf> {
        &self.path
    }

    /// Lists the archive.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::BadArchive`] for headers that are no headers, members that reach past the end,
    /// sparse members, and an archive that stops without its end mark (an interrupted download).
    pub fn list(&self) -> Result<Members, DataError> {
        let file = File::open(&**self.path).map_err(|e| DataError::io(&self.path, e))?;
        let allowance = Rc::new(Cell::new(MAX_HEADER_BYTES));
        let mut window = Window {
            inner: BufReader::with_capacity(512, file),
            start: self.start,
            len: self.len,
            position: 0,
            allowance: Rc::clone(&allowance),
        };
        window
            .seek(SeekFrom::Start(0))
            .map_err(|e| DataError::io(&self.path, e))?;
        let mut archive = tar::Archive::new(window);
        let mut lister = Lister {
            tar: self,
            found: Members::default(),
            end: 0,
        };
        let entries = archive
            .entries_with_seek()
            .map_err(|e| lister.unreadable(&e))?;
        for entry in entries {
            let entry = entry.map_err(|e| lister.unreadable(&e))?;
            lister.entry(&entry)?;
            allowance.set(MAX_HEADER_BYTES);
        }
        lister.finish()
    }
}

struct Lister<'a> {
    tar: &'a Tar,
    found: Members,
    /// Where the last member's blocks end, within the archive.
    end: u64,
}

impl Lister<'_> {
    fn bad(&self, member: impl Into<String>, what: impl Into<String>) -> DataError {
        DataError::BadArchive {
            path: self.tar.path.to_path_buf(),
            member: member.into(),
            what: what.into(),
        }
    }

    fn unreadable(&self, error: &io::Error) -> DataError {
        let after = match self.found.members.last() {
            Some(member) => format!("after {}", member.name),
            None => "at its start".to_owned(),
        };
        self.bad(
            after,
            format!("{error}; this is no uncompressed tar, or it is damaged"),
        )
    }

    fn entry<R: Read>(&mut self, entry: &tar::Entry<'_, R>) -> Result<(), DataError> {
        let bytes = entry.path_bytes();
        let Ok(name) = std::str::from_utf8(&bytes) else {
            let lossy = String::from_utf8_lossy(&bytes);
            return Err(self.bad(lossy, "the member's name is not UTF-8"));
        };
        let name = name.trim_start_matches("./").to_owned();
        let kind = entry.header().entry_type();
        let (start, len) = (entry.raw_file_position(), entry.size());
        if kind.is_gnu_sparse() {
            return Err(self.bad(
                name,
                "a sparse member, which is not read; pack the tar without --sparse",
            ));
        }
        match start.checked_add(len) {
            Some(end) if end <= self.tar.len => self.end = end.next_multiple_of(512),
            _ => {
                let size = self.tar.len;
                let what = format!(
                    "its header says {len} bytes from {start}, past the archive's end at {size}; download it again"
                );
                return Err(self.bad(name, what));
            }
        }
        if kind.is_dir() {
            let folder = name.trim_end_matches('/');
            if !folder.is_empty() && folder != "." {
                self.found.folders.push(folder.to_owned());
            }
            return Ok(());
        }
        let hidden = name.split('/').any(|part| part.starts_with('.'));
        if hidden || !(kind.is_file() || kind.is_contiguous()) {
            let reason = if hidden {
                SkipReason::Hidden
            } else {
                SkipReason::NotAFile
            };
            self.found.skipped.push(Skipped::new(name, reason));
            return Ok(());
        }
        if self.found.members.len() == MAX_MEMBERS {
            return Err(self.bad(name, format!("more than {MAX_MEMBERS} members")));
        }
        self.found.members.push(Member {
            name,
            offset: self.tar.start + start,
            len,
        });
        Ok(())
    }

    fn finish(self) -> Result<Members, DataError> {
        if self.end >= self.tar.len {
            let last = self.found.members.last();
            let member = last.map_or("empty", |m| base_name(&m.name)).to_owned();
            return Err(self.bad(
                member,
                "the archive stops here without its end mark, so more may be missing; download it again",
            ));
        }
        Ok(self.found)
    }
}
