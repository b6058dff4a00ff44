//! One file per subcommand.

pub mod auto;
pub mod bench;
pub mod compare;
pub mod draw;
pub mod energy;
pub mod engine;
pub mod eval;
pub mod export;
pub mod export_cache;
pub mod files;
pub mod info;
pub mod list;
pub mod merge;
pub mod model;
pub mod output;
pub mod predict;
pub mod profile;
pub mod race;
pub mod verify;
pub mod weights;

use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How the command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Done = 0,
    /// It ran, and what it checked does not hold.
    Failed = 1,
    /// Ctrl-C.
    Interrupted = 130,
}

/// A flag that the first Ctrl-C (or SIGTERM) raises; the second one ends the process at once.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::SeqCst) {
            std::process::exit(Exit::Interrupted as i32);
        }
        eprintln!("zoo: stopping after the work in hand (again: at once)");
    })?;
    Ok(stop)
}
