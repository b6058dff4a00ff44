//! Real processes: killed with SIGKILL at random moments, and out of disk space.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{Bytes, Model, finish, job, journal_path, printed, samples};
use zoo_eval::pipeline::{self, Outcome, Silent};
use zoo_eval::{PredictError, Predictor};

const IMAGES: usize = 400;
const BATCH: usize = 4;
const JOURNAL: &str = "ZOO_EVAL_TEST_JOURNAL";

/// Slow enough that a kill hits a run in its midst.
struct Unhurried;

impl Predictor for Unhurried {
    fn predict(&mut self, batch: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
        std::thread::sleep(Duration::from_millis(3));
        Model.predict(batch, n)
    }
}

/// The child: does nothing unless it was started by one of the tests below.
#[test]
fn child() {
    let Some(journal) = std::env::var_os(JOURNAL) else {
        return;
    };
    let journal = Path::new(&journal);
    let samples = samples(IMAGES, &[17, 200]);
    let go = AtomicBool::new(false);
    let job = job(&samples, BATCH, Some(journal));
    match pipeline::run(&job, &Bytes, &mut Unhurried, &go, &mut Silent) {
        Ok(Outcome::Finished(evaluation)) => {
            fs::write(journal.with_extension("out"), printed(&evaluation)).unwrap();
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => panic!("{error}"),
    }
}

fn command(journal: &Path, through_shell: Option<&str>) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = match through_shell {
        Some(script) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", script, "sh"]).arg(exe);
            shell
        }
        None => Command::new(exe),
    };
    command
        .args(["--exact", "child", "--nocapture"])
        .env(JOURNAL, journal)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Kills the child once its journal has grown by `bytes` and `extra` has passed.
fn kill_after(mut child: Child, journal: &Path, bytes: u64, extra: Duration) -> bool {
    let size = || fs::metadata(journal).map_or(0, |m| m.len());
    let before = size();
    while size() < before + bytes {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(extra);
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    let status = child.wait().unwrap();
    running && status.code().is_none()
}

#[test]
fn a_killed_run_goes_on_to_the_same_report() {
    let samples = samples(IMAGES, &[17, 200]);
    let expected = printed(&finish(&job(&samples, BATCH, None)));
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    println!("seed {seed}");
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (state >> 33) % below
    };
    let (_guard, path) = journal_path();
    let mut kills = 0;
    for _ in 0..8 {
        let child = command(&path, None).spawn().unwrap();
        let extra = Duration::from_micros(random(4000));
        kills += usize::from(kill_after(child, &path, 1 + random(8000), extra));
    }
    assert!(kills >= 4, "only {kills} kills hit a running child");
    let out = command(&path, None).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let resumed = fs::read_to_string(path.with_extension("out")).unwrap();
    assert_eq!(resumed, expected);
}

/// A file-size limit makes the system refuse a write midway, as a full disk does.
#[test]
fn a_refused_write_is_reported_and_loses_nothing() {
    let samples = samples(IMAGES, &[17, 200]);
    let expected = printed(&finish(&job(&samples, BATCH, None)));
    let (_guard, path) = journal_path();
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$@\"";
    let out = command(&path, Some(script)).output().unwrap();
    assert!(!out.status.success(), "{out:?}");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(
        text.contains("cannot write") && text.contains("run.zoo-journal"),
        "{text}"
    );
    let left = fs::read(&path).unwrap();
    assert!(left.len() >= 8192, "{} bytes", left.len());
    assert!(!left.ends_with(b"\n"), "the write was not cut midway");
    let out = command(&path, None).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let resumed = fs::read_to_string(path.with_extension("out")).unwrap();
    assert_eq!(resumed, expected);
}
