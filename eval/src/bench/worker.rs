//! A subject as a process of its own: it answers one JSON line for each JSON line it is sent.
//!
//! ```text
//! {"cmd":"describe"}                               -> {"name":..,"engine":..,"version":..,"model":..,"device":..,
//!                                                      "dtype":..,"threads":..,"input":[3,224,224],"options":[..]}
//! {"cmd":"logits","batch":2,"salt":"zoo"}          -> {"logits":[[..],[..]]}
//! {"cmd":"block","batch":8,"seconds":0.25}         -> {"first_s":0.02,"times_s":[..],"cpu_s":0.98}
//! {"cmd":"quit"}                                   -> (the worker ends; it also ends when its input does)
//! anything that fails                              -> {"error":"what and why"}
//! ```
//!
//! `first_s` is the first call, which finds the machine as the worker before left it; `times_s` are the calls after
//! it, until `seconds` are over; `cpu_s` is the CPU time the process spent in the block: whoever interleaves
//! the workers takes it from the machine's busy time to know other processes' load. `logits` is there so that
//! peers can be held to each other before they are timed. A worker writes nothing else to its output.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::{Clock, Description, Subject, own_cpu_s, schedule::timed_calls};
use crate::PredictError;

/// A longer block is a mistake, and would leave the other side waiting.
const MAX_BLOCK_S: f64 = 60.0;

/// A [`Subject`] that can be asked who it is and what it computes.
pub trait Worker: Subject {
    /// Who it is.
    fn describe(&self) -> Description;

    /// Logits of `batch` images made by the formula that also makes goldens, with this salt and the name `input`:
    /// one tensor of shape `[batch, channels, height, width]`. One row for each image.
    fn logits(&mut self, batch: usize, salt: &str) -> Result<Vec<Vec<f64>>, PredictError>;
}

/// What a worker is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Who are you?
    Describe,
    /// What do you compute?
    Logits {
        /// Images.
        batch: usize,
        /// The formula's salt.
        salt: String,
    },
    /// How fast are you?
    Block {
        /// Images per call.
        batch: usize,
        /// How long to go on calling, seconds.
        seconds: f64,
    },
    /// End.
    Quit,
}

/// What a worker answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Request::Describe`].
    Description(Description),
    /// To [`Request::Logits`].
    Logits {
        /// One row for each image.
        logits: Vec<Vec<f64>>,
    },
    /// To [`Request::Block`].
    Block {
        /// Seconds of the first call, a call after a pause.
        first_s: f64,
        /// Seconds of each call after it.
        times_s: Vec<f64>,
        /// CPU time this process spent meanwhile, seconds of one core.
        cpu_s: f64,
    },
    /// To anything that failed.
    Error {
        /// What and why.
        error: String,
    },
}

/// Answers requests until `quit` or the end of `reader`.
///
/// # Errors
/// Only when reading or writing fails; whatever else goes wrong is an answer.
pub fn serve(
    reader: impl BufRead,
    mut writer: impl Write,
    worker: &mut dyn Worker,
    clock: &dyn Clock,
) -> io::Result<()> {
    for line in reader.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = match serde_json::from_str(&line) {
            Ok(Request::Quit) => return Ok(()),
            Ok(request) => answer(&request, worker, clock),
            Err(error) => Err(format!("not a request ({error}): {line}")),
        };
        let answer = answer.unwrap_or_else(|error| Answer::Error { error });
        serde_json::to_writer(&mut writer, &answer)?;
        writeln!(writer)?;
        writer.flush()?;
    }
    Ok(())
}

fn answer(request: &Request, worker: &mut dyn Worker, clock: &dyn Clock) -> Result<Answer, String> {
    match request {
        Request::Describe => Ok(Answer::Description(worker.describe())),
        Request::Logits { batch, salt } => {
            let logits = worker.logits(checked(*batch)?, salt);
            logits
                .map(|logits| Answer::Logits { logits })
                .map_err(|e| e.to_string())
        }
        Request::Block { batch, seconds } => block(worker, checked(*batch)?, *seconds, clock),
        Request::Quit => Err("quit has no answer".into()),
    }
}

fn checked(batch: usize) -> Result<usize, String> {
    (batch > 0)
        .then_some(batch)
        .ok_or_else(|| "batch is 0: it must be 1 or more".into())
}

