//! What can be wrong with a journal.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use super::Difference;

/// What can be wrong with a journal, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("journal {path}: cannot {action}: {source}")]
    Io {
        /// The journal.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The system refused to take a whole line; what was written before is safe.
    #[error(
        "journal {path}: cannot write: {source}; the batches before are safe: make room and run again to go on from there"
    )]
    Write {
        /// The journal.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "journal {path} is in use by another process: wait for it, or give another journal path"
    )]
    Locked {
        /// The journal.
        path: PathBuf,
    },
    /// The file is something else, and is left alone.
    #[error("{path} is not a journal of an evaluation, so it is left alone: give another path")]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// The journal has no complete first line.
    #[error(
        "journal {path} has no complete first line: its evaluation was stopped before the first batch; run it again"
    )]
    Empty {
        /// The journal.
        path: PathBuf,
    },
    /// Written in another format.
    #[error(
        "journal {path} has the format `{found}`, this version reads `{}`: start over with --fresh, or give another journal path",
        super::FORMAT
    )]
    Format {
        /// The journal.
        path: PathBuf,
        /// The format that it names.
        found: String,
    },
    /// A line other than the last is damaged.
    #[error(
        "journal {path}, line {line}: {why}; delete this line to evaluate only its batch again, or start over with --fresh"
    )]
    Corrupt {
        /// The journal.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The header is damaged, and with it what all other lines rely on.
    #[error("journal {path}, line 1: the header {why}; start over with --fresh")]
    CorruptHeader {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The journal is of an evaluation with other settings.
    #[error(
        "journal {path} is of an evaluation with other settings:{}\nstart over with --fresh, or give another journal path",
        list(.differences)
    )]
    Settings {
        /// The journal.
        path: PathBuf,
        /// First the journal's value, then the present one.
        differences: Vec<Difference>,
    },
    /// The journal's image is another one than the data set's, or has another label.
    #[error(
        "journal {path}: image {index} is `{journal}` there and `{data_set}` in the data set: the data set has changed; start over with --fresh, or give another journal path"
    )]
    OtherImage {
        /// The journal.
        path: PathBuf,
        /// Index of the image.
        index: usize,
        /// Id and label in the journal.
        journal: String,
        /// Id and label in the data set.
        data_set: String,
    },
}

fn list(differences: &[Difference]) -> String {
    let mut text = String::new();
    for d in differences {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n  {}: {} in the journal, {} now",
            d.setting, d.first, d.second
        );
    }
    text
}
