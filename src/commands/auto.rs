//! `--engine auto`.
use super::engine::{EngineChoice, Model};
use super::model::ModelArguments;
use anyhow::{Result, bail};
use zoo::runtime::EngineName;

/// The engine to run.
pub fn resolve(model: &Model, run: &ModelArguments, _batch: usize) -> Result<EngineName> {
    match model.engine_choice(run) {
        EngineChoice::Named(engine) => Ok(engine),
        EngineChoice::Auto => bail!("not yet"),
    }
}
