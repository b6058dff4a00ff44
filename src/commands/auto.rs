//! `--engine auto`: the fastest engine for this model on this machine, measured once and remembered.

use super::engine::{EngineChoice, Model, Origin};
use super::model::ModelArguments;
use super::race::{Field, LeftOut, tolerance};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use zoo::eval::bench::{CaseReport, Machine, Report, Schedule};
use zoo::runtime::{
    EngineName, LIBTORCH_VERSION, openvino_library, openvino_version, ort_library, ort_version,
};

/// The engine to run the model in at this batch size: the one named, or the fastest.
pub fn resolve(model: &Model, run: &ModelArguments, batch: usize) -> Result<EngineName> {
    match model.engine_choice(run) {
        EngineChoice::Named(engine) => Ok(engine),
        EngineChoice::Auto => fastest(model, run, batch),
    }
}

/// What the choice depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Key {
    zoo: String,
    /// Engines and their versions.
    engines: Vec<(String, String)>,
    machine: Machine,
    model: String,
    weights: String,
    batch: usize,
    /// Device, format, threads and whatever else bears on the model.
    settings: Vec<String>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Choice {
    key: Key,
    /// Seconds per call, the fastest first.
    seconds: Vec<(String, f64)>,
}

fn fastest(model: &Model, run: &ModelArguments, batch: usize) -> Result<EngineName> {
    let candidates = installed(model);
    let key = key(model, run, batch, &candidates)?;
    let cache = cache_file(&key)?;
    if let Some(choice) = read(&cache, &key) {
        say(&choice, &format!("remembered in {}", cache.display()));
        return winner(&choice);
    }
    let mut field = Field::start(model, run, &candidates, &[batch])?;
    field.leave_out_beyond(tolerance(run.dtype));
    for LeftOut { engine, reason } in &field.left_out {
        eprintln!("zoo: auto: without {engine}: {reason}");
    }
    let report = match field.engines().as_slice() {
        [] => bail!("{}: no engine runs it with these settings", model.name),
        [only] => return Ok(only.parse()?),
        _ => field.time(schedule(), &[batch], &AtomicBool::new(false))?,
    };
    let (seconds, quiet) = times(&report);
    let choice = Choice { key, seconds };
    let chosen = winner(&choice)?;
    if quiet {
        write(&cache, &choice)?;
        say(
            &choice,
            &format!("measured now, and kept in {}", cache.display()),
        );
    } else {
        say(&choice, "measured beside other processes, so not kept");
    }
    Ok(chosen)
}

/// Long enough to tell engines apart that differ by a few percent.
fn schedule() -> Schedule {
    Schedule {
        rounds: 9,
        block_s: 0.2,
        max_s: 120.0,
        ..Schedule::default()
    }
}

/// The engines whose libraries are here and that could run the model.
fn installed(model: &Model) -> Vec<EngineName> {
    let here = |engine: &EngineName| match engine {
        EngineName::Libtorch => matches!(model.origin, Origin::Zoo(_)),
        EngineName::Ort => ort_library().is_ok(),
        EngineName::Openvino => openvino_library().is_ok(),
    };
    EngineName::ALL.into_iter().filter(here).collect()
}

fn version(engine: EngineName) -> Result<String> {
    Ok(match engine {
        EngineName::Libtorch => LIBTORCH_VERSION.to_owned(),
        EngineName::Ort => ort_version()?.1,
        EngineName::Openvino => openvino_version()?.1,
    })
}

fn key(model: &Model, run: &ModelArguments, batch: usize, engines: &[EngineName]) -> Result<Key> {
    let mut versions = Vec::new();
    for &engine in engines {
        versions.push((engine.to_string(), version(engine)?));
    }
    // Weights and threads are said apart: paths and defaults do not tell them.
    let apart = |word: &String| {
        !["--engine=", "--weights=", "--threads="]
            .iter()
            .any(|p| word.starts_with(p))
    };
    let mut settings: Vec<String> = run
        .command_line(EngineName::Libtorch)
        .into_iter()
        .filter(apart)
        .collect();
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = run.threads.map_or_else(cores, usize::from);
    settings.push(format!("--threads={threads}"));
    Ok(Key {
        zoo: env!("CARGO_PKG_VERSION").to_owned(),
        engines: versions,
        machine: Machine::this(),
        model: model.name.clone(),
        weights: model.weights_identity(run)?,
        batch,
        settings,
    })
}

