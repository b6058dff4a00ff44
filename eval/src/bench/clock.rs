//! The clock, as a trait so that schedules can be tested without waiting.

use std::time::Instant;

/// A clock that never goes back.
pub trait Clock {
    /// Seconds since some fixed moment.
    fn now_s(&self) -> f64;
}

/// The machine's monotonic clock, from the moment it was made.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now_s(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
