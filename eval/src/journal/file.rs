//! The journal's file: locked, scanned, appended to.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::header::differences;
use super::line::{self, START};
use super::{BatchRecord, FORMAT, Header, JournalError};

/// How long finished batches may wait for the disk.
///
/// A killed process loses nothing: what was handed to the system stays. Only a machine that loses
/// power or crashes forgets unsynced lines, and then at most this much work is done again. To sync
/// every batch would stall the model's thread for a disk's latency each time.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A journal that is open for appending, and locked against other processes.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Sum of the header, to which the sums of all other lines are chained.
    seed: String,
    synced: Instant,
}

/// What a journal says.
#[derive(Debug, Clone)]
pub struct Contents {
    /// What the evaluation depends on.
    pub header: Header,
    /// The finished batches, by index.
    pub batches: BTreeMap<usize, BatchRecord>,
}

#[derive(Serialize)]
struct HeaderLine<'a> {
    journal: &'a str,
    header: &'a Header,
}

#[derive(Deserialize)]
struct AnyHeaderLine {
    journal: String,
    header: serde_json::Value,
}

#[derive(Serialize)]
struct BatchLine<'a> {
    batch: &'a BatchRecord,
}

#[derive(Deserialize)]
struct OwnedBatchLine {
    batch: BatchRecord,
}

/// The readable part of a journal.
struct Scan {
    contents: Contents,
    seed: String,
    /// Where the last good line ends.
    end: u64,
}

/// Reads a journal that no other process is writing; a torn last line is left out.
pub fn read(path: &Path) -> Result<Contents, JournalError> {
    require_regular(path)?;
    let file = File::open(path).map_err(io_error(path, "open"))?;
    lock(file.try_lock_shared(), path)?;
    let scan = scan(&file, path)?.ok_or_else(|| JournalError::Empty { path: path.into() })?;
    Ok(scan.contents)
}

impl Journal {
    /// Opens or creates the journal of an evaluation with this header, and says which batches are done.
    ///
    /// `fresh` drops what an existing journal says. A file that is not a journal is never touched.
    /// The header may differ from the journal's in `machine` only: jobs move between machines.
    pub fn open(
        path: &Path,
        header: &Header,
        fresh: bool,
    ) -> Result<(Self, BTreeMap<usize, BatchRecord>), JournalError> {
        require_regular(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io_error(path, "open"))?;
        lock(file.try_lock(), path)?;
        let scan = if fresh {
            require_journal(&file, path)?;
            None
        } else {
            scan(&file, path)?
        };
        match scan {
            None => Ok((Self::begin(path, file, header)?, BTreeMap::new())),
            Some(scan) => Self::resume(path, file, header, scan),
        }
    }

    fn begin(path: &Path, mut file: File, header: &Header) -> Result<Self, JournalError> {
        file.set_len(0).map_err(io_error(path, "empty"))?;
        file.seek(SeekFrom::Start(0))
            .map_err(io_error(path, "seek"))?;
        let body = json(
            path,
            &HeaderLine {
                journal: FORMAT,
                header,
            },
        )?;
        let sealed = line::seal("", &body);
        let seed = line::open("", sealed.as_bytes())
            .map(|(sum, _)| sum.to_owned())
            .map_err(|why| JournalError::CorruptHeader {
                path: path.into(),
                why: why.to_owned(),
            })?;
        let mut journal = Journal {
            path: path.into(),
            file,
            seed,
            synced: Instant::now(),
        };
        journal.write_line(sealed)?;
        journal.sync()?;
        sync_parent(path);
        Ok(journal)
    }

    fn resume(
        path: &Path,
        mut file: File,
        header: &Header,
        scan: Scan,
    ) -> Result<(Self, BTreeMap<usize, BatchRecord>), JournalError> {
        let differences = differences(&scan.contents.header, header, &["machine"]);
        if !differences.is_empty() {
            return Err(JournalError::Settings {
                path: path.into(),
                differences,
            });
        }
        file.set_len(scan.end)
            .map_err(io_error(path, "drop the torn last line"))?;
        file.seek(SeekFrom::Start(scan.end))
            .map_err(io_error(path, "seek"))?;
        let journal = Journal {
            path: path.into(),
            file,
            seed: scan.seed,
            synced: Instant::now(),
        };
        Ok((journal, scan.contents.batches))
    }

