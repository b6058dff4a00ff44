//! Tells people how far an evaluation is, on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often [`Lines`] writes one.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Images done, in this run and those that it resumes.
    pub done: usize,
    /// Images of the shard.
    pub total: usize,
    /// Images a second of this run; 0 before the first batch is done.
    pub rate: f64,
    /// Time that is left at this rate.
    pub eta: Option<Duration>,
}

impl Progress {
    pub(super) fn new(done: usize, total: usize, evaluated: usize, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let rate = if evaluated > 0 && seconds > 0.0 {
            evaluated as f64 / seconds
        } else {
            0.0
        };
        let left = (total - done.min(total)) as f64 / rate;
        Progress {
            done,
            total,
            rate,
            eta: Duration::try_from_secs_f64(left).ok(),
        }
    }
}

/// Is told how far an evaluation is: at its start, after every batch, and now and then while waiting.
pub trait Observer {
    /// Called on the thread of the predictor; should return at once.
    fn progress(&mut self, progress: &Progress);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn progress(&mut self, _: &Progress) {}
}

/// A bar on a terminal.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar on standard error that is titled with the model's name.
    pub fn new(title: &str) -> Self {
        let bar = ProgressBar::new(0);
        let template = "{prefix} {wide_bar} {pos}/{len} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(title.to_owned());
        Bar(bar)
    }
}

impl Observer for Bar {
    fn progress(&mut self, progress: &Progress) {
        self.0.set_length(progress.total as u64);
        self.0.set_position(progress.done as u64);
        self.0.set_message(pace(progress));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A plain line every five seconds, for logs; and one at the end.
#[derive(Debug)]
pub struct Lines<W> {
    title: String,
    out: W,
    written: Instant,
    ended: bool,
}

impl<W: Write> Lines<W> {
    /// Lines that begin with the model's name.
    pub fn new(title: &str, out: W) -> Self {
        Lines {
            title: title.to_owned(),
            out,
            written: Instant::now(),
            ended: false,
        }
    }
}

impl<W: Write> Observer for Lines<W> {
    fn progress(&mut self, progress: &Progress) {
        let end = progress.done == progress.total && !self.ended;
        if !end && self.written.elapsed() < LINE_EVERY {
            return;
        }
        self.written = Instant::now();
        self.ended |= end;
        let Progress { done, total, .. } = progress;
        // Progress that nobody can read is no reason to stop.
        let _ = writeln!(
            self.out,
            "{}: {done}/{total} images, {}",
            self.title,
            pace(progress)
        );
    }
}

/// A bar where standard error is a terminal, lines where it is not.
pub fn for_stderr(title: &str) -> Box<dyn Observer> {
    if std::io::stderr().is_terminal() {
        Box::new(Bar::new(title))
    } else {
        Box::new(Lines::new(title, std::io::stderr()))
    }
}

fn pace(progress: &Progress) -> String {
    let rate = format!("{:.1} images/s", progress.rate);
    match progress.eta {
        Some(eta) if progress.done < progress.total => format!("{rate}, {} left", clock(eta)),
        _ => rate,
    }
}

/// `1:02:03`, or `2:03` below an hour.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_of_this_run_and_eta_of_what_is_left() {
        let p = Progress::new(600, 1000, 200, Duration::from_secs(10));
        assert_eq!((p.rate, p.eta), (20.0, Some(Duration::from_secs(20))));
        let start = Progress::new(400, 1000, 0, Duration::from_secs(3));
        assert_eq!((start.rate, start.eta), (0.0, None));
    }

    #[test]
    fn lines_are_few_and_the_last_one_is_there_once() {
        let mut out = Vec::new();
        let mut lines = Lines::new("m", &mut out);
        for done in [0, 1, 2, 3, 3] {
            lines.progress(&Progress::new(done, 3, done, Duration::from_secs(1)));
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "m: 3/3 images, 3.0 images/s\n"
        );
    }

    #[test]
    fn clocks_have_hours_when_needed() {
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
        assert_eq!(clock(Duration::from_secs(63)), "1:03");
    }
}
