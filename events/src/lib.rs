//! Recordings of event cameras: AEDAT 3.1 and 2.0, N-MNIST's and N-Caltech101's `.bin`, SpikingJelly's `.npz`; and their
//! integration into frames.
//!
//! Knows no model and no tensor library. Files are data from strangers: everything is bounded, nothing panics.

mod aedat;
mod bin;
mod error;
mod frames;
mod npz;
mod read;
mod resize;

pub use error::EventsError;
pub use frames::{Frames, frames};
pub use read::{Format, Limits, open, read};
pub use resize::{Resized, resize};

/// A change of brightness at one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Microseconds, from wherever the recording counts.
    pub t: i64,
    /// Column.
    pub x: u16,
    /// Row.
    pub y: u16,
    /// Whether it became brighter.
    pub on: bool,
}

/// The events of one recording, in order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Sorted by `t`; events of one moment stay as they were recorded.
    pub events: Vec<Event>,
    /// Width and height of the sensor, where the format says so.
    pub sensor: Option<[usize; 2]>,
}

impl Recording {
    /// Sorts `events` by time.
    pub fn new(mut events: Vec<Event>, sensor: Option<[usize; 2]>) -> Self {
        if !events.is_sorted_by_key(|e| e.t) {
            events.sort_by_key(|e| e.t);
        }
        Recording { events, sensor }
    }

    /// The sensor's width and height, else the smallest that holds every event, as the loader of N-CARS infers it.
    pub fn size(&self) -> [usize; 2] {
        self.sensor.unwrap_or_else(|| {
            let largest = |of: fn(&Event) -> u16| self.events.iter().map(of).max();
            [largest(|e| e.x), largest(|e| e.y)].map(|m| m.map_or(0, |m| usize::from(m) + 1))
        })
    }
}
