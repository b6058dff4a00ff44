//! Events counted into frames of equal time.

use crate::{Event, EventsError, Recording};

/// Counts [bins, 2, height, width], row-major; channel 1 holds the events that became brighter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// Bins, 2, height, width.
    pub shape: [usize; 4],
    /// Events in each pixel.
    pub counts: Vec<u32>,
}

/// Pixels of all frames together that are allocated at most.
const PIXELS: u64 = 1 << 28;

/// Integrates a recording into `bins` frames as tonic's `ToFrame(n_time_bins)` does.
///
/// A bin is floor((last - first) / bins) long and holds its beginning, not its end: events after the last full bin are
/// dropped, the latest among them.
pub fn frames(recording: &Recording, bins: usize) -> Result<Frames, EventsError> {
    if bins == 0 {
        return Err(EventsError::Zero("the number of frames"));
    }
    let [width, height] = recording.size();
    let (Some(first), Some(last)) = (recording.events.first(), recording.events.last()) else {
        return Err(EventsError::Empty);
    };
    let shape = [bins, 2, height, width];
    let pixels = shape
        .iter()
        .try_fold(1u64, |n, axis| n.checked_mul(*axis as u64));
    let pixels = pixels
        .filter(|n| *n <= PIXELS)
        .ok_or(EventsError::TooLarge {
            what: "the number of pixels of all frames",
            found: pixels.unwrap_or(u64::MAX),
            limit: PIXELS,
        })?;
    let span = (i128::from(last.t) - i128::from(first.t)) / bins as i128;
    let mut counts = vec![0u32; pixels as usize];
    for (index, event) in recording.events.iter().enumerate() {
        let place = pixel(event, [width, height]).ok_or(EventsError::Outside {
            index,
            x: event.x,
            y: event.y,
            width,
            height,
        })?;
        let passed = i128::from(event.t) - i128::from(first.t);
        let Some(bin) = passed.checked_div(span).filter(|bin| *bin < bins as i128) else {
            continue;
        };
        counts[(bin as usize * 2 + usize::from(event.on)) * width * height + place] += 1;
    }
    Ok(Frames { shape, counts })
}

fn pixel(event: &Event, [width, height]: [usize; 2]) -> Option<usize> {
    let (x, y) = (usize::from(event.x), usize::from(event.y));
    (x < width && y < height).then_some(y * width + x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(t: i64, x: u16) -> Event {
        Event {
            t,
            x,
            y: 0,
            on: x == 1,
        }
    }

    #[test]
    fn bins_hold_their_beginning_and_the_rest_is_dropped() {
        // 23 / 2 = 11: bins [100, 111) and [111, 122); 122 and 123 are dropped.
        let events = [(100, 0), (110, 1), (111, 0), (121, 0), (122, 0), (123, 1)];
        let recording = Recording::new(events.map(|(t, x)| at(t, x)).to_vec(), Some([2, 1]));
        let frames = frames(&recording, 2).unwrap();
        assert_eq!(frames.shape, [2, 2, 1, 2]);
        assert_eq!(frames.counts, [1, 0, 0, 1, 2, 0, 0, 0]);
    }

    #[test]
    fn what_can_not_be_integrated_is_an_error() {
        let one = Recording::new(vec![at(0, 5)], Some([2, 1]));
        assert!(matches!(
            frames(&one, 1),
            Err(EventsError::Outside { x: 5, .. })
        ));
        assert!(matches!(frames(&one, 0), Err(EventsError::Zero(_))));
        assert!(matches!(
            frames(&Recording::new(vec![], None), 1),
            Err(EventsError::Empty)
        ));
        let far = Recording::new(vec![at(i64::MIN, 0), at(i64::MAX, 1)], Some([2, 1]));
        assert_eq!(frames(&far, 1).unwrap().counts, [1, 0, 0, 0]);
        assert!(matches!(
            frames(&far, usize::MAX),
            Err(EventsError::TooLarge { .. })
        ));
        // All in one moment: no bin has a length, and tonic gives empty frames too.
        let moment = Recording::new(vec![at(3, 0), at(3, 1)], Some([2, 1]));
        assert_eq!(frames(&moment, 2).unwrap().counts, [0; 8]);
    }
}
