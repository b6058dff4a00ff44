//! What is wrong with a recording.

use std::path::PathBuf;

/// A recording that can not be read or integrated.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its words.
        source: std::io::Error,
    },
    /// The bytes are not what they should be.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<EventsError>,
    },
    /// Neither name nor contents tell a format.
    #[error(
        "no recording of events that zoo knows: it reads AEDAT 3.1 and 2.0 (.aedat), N-MNIST and N-Caltech101 (.bin) and SpikingJelly's .npz"
    )]
    Unknown,
    /// The format is right, its contents are not.
    #[error("{format}: {what}")]
    Malformed {
        /// Name of the format.
        format: &'static str,
        /// What is wrong, and where.
        what: String,
    },
    /// Larger than allowed.
    #[error(
        "{what} is {found}, more than the {limit} allowed; raise the limit if the file is to be trusted"
    )]
    TooLarge {
        /// Of what there is too much.
        what: &'static str,
        /// How much.
        found: u64,
        /// How much may be.
        limit: u64,
    },
    /// Frames of nothing.
    #[error("there are no events, so there is no time to divide into frames")]
    Empty,
    /// An event that the frames have no pixel for.
    #[error("event {index} is at column {x}, row {y}: outside of the sensor of {width}x{height}")]
    Outside {
        /// Which event, from 0, in order of time.
        index: usize,
        /// Its column.
        x: u16,
        /// Its row.
        y: u16,
        /// Columns of the sensor.
        width: usize,
        /// Rows of the sensor.
        height: usize,
    },
    /// Frames without time or without pixels.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
}

/// A malformed file.
pub(crate) fn malformed(format: &'static str, what: impl Into<String>) -> EventsError {
    EventsError::Malformed {
        format,
        what: what.into(),
    }
}