/// Seconds per call, the fastest first; and whether the machine was quiet while they were taken.
fn times(report: &Report) -> (Vec<(String, f64)>, bool) {
    let kept = |case: &CaseReport| case.median_of_blocks_s;
    let quiet = report.cases.iter().all(|case| kept(case).is_some());
    let discarded = |case: &CaseReport| case.discarded_stats.as_ref().map(|s| s.p50_s);
    let time = |case: &CaseReport| {
        if quiet {
            kept(case)
        } else {
            discarded(case).or(kept(case))
        }
    };
    let named = |case: &CaseReport| Some((case.subject.clone(), time(case)?));
    let mut seconds: Vec<(String, f64)> = report.cases.iter().filter_map(named).collect();
    seconds.sort_by(|a, b| a.1.total_cmp(&b.1));
    (seconds, quiet)
}

fn winner(choice: &Choice) -> Result<EngineName> {
    let (name, _) = choice.seconds.first().context("no engine could be timed")?;
    Ok(name.parse()?)
}

fn say(choice: &Choice, how: &str) {
    let shown = |(engine, s): &(String, f64)| format!("{engine} {:.2} ms", 1e3 * s);
    let times: Vec<String> = choice.seconds.iter().map(shown).collect();
    eprintln!(
        "zoo: auto: {} at batch {}: {} ({how})",
        choice.key.model,
        choice.key.batch,
        times.join(", ")
    );
}

/// Where things are kept that can be made again: `$XDG_CACHE_HOME/zoo`, `~/.cache/zoo`, or `.zoo/cache`.
pub fn cache_folder() -> PathBuf {
    let set = |variable| {
        std::env::var_os(variable)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    match (set("XDG_CACHE_HOME"), set("HOME")) {
        (Some(cache), _) => cache.join("zoo"),
        (None, Some(home)) => home.join(".cache/zoo"),
        (None, None) => PathBuf::from(".zoo/cache"),
    }
}

/// The first bytes of a SHA-256, for file names.
pub fn short_hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn cache_file(key: &Key) -> Result<PathBuf> {
    let hash = short_hash(&serde_json::to_vec(key)?);
    let name = format!("{}-{hash}.json", key.model);
    Ok(cache_folder().join("engines").join(name))
}

/// A choice made for the same key; a file that is none is measured anew.
fn read(path: &PathBuf, key: &Key) -> Option<Choice> {
    let choice: Choice = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (choice.key == *key && winner(&choice).is_ok()).then_some(choice)
}

fn write(path: &PathBuf, choice: &Choice) -> Result<()> {
    let named = || format!("{}: keeping the choice of an engine", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(named)?;
    }
    let part = path.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&part, serde_json::to_vec_pretty(choice)?).with_context(named)?;
    std::fs::rename(&part, path).with_context(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice() -> Choice {
        Choice {
            key: Key {
                zoo: "0".to_owned(),
                engines: vec![("ort".to_owned(), "1".to_owned())],
                machine: Machine::this(),
                model: "m".to_owned(),
                weights: "w".to_owned(),
                batch: 8,
                settings: vec!["--dtype=f32".to_owned()],
            },
            seconds: vec![("ort".to_owned(), 0.5), ("libtorch".to_owned(), 0.75)],
        }
    }

    #[test]
    fn a_choice_is_kept_for_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/a.json");
        let kept = choice();
        write(&path, &kept).unwrap();
        assert_eq!(read(&path, &kept.key), Some(kept.clone()));
        assert_eq!(winner(&kept).unwrap(), EngineName::Ort);
        let other = Key {
            batch: 1,
            ..kept.key.clone()
        };
        assert_eq!(read(&path, &other), None);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(read(&path, &kept.key), None);
    }
}
