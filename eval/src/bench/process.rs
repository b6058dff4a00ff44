//! A worker process from the side that times it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::worker::{Answer, Request};
use super::{Calls, Clock, Description, Subject};
use crate::PredictError;

/// Seconds of the shortest block: one call after the first.
const ONE_CALL_S: f64 = 1e-9;

/// Why a worker process is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("can not start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// It ended, or closed its output.
    #[error("{last_words}")]
    Ended {
        /// The last line it wrote to stderr.
        last_words: String,
    },
    /// It answered something else than an answer.
    #[error("not an answer to {request}: {answer}")]
    Answer {
        /// What was asked.
        request: String,
        /// What came.
        answer: String,
    },
    /// It said what is wrong.
    #[error("{0}")]
    Refused(String),
}

/// A [`worker`](super::worker) in a process of its own.
///
/// Ctrl-C does not reach it (it has a process group of its own), and it ends when this value is dropped.
pub struct WorkerProcess {
    name: String,
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    last_words: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl WorkerProcess {
    /// Starts `command` under this name.
    pub fn start(name: &str, command: &mut Command) -> Result<Self, ProcessError> {
        own_group(command);
        let program = command.get_program().to_string_lossy().into_owned();
        let start = |source| ProcessError::Start {
            program: program.clone(),
            source,
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let missing = || start(std::io::Error::other("no pipe to it"));
        let requests = child.stdin.take().ok_or_else(missing)?;
        let answers = child.stdout.take().ok_or_else(missing)?;
        let errors = child.stderr.take().ok_or_else(missing)?;
        let last_words = Arc::new(Mutex::new(String::new()));
        let heard = last_words.clone();
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if let (false, Ok(mut last)) = (line.trim().is_empty(), heard.lock()) {
                    *last = line;
                }
            }
        });
        Ok(WorkerProcess {
            name: name.to_owned(),
            child,
            requests: Some(requests),
            answers: BufReader::new(answers),
            last_words,
            listener: Some(listener),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Who it is, under the name given here.
    pub fn describe(&mut self) -> Result<Description, ProcessError> {
        match self.ask(&Request::Describe)? {
            Answer::Description(description) => Ok(Description {
                name: self.name.clone(),
                ..description
            }),
            other => Err(unexpected("describe", &other)),
        }
    }

    /// Its logits of `batch` images of the formula's: one row for each.
    pub fn logits(&mut self, batch: usize, salt: &str) -> Result<Vec<Vec<f64>>, ProcessError> {
        let request = Request::Logits {
            batch,
            salt: salt.to_owned(),
        };
        match self.ask(&request)? {
            Answer::Logits { logits } => Ok(logits),
            other => Err(unexpected("logits", &other)),
        }
    }

    fn calls(&mut self, batch: usize, seconds: f64) -> Result<Calls, ProcessError> {
        match self.ask(&Request::Block { batch, seconds })? {
            Answer::Block {
                first_s, times_s, ..
            } => Ok(Calls { first_s, times_s }),
            other => Err(unexpected("block", &other)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Answer, ProcessError> {
        let text =
            serde_json::to_string(request).map_err(|e| ProcessError::Refused(e.to_string()))?;
        let sent = match &mut self.requests {
            Some(requests) => writeln!(requests, "{text}").and_then(|()| requests.flush()),
            None => Ok(()),
        };
        let mut line = String::new();
        let read = sent.and_then(|()| self.answers.read_line(&mut line));
        if !matches!(read, Ok(1..)) {
            return Err(self.ended());
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Error { error }) => Err(ProcessError::Refused(error)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(ProcessError::Answer {
                request: text,
                answer: shortened(line.trim()),
            }),
        }
    }

    /// It has nothing more to say: what it said last.
    fn ended(&mut self) -> ProcessError {
        self.requests = None;
        let status = self.child.wait();
        if let Some(listener) = self.listener.take() {
            // A panic of the listening thread would only lose the last words.
            let _ = listener.join();
        }
        let heard = self.last_words.lock().map(|last| last.clone());
        let last_words = heard.unwrap_or_default();
        let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
        ProcessError::Ended {
            last_words: match last_words.is_empty() {
                true => format!("it ended without a word ({status})"),
                false => last_words,
            },
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // The end of its input ends a worker between requests; within one it is of no use any more. Both calls fail only
        // for a process that has ended.
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Subject for WorkerProcess {
    fn name(&self) -> &str {
        &self.name
    }

    fn run_once(&mut self, batch: usize) -> Result<(), PredictError> {
        let calls = self.calls(batch, ONE_CALL_S);
        calls.map(|_| ()).map_err(|e| PredictError(e.to_string()))
    }

    /// Timed by the worker itself, so that the way of the request there and back is not in it.
    fn block(
        &mut self,
        batch: usize,
        seconds: f64,
        _clock: &dyn Clock,
        _stop: &dyn Fn() -> bool,
    ) -> Result<Calls, PredictError> {
        let calls = self.calls(batch, seconds);
        calls.map_err(|e| PredictError(e.to_string()))
    }
}

fn unexpected(request: &str, answer: &Answer) -> ProcessError {
    ProcessError::Answer {
        request: request.to_owned(),
        answer: shortened(&format!("{answer:?}")),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(unix)]
fn own_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(not(unix))]
fn own_group(_command: &mut Command) {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::bench::SystemClock;

    /// A worker as a shell script that answers with these lines, one for each request.
    fn script(lines: &[&str]) -> WorkerProcess {
        let mut text = String::new();
        for line in lines {
            text += &format!("read request; echo '{line}';\n");
        }
        text += "echo 'a note' >&2; echo 'out of memory' >&2; exit 3";
        WorkerProcess::start("fake", Command::new("sh").args(["-c", &text])).unwrap()
    }

    #[test]
    fn answers_are_understood() {
        let mut worker = script(&[
            r#"{"name":"x","engine":"e","version":"1","model":"m","device":"cpu","dtype":"f32","threads":1,"input":[3,4,5]}"#,
            r#"{"logits":[[1.0,2.0]]}"#,
            r#"{"first_s":0.5,"times_s":[0.25,0.125],"cpu_s":0.75}"#,
        ]);
        let description = worker.describe().unwrap();
        assert_eq!(
            (description.name.as_str(), description.engine.as_str()),
            ("fake", "e")
        );
        assert_eq!(worker.logits(1, "zoo").unwrap(), [[1.0, 2.0]]);
        let clock = SystemClock::default();
        let calls = worker.block(1, 0.1, &clock, &|| false).unwrap();
        assert_eq!((calls.first_s, calls.times_s), (0.5, vec![0.25, 0.125]));
    }

    #[test]
    fn refusals_and_nonsense_are_told() {
        let mut worker = script(&[r#"{"error":"no such batch"}"#, "Hello", r#"{"logits":[]}"#]);
        let refused = worker.describe().unwrap_err();
        assert!(
            matches!(&refused, ProcessError::Refused(why) if why == "no such batch"),
            "{refused}"
        );
        assert!(worker.describe().unwrap_err().to_string().contains("Hello"));
        assert!(matches!(
            worker.describe(),
            Err(ProcessError::Answer { .. })
        ));
    }

    #[test]
    fn the_end_has_last_words() {
        let mut worker = script(&[]);
        let message = worker.describe().unwrap_err().to_string();
        assert_eq!(message, "out of memory");
        assert!(worker.describe().is_err());
        let missing = WorkerProcess::start("x", &mut Command::new("/no/such/program"));
        assert!(
            missing
                .err()
                .unwrap()
                .to_string()
                .contains("/no/such/program")
        );
    }
}