fn block(
    worker: &mut dyn Worker,
    batch: usize,
    seconds: f64,
    clock: &dyn Clock,
) -> Result<Answer, String> {
    if !(seconds > 0.0 && seconds <= MAX_BLOCK_S) {
        return Err(format!(
            "seconds is {seconds}: it must be more than 0 and at most {MAX_BLOCK_S}"
        ));
    }
    let before_s = own_cpu_s();
    let calls = timed_calls(worker, batch, seconds, clock, || false).map_err(|e| e.to_string())?;
    let cpu_s = own_cpu_s() - before_s;
    Ok(Answer::Block {
        first_s: calls.first_s,
        times_s: calls.times_s,
        cpu_s,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Ticks a tenth of a second every time it is read.
    struct TickingClock(Cell<f64>);

    impl Clock for TickingClock {
        fn now_s(&self) -> f64 {
            self.0.set(self.0.get() + 0.1);
            self.0.get()
        }
    }

    struct FakeWorker;

    impl Subject for FakeWorker {
        fn name(&self) -> &str {
            "fake"
        }

        fn run_once(&mut self, batch: usize) -> Result<(), PredictError> {
            if batch > 8 {
                return Err(PredictError(format!("batch {batch} does not fit")));
            }
            Ok(())
        }
    }

    impl Worker for FakeWorker {
        fn describe(&self) -> Description {
            Description {
                name: "fake".into(),
                engine: "none".into(),
                version: "1".into(),
                model: "m".into(),
                device: "cpu".into(),
                dtype: "f32".into(),
                threads: 2,
                input: [3, 4, 5],
                options: Vec::new(),
            }
        }

        fn logits(&mut self, batch: usize, salt: &str) -> Result<Vec<Vec<f64>>, PredictError> {
            Ok(vec![vec![salt.len() as f64, 0.5]; batch])
        }
    }

    fn answers(requests: &str) -> Vec<Answer> {
        let mut out = Vec::new();
        let clock = TickingClock(Cell::new(0.0));
        serve(requests.as_bytes(), &mut out, &mut FakeWorker, &clock).unwrap();
        let lines = std::str::from_utf8(&out).unwrap().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn every_request_gets_its_answer() {
        let answers = answers(
            "{\"cmd\":\"describe\"}\n\n{\"cmd\":\"logits\",\"batch\":2,\"salt\":\"zoo\"}\n\
             {\"cmd\":\"block\",\"batch\":8,\"seconds\":0.25}\n",
        );
        assert_eq!(answers[0], Answer::Description(FakeWorker.describe()));
        assert_eq!(
            answers[1],
            Answer::Logits {
                logits: vec![vec![3.0, 0.5]; 2]
            }
        );
        let Answer::Block {
            first_s,
            times_s,
            cpu_s,
        } = &answers[2]
        else {
            panic!("{:?}", answers[2]);
        };
        // A tenth of a second a call: the third one passes 0.25 s.
        assert_eq!(times_s.len(), 3);
        assert!(times_s.iter().all(|t| (t - 0.1).abs() < 1e-12));
        assert!((first_s - 0.1).abs() < 1e-12 && *cpu_s >= 0.0);
        assert_eq!(answers.len(), 3);
    }

    #[test]
    fn what_fails_is_an_answer_and_the_worker_goes_on() {
        let answers = answers(
            "{\"cmd\":\"block\",\"batch\":9,\"seconds\":0.25}\n{\"cmd\":\"block\",\"batch\":0,\"seconds\":0.25}\n\
             {\"cmd\":\"block\",\"batch\":1,\"seconds\":1e9}\n{\"cmd\":\"dance\"}\nhello\n{\"cmd\":\"describe\"}\n",
        );
        let expected = [
            "batch 9 does not fit",
            "batch is 0",
            "seconds is 1000000000",
            "dance",
            "hello",
        ];
        for (answer, expected) in answers.iter().zip(expected) {
            let Answer::Error { error } = answer else {
                panic!("{answer:?}");
            };
            assert!(error.contains(expected), "{error}");
        }
        assert!(matches!(answers[5], Answer::Description(_)));
    }

    #[test]
    fn quit_ends_it() {
        assert_eq!(answers("{\"cmd\":\"quit\"}\n{\"cmd\":\"describe\"}\n"), []);
    }
}
