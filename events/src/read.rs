//! Files to recordings.

use crate::{EventsError, Recording, aedat, bin, npz};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What a stranger's file may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a file.
    pub bytes: u64,
    /// Events of a recording.
    pub events: u64,
}

impl Default for Limits {
    /// 1 GiB and 64 million events, which take as much: the longest of DVS128 Gesture has a few million.
    fn default() -> Self {
        Limits {
            bytes: 1 << 30,
            events: 1 << 26,
        }
    }
}

impl Limits {
    pub(crate) fn check_events(&self, found: u64) -> Result<(), EventsError> {
        if found > self.events {
            return Err(EventsError::TooLarge {
                what: "the number of events",
                found,
                limit: self.events,
            });
        }
        Ok(())
    }
}

/// How events are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// AEDAT 3.1 or 2.0, told apart by the first line.
    Aedat,
    /// N-MNIST's and N-Caltech101's five bytes for each event.
    Bin,
    /// Arrays `t`, `x`, `y`, `p`, as SpikingJelly writes them.
    Npz,
}

impl Format {
    /// By the first bytes, else by the ending of the name: `.bin` has nothing to know it by.
    pub fn of(bytes: &[u8], path: Option<&Path>) -> Result<Format, EventsError> {
        if bytes.starts_with(b"#!AER-DAT") {
            return Ok(Format::Aedat);
        }
        if bytes.starts_with(b"PK\x03\x04") {
            return Ok(Format::Npz);
        }
        let ending = path.and_then(Path::extension);
        if ending.is_some_and(|e| e.eq_ignore_ascii_case("bin")) {
            return Ok(Format::Bin);
        }
        Err(EventsError::Unknown)
    }
}

/// A recording from a file.
pub fn open(path: &Path, limits: &Limits) -> Result<Recording, EventsError> {
    let io = |source| EventsError::Io {
        path: path.to_path_buf(),
        source,
    };
    let in_file = |source| EventsError::File {
        path: path.to_path_buf(),
        source: Box::new(source),
    };
    let file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    let mut bounded = file.take(limits.bytes.saturating_add(1));
    bounded.read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limits.bytes {
        return Err(in_file(EventsError::TooLarge {
            what: "the size in bytes",
            found: bytes.len() as u64,
            limit: limits.bytes,
        }));
    }
    let format = Format::of(&bytes, Some(path)).map_err(in_file)?;
    read(format, &bytes, limits).map_err(in_file)
}

/// A recording from the bytes of a file.
pub fn read(format: Format, bytes: &[u8], limits: &Limits) -> Result<Recording, EventsError> {
    match format {
        Format::Aedat => aedat::read(bytes, limits),
        Format::Bin => bin::read(bytes, limits),
        Format::Npz => npz::read(bytes, limits),
    }
}
