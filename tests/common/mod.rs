//! Running the `zoo` command in tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command, in `folder`, on one libtorch thread.
pub fn zoo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoo"));
    command.current_dir(folder).env("OMP_NUM_THREADS", "1");
    command
}

/// Runs the command with these arguments to its end.
#[allow(dead_code)]
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    zoo(folder).args(arguments).output().unwrap()
}

/// What it printed, after checking that it ended well.
#[allow(dead_code)]
pub fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}",
        output.status,
        stderr(output)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it complained of.
#[allow(dead_code)]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The project's goldens.
#[allow(dead_code)]
pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// Published figures that tests hold counts to.
#[allow(dead_code)]
pub fn figures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/figures")
}

/// The shared test data, or `None` after saying loudly that a test is skipped.
#[allow(dead_code)]
pub fn test_data() -> Option<PathBuf> {
    let data = std::env::var_os("ZOO_TEST_DATA").map(PathBuf::from);
    if data.is_none() {
        eprintln!("SKIPPED: ZOO_TEST_DATA not set");
    }
    data
}
