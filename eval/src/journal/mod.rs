//! The journal of an evaluation: what was settled, and every finished batch, in one append-only file.
//!
//! One JSON object a line. The first line is the [`Header`]; each further line is one finished
//! [`BatchRecord`]. Every line carries a checksum that is chained to the header, so a line of
//! another journal does not pass either. The file is valid after a kill at any byte: a torn last
//! line is dropped and its batch is evaluated again.

mod error;
mod file;
mod header;
mod line;
mod record;

pub use error::JournalError;
pub use file::{Contents, Journal, read};
pub use header::{Difference, Header, Preprocessing, Reported, Shard, ShardError, differences};
pub use record::{BatchRecord, Row, RowResult, Took};

/// Name and version of the journal's format, written into its first line.
pub const FORMAT: &str = "zoo.journal/1";
