//! Frames to the size a model takes.

use crate::{EventsError, Frames};

/// Frames as numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Resized {
    /// Bins, 2, height, width.
    pub shape: [usize; 4],
    /// Interpolated counts, row-major.
    pub values: Vec<f64>,
}

/// Where an output row or column lies between two of the input.
struct Between {
    low: usize,
    high: usize,
    share: f64,
}

/// Bilinear, with the corners' centres kept (`align_corners=True`), as STEP's loaders of event data resize.
pub fn resize(frames: &Frames, height: usize, width: usize) -> Result<Resized, EventsError> {
    let [bins, channels, rows, columns] = frames.shape;
    if height == 0 || width == 0 {
        return Err(EventsError::Zero("the size to resize to"));
    }
    if frames.counts.is_empty() {
        return Err(EventsError::Empty);
    }
    let vertical: Vec<Between> = (0..height).map(|i| between(i, rows, height)).collect();
    let horizontal: Vec<Between> = (0..width).map(|i| between(i, columns, width)).collect();
    let mut values = Vec::with_capacity(bins * channels * height * width);
    for map in frames.counts.chunks_exact(rows * columns) {
        for v in &vertical {
            let row = |r: usize, h: &Between| {
                let at = |column: usize| f64::from(map[r * columns + column]);
                at(h.low) * (1.0 - h.share) + at(h.high) * h.share
            };
            let mixed = |h: &Between| row(v.low, h) * (1.0 - v.share) + row(v.high, h) * v.share;
            values.extend(horizontal.iter().map(mixed));
        }
    }
    Ok(Resized {
        shape: [bins, channels, height, width],
        values,
    })
}

fn between(i: usize, inputs: usize, outputs: usize) -> Between {
    let scale = if outputs > 1 {
        (inputs - 1) as f64 / (outputs - 1) as f64
    } else {
        0.0
    };
    let place = i as f64 * scale;
    let low = (place as usize).min(inputs - 1);
    Between {
        low,
        high: (low + 1).min(inputs - 1),
        share: place - low as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_stay_and_the_middle_is_between() {
        let frames = Frames {
            shape: [1, 1, 2, 2],
            counts: vec![0, 4, 8, 12],
        };
        let resized = resize(&frames, 3, 3).unwrap();
        assert_eq!(
            resized.values,
            [0.0, 2.0, 4.0, 4.0, 6.0, 8.0, 8.0, 10.0, 12.0]
        );
        assert_eq!(resize(&frames, 1, 1).unwrap().values, [0.0]);
        assert!(resize(&frames, 0, 3).is_err());
    }
}
