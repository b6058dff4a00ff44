//! `--engine auto`: the fastest engine for this model on this machine, measured once and remembered.

use super::engine::{EngineChoice, Model, Origin};
use super::files::replace_file;
use super::model::ModelArguments;
use super::race::{Field, LeftOut, tolerance};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
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

fn write(path: &Path, choice: &Choice) -> Result<()> {
    let named = || format!("{}: keeping the choice of an engine", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(named)?;
    }
    replace_file(path, &serde_json::to_vec_pretty(choice)?).with_context(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;
    use zoo::eval::PredictError;
    use zoo::eval::bench::{
        Clock, Context as BenchContext, CpuMeter, CpuReading, Input, Instruments, LoadUnavailable,
        Subject, Watch,
    };

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

    /// Time passes only where an engine runs, or others do.
    #[derive(Default)]
    struct Hours {
        now_s: Cell<f64>,
        others_s: Cell<f64>,
    }

    struct FakeClock(Rc<Hours>);

    impl Clock for FakeClock {
        fn now_s(&self) -> f64 {
            self.0.now_s.get()
        }
    }

    struct FakeMeter(Rc<Hours>);

    impl CpuMeter for FakeMeter {
        fn read(&mut self) -> Result<CpuReading, LoadUnavailable> {
            let (ours_s, others_s) = (self.0.now_s.get(), self.0.others_s.get());
            Ok(CpuReading {
                machine_s: ours_s + others_s,
                ours_s,
            })
        }
    }

    /// An engine whose every tenth call is three times as long.
    struct FakeEngine {
        name: &'static str,
        call_s: f64,
        others: f64,
        calls: usize,
        hours: Rc<Hours>,
    }

    impl Subject for FakeEngine {
        fn name(&self) -> &str {
            self.name
        }

        fn run_once(&mut self, _batch: usize) -> Result<(), PredictError> {
            self.calls += 1;
            let slow = if self.calls.is_multiple_of(10) {
                3.0
            } else {
                1.0
            };
            let add = |cell: &Cell<f64>, s: f64| cell.set(cell.get() + s);
            add(&self.hours.now_s, slow * self.call_s);
            add(&self.hours.others_s, slow * self.call_s * self.others);
            Ok(())
        }
    }

    /// What is measured of engines with these times for a call, beside so many cores' other work.
    fn measured(calls_s: [f64; 3], others: f64) -> (Choice, bool) {
        let hours = Rc::new(Hours::default());
        let mut engines: Vec<FakeEngine> = ["libtorch", "ort", "openvino"]
            .into_iter()
            .zip(calls_s)
            .map(|(name, call_s)| FakeEngine {
                name,
                call_s,
                others,
                calls: 0,
                hours: hours.clone(),
            })
            .collect();
        let mut instruments = Instruments {
            clock: Box::new(FakeClock(hours.clone())),
            meter: Box::new(FakeMeter(hours)),
        };
        let mut watch = Watch {
            stop: &AtomicBool::new(false),
            progress: &mut |_| {},
        };
        let mut subjects: Vec<&mut dyn Subject> =
            engines.iter_mut().map(|e| e as &mut dyn Subject).collect();
        let found = schedule()
            .run(&mut subjects, &[1], &mut instruments, &mut watch)
            .unwrap();
        let context = BenchContext {
            tool: String::new(),
            machine: Machine::this(),
            input: Input::Formula {
                salt: String::new(),
            },
            subjects: Vec::new(),
        };
        let (seconds, quiet) = times(&Report::new(context, schedule(), found));
        let choice = Choice {
            seconds,
            ..choice()
        };
        (choice, quiet)
    }

    #[test]
    fn the_fastest_is_chosen_also_where_it_is_so_by_one_percent() {
        for (calls_s, fastest) in [
            ([0.0101, 0.01, 0.02], EngineName::Ort),
            ([0.01, 0.0101, 0.0102], EngineName::Libtorch),
            ([0.09, 0.07, 0.0693], EngineName::Openvino),
            ([0.4, 0.9, 0.8], EngineName::Libtorch),
        ] {
            let (choice, quiet) = measured(calls_s, 0.0);
            assert!(quiet, "{calls_s:?}");
            assert_eq!(winner(&choice).unwrap(), fastest, "{:?}", choice.seconds);
        }
    }

    #[test]
    fn what_was_measured_beside_other_work_chooses_but_is_not_kept() {
        let (choice, quiet) = measured([0.02, 0.01, 0.03], 1.5);
        assert!(!quiet);
        assert_eq!(winner(&choice).unwrap(), EngineName::Ort);
    }
}
