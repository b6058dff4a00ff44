//! `zoo draw`: the built-in image set as files.

use super::Exit;
use super::output::print;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use zoo::eval::data;

/// Write the drawn image set (the one `zoo eval` uses when no folder is given) as class folders.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A new or empty folder.
    folder: PathBuf,
}

/// Writes the set.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    data::write_drawn(&arguments.folder)?;
    print(format!("drawn in {}", arguments.folder.display()))?;
    Ok(Exit::Done)
}
