//! The energy of repeated work, from tick to tick of a counter.

use crate::{EnergyCounter, Unavailable};
use serde::{Deserialize, Serialize};

/// Energy of a piece of work, always with how it is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Energy {
    /// Read from a counter of the hardware.
    Measured(Measured),
    /// Not known.
    Unavailable {
        /// Why, and what would help.
        reason: String,
    },
}

/// What a counter said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What counted: [`EnergyCounter::source`].
    pub source: String,
    /// Joules of one call: all that the device used, its idle power included.
    pub joules_per_call: f64,
    /// Mean power, watts.
    pub watts: f64,
    /// From the first to the last tick of the counter, seconds.
    pub seconds: f64,
    /// Calls meanwhile.
    pub calls: usize,
    /// Times the counter moved: with few of them the figure is coarse.
    pub ticks: usize,
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// At least this long from tick to tick, seconds.
    pub seconds: f64,
    /// At least this many ticks.
    pub ticks: usize,
    /// Give up after this long, seconds.
    pub limit_s: f64,
}

impl Window {
    /// A window of at least `seconds` and ten ticks of the counter.
    pub fn of(seconds: f64) -> Window {
        Window {
            seconds,
            ticks: 10,
            limit_s: 10.0 * seconds + 10.0,
        }
    }

    /// Repeats `call`, which must have finished its work when it returns, and reads the counter after each. `now_s` tells
    /// seconds since some fixed moment.
    ///
    /// Begins and ends with calls after which the counter had moved, so that a counter that is updated only ten times a
    /// second gives no half steps.
    ///
    /// # Errors
    /// The first error of `call`; a counter that fails or never moves is [`Energy::Unavailable`].
    pub fn measure<E>(
        &self,
        counter: &mut dyn EnergyCounter,
        now_s: impl Fn() -> f64,
        mut call: impl FnMut() -> Result<(), E>,
    ) -> Result<Energy, E> {
        let begun_s = now_s();
        let mut ticks = Ticks::default();
        let mut calls = 0;
        while now_s() - begun_s < self.limit_s {
            call()?;
            calls += 1;
            let reading = match counter.joules() {
                Ok(joules) => Reading {
                    joules,
                    at_s: now_s(),
                    calls,
                },
                Err(e) => return Ok(unavailable(&e)),
            };
            if let Some(measured) = ticks.see(reading, self, counter.source()) {
                return Ok(Energy::Measured(measured));
            }
        }
        Ok(unavailable(&Unavailable(format!(
            "{} moved {} times in {:.0} s: too seldom for a figure",
            counter.source(),
            ticks.seen,
            self.limit_s
        ))))
    }
}

fn unavailable(error: &Unavailable) -> Energy {
    Energy::Unavailable {
        reason: error.to_string(),
    }
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    joules: f64,
    at_s: f64,
    calls: usize,
}

#[derive(Default)]
struct Ticks {
    first: Option<Reading>,
    last: Option<Reading>,
    seen: usize,
}

impl Ticks {
    /// Takes a reading; the measurement, once the window is full.
    fn see(&mut self, now: Reading, window: &Window, source: &str) -> Option<Measured> {
        let last = self.last.replace(now)?;
        if now.joules <= last.joules {
            return None;
        }
        let Some(first) = self.first else {
            self.first = Some(now);
            return None;
        };
        self.seen += 1;
        let seconds = now.at_s - first.at_s;
        let joules = now.joules - first.joules;
        let calls = now.calls - first.calls;
        (seconds >= window.seconds && self.seen >= window.ticks).then(|| Measured {
            source: source.to_owned(),
            joules_per_call: joules / calls as f64,
            watts: joules / seconds,
            seconds,
            calls,
            ticks: self.seen,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::convert::Infallible;

    /// 100 W, updated every tenth of a second.
    struct Stepped<'a>(&'a Cell<f64>);

    impl EnergyCounter for Stepped<'_> {
        fn source(&self) -> &str {
            "fake"
        }

        fn joules(&mut self) -> Result<f64, Unavailable> {
            Ok((self.0.get() * 10.0 + 1e-6).floor() * 10.0)
        }
    }

    #[test]
    fn a_coarse_counter_gives_the_power_from_tick_to_tick() {
        let now = Cell::new(0.03);
        let call = || {
            now.set(now.get() + 0.04);
            Ok::<(), Infallible>(())
        };
        let energy = Window::of(2.0).measure(&mut Stepped(&now), || now.get(), call);
        let Ok(Energy::Measured(m)) = energy else {
            panic!("{energy:?}")
        };
        assert!((m.watts - 100.0).abs() < 2.0, "{m:?}");
        assert!((m.joules_per_call - 4.0).abs() < 0.1, "{m:?}");
        assert!(m.ticks >= 19 && m.seconds >= 2.0, "{m:?}");
    }

    struct Stuck;

    impl EnergyCounter for Stuck {
        fn source(&self) -> &str {
            "stuck"
        }

        fn joules(&mut self) -> Result<f64, Unavailable> {
            Ok(1.0)
        }
    }

    #[test]
    fn a_counter_that_never_moves_gives_no_figure_and_a_failing_call_ends_it() {
        let now = Cell::new(0.0);
        let call = || {
            now.set(now.get() + 1.0);
            Ok::<(), Infallible>(())
        };
        let energy = Window::of(1.0).measure(&mut Stuck, || now.get(), call);
        let Ok(Energy::Unavailable { reason }) = energy else {
            panic!("{energy:?}")
        };
        assert!(reason.contains("moved 0 times"), "{reason}");
        let failed = Window::of(1.0).measure(&mut Stuck, || now.get(), || Err("gone"));
        assert_eq!(failed, Err("gone"));
    }
}