    /// Adds a finished batch. After an error the journal must not be written to again, but can be resumed.
    pub fn append(&mut self, batch: &BatchRecord) -> Result<(), JournalError> {
        let body = json(&self.path, &BatchLine { batch })?;
        self.write_line(line::seal(&self.seed, &body))?;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    /// Waits until all that was added is on the disk.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.synced = Instant::now();
        self.file.sync_data().map_err(|source| JournalError::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn write_line(&mut self, mut line: String) -> Result<(), JournalError> {
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| JournalError::Write {
                path: self.path.clone(),
                source,
            })
    }
}

fn scan(file: &File, path: &Path) -> Result<Option<Scan>, JournalError> {
    require_journal(file, path)?;
    let mut reader = BufReader::new(file);
    let Some(first) = next_line(&mut reader, path)? else {
        return Ok(None);
    };
    let (seed, body) = match line::open("", first.text()) {
        Ok((seed, body)) if first.whole => (seed.to_owned(), body),
        Err(why) if first.whole && !first.last => {
            return Err(JournalError::CorruptHeader {
                path: path.into(),
                why: why.to_owned(),
            });
        }
        _ => return Ok(None),
    };
    let header = parse_header(path, &body)?;
    let mut scan = Scan {
        contents: Contents {
            header,
            batches: BTreeMap::new(),
        },
        seed,
        end: first.len(),
    };
    let mut number = 1;
    while let Some(line) = next_line(&mut reader, path)? {
        number += 1;
        let corrupt = |why: String| JournalError::Corrupt {
            path: path.into(),
            line: number,
            why,
        };
        let body = match line::open(&scan.seed, line.text()) {
            Ok((_, body)) if line.whole => body,
            Err(why) if !line.last => return Err(corrupt(format!("it {why}"))),
            _ => break,
        };
        let record = serde_json::from_str::<OwnedBatchLine>(&body)
            .map_err(|e| corrupt(format!("it is no batch: {e}")))?
            .batch;
        check_record(&scan.contents, &record).map_err(corrupt)?;
        scan.contents.batches.insert(record.batch, record);
        scan.end += line.len();
    }
    Ok(Some(scan))
}

fn parse_header(path: &Path, body: &str) -> Result<Header, JournalError> {
    let corrupt = |e: serde_json::Error| JournalError::CorruptHeader {
        path: path.into(),
        why: format!("cannot be understood: {e}"),
    };
    let line: AnyHeaderLine = serde_json::from_str(body).map_err(corrupt)?;
    if line.journal != FORMAT {
        return Err(JournalError::Format {
            path: path.into(),
            found: line.journal,
        });
    }
    serde_json::from_value(line.header).map_err(corrupt)
}

fn check_record(contents: &Contents, record: &BatchRecord) -> Result<(), String> {
    let header = &contents.header;
    let images = header.images_of(record.batch);
    if images.is_empty() || !header.shard.takes(record.batch) {
        return Err(format!(
            "batch {} is not part of shard {} of {} images",
            record.batch, header.shard, header.images
        ));
    }
    if !images.eq(record.rows.iter().map(|row| row.index)) {
        return Err(format!("batch {} has not its images", record.batch));
    }
    if contents.batches.contains_key(&record.batch) {
        return Err(format!("batch {} is there twice", record.batch));
    }
    Ok(())
}

struct Line {
    bytes: Vec<u8>,
    /// It has its line end.
    whole: bool,
    /// Nothing follows it.
    last: bool,
}

impl Line {
    fn text(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - usize::from(self.whole)]
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

fn next_line(reader: &mut BufReader<&File>, path: &Path) -> Result<Option<Line>, JournalError> {
    let mut bytes = Vec::new();
    reader
        .read_until(b'\n', &mut bytes)
        .map_err(io_error(path, "read"))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let whole = bytes.ends_with(b"\n");
    let last = reader
        .fill_buf()
        .map_err(io_error(path, "read"))?
        .is_empty();
    Ok(Some(Line { bytes, whole, last }))
}

/// Refuses a file that does not start as a journal does, or as one does that was torn at once.
fn require_journal(mut file: &File, path: &Path) -> Result<(), JournalError> {
    let mut start = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.take(START.len() as u64).read_to_end(&mut start))
        .and_then(|_| file.seek(SeekFrom::Start(0)))
        .map_err(io_error(path, "read"))?;
    if START.as_bytes().starts_with(&start) {
        Ok(())
    } else {
        Err(JournalError::NotAJournal { path: path.into() })
    }
}

/// Refuses folders, pipes and devices: they cannot be resumed from, and opening one may wait forever.
fn require_regular(path: &Path) -> Result<(), JournalError> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(JournalError::NotAJournal { path: path.into() }),
        _ => Ok(()),
    }
}

fn lock(result: Result<(), TryLockError>, path: &Path) -> Result<(), JournalError> {
    match result {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(JournalError::Io {
            path: path.into(),
            action: "lock (a journal needs a file system with locks)",
            source,
        }),
    }
}

fn json(path: &Path, value: &impl Serialize) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|e| JournalError::Write {
        path: path.into(),
        source: e.into(),
    })
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io {
        path: path.into(),
        action,
        source,
    }
}

/// Makes the file's name itself survive a crash. Not every system can, and none needs to go on.
fn sync_parent(path: &Path) {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if let Ok(folder) = File::open(parent) {
        let _ = folder.sync_all();
    }
}
