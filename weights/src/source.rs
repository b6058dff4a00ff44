//! The bytes of a file: mapped, so that a large checkpoint is not copied into memory first.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::error::{Problem, within};
use crate::limits::Limits;

/// Bytes of a checkpoint.
#[derive(Debug)]
pub(crate) enum Source {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Source {
    /// Maps the file at `path`.
    pub(crate) fn open(path: &Path, limits: &Limits) -> Result<Source, Problem> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(Problem::Io(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        within("bytes of the file", meta.len(), limits.file_bytes)?;
        if meta.len() == 0 {
            return Err(Problem::Empty);
        }
        // SAFETY: the map is read-only and private to this value. As for every user of mmap, another process
        // that shortens the file while it is mapped can end this one; a checkpoint is not written in place
        // by any tool known to us (they write beside it and rename).
        let map = unsafe { Mmap::map(&file)? };
        Ok(Source::Mapped(map))
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Source::Mapped(map) => map,
            Source::Owned(bytes) => bytes,
        }
    }
}

/// SHA-256 of a file in hexadecimal, read in pieces.
pub fn file_sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// SHA-256 of bytes in hexadecimal.
pub fn bytes_sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
