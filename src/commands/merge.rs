//! `zoo merge`: shards to one report.

use super::{Exit, eval};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Join the journals of all shards of an evaluation into the report of one run.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The journals, one for each shard.
    #[arg(required = true, value_name = "JOURNAL")]
    journals: Vec<PathBuf>,
    /// Print JSON (schema zoo.eval/1).
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV.
    #[arg(long)]
    csv: bool,
}

/// Prints the joint report.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let evaluation = zoo::eval::merge::merge(&arguments.journals)?;
    eval::print_reports(&[evaluation.report()], arguments.json, arguments.csv)?;
    Ok(Exit::Done)
}
