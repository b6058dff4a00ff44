//! N-MNIST and N-Caltech101: five bytes for each event, big-endian: x, y, one bit of polarity, 23 bits of microseconds.
//!
//! Orchard et al., "Converting static image datasets to spiking neuromorphic datasets using saccades", 2015. An event at
//! row 240 is none: it says that the clock has passed another 2^13 microseconds.

use crate::error::malformed;
use crate::{Event, EventsError, Limits, Recording};

const EVENT: usize = 5;
const OVERFLOW_ROW: u8 = 240;
const OVERFLOW: i64 = 1 << 13;

pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Result<Recording, EventsError> {
    if !bytes.len().is_multiple_of(EVENT) {
        let what = format!(
            "{} bytes are no whole number of {EVENT}-byte events: is it cut short?",
            bytes.len()
        );
        return Err(malformed("N-MNIST .bin", what));
    }
    limits.check_events((bytes.len() / EVENT) as u64)?;
    let mut passed = 0;
    let mut events = Vec::with_capacity(bytes.len() / EVENT);
    for event in bytes.chunks_exact(EVENT) {
        let (x, y) = (event[0], event[1]);
        if y == OVERFLOW_ROW {
            passed += OVERFLOW;
            continue;
        }
        let clock = u32::from_be_bytes([0, event[2] & 0x7F, event[3], event[4]]);
        events.push(Event {
            t: i64::from(clock) + passed,
            x: x.into(),
            y: y.into(),
            on: event[2] & 0x80 != 0,
        });
    }
    Ok(Recording::new(events, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_the_format_says() {
        // x 3, y 7, on, t 0x012345; an overflow; x 33, y 1, off, t 6.
        let bytes = [3, 7, 0x81, 0x23, 0x45, 0, 240, 0, 0, 0, 33, 1, 0, 0, 6];
        let events = read(&bytes, &Limits::default()).unwrap().events;
        let first = Event {
            t: 6 + 8192,
            x: 33,
            y: 1,
            on: false,
        };
        let second = Event {
            t: 0x012345,
            x: 3,
            y: 7,
            on: true,
        };
        assert_eq!(events, [first, second]);
        let error = read(&bytes[..9], &Limits::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("9 bytes"), "{error}");
        let few = Limits {
            events: 2,
            ..Limits::default()
        };
        assert!(matches!(
            read(&bytes, &few),
            Err(EventsError::TooLarge { found: 3, .. })
        ));
    }
}
