//! The report of a run, `zoo.bench/1`: see `docs/bench-report.md`.

use serde::{Deserialize, Serialize};

use zoo_power::Energy;

use super::{
    Block, Case, Description, Ended, Measured, Ratio, Schedule, Spiking, Stats, WarmUp, median,
    paired_speed_up,
};

/// Name and version of the report's format.
pub const SCHEMA: &str = "zoo.bench/1";

/// What a run worked on, told by whoever started it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Program and version that measured: `zoo 0.1.0`.
    pub tool: String,
    /// Where it measured.
    pub machine: Machine,
    /// What the images were.
    pub input: Input,
    /// The subjects' own descriptions, one for each.
    pub subjects: Vec<Description>,
}

/// The machine, as far as it tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and architecture: `linux x86_64`.
    pub system: String,
    /// The processor's own name, where known.
    pub cpu: Option<String>,
    /// Logical processors this process may use, where known.
    pub cores: Option<usize>,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: cpu_name(),
            cores: std::thread::available_parallelism().ok().map(usize::from),
        }
    }
}

#[cfg(target_os = "linux")]
fn cpu_name() -> Option<String> {
    use procfs::Current;
    let info = procfs::CpuInfo::current().ok()?;
    info.model_name(0).map(str::to_owned)
}

#[cfg(not(target_os = "linux"))]
fn cpu_name() -> Option<String> {
    None
}

/// What the timed images were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Input {
    /// Real images, decoded and preprocessed before the clock ran.
    Images {
        /// The folder or file they came from.
        path: String,
        /// How many different ones.
        count: usize,
    },
    /// Numbers of a formula that anybody can repeat; no image.
    Formula {
        /// The formula's salt.
        salt: String,
    },
    /// Random numbers; no image.
    Random {
        /// The generator's seed.
        seed: u64,
    },
}

/// How blocks were judged by other processes' load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OtherLoad {
    /// Every block's load is known.
    Measured,
    /// It could not be told; every block was kept.
    Unavailable {
        /// Why.
        why: String,
    },
}

/// One subject at one batch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// The subject's name.
    pub subject: String,
    /// Images per call.
    pub batch: usize,
    /// Its warm-up; `null` when the run was stopped before it.
    pub warm_up: Option<WarmUp>,
    /// All calls of the kept blocks; `null` when none was kept.
    pub stats: Option<Stats>,
    /// Median of the kept blocks' medians, seconds per call.
    pub median_of_blocks_s: Option<f64>,
    /// Median of the kept blocks' first calls, seconds: a call after a pause.
    pub median_first_s: Option<f64>,
    /// All calls of the discarded blocks: what the load did to them, no measure of the subject.
    pub discarded_stats: Option<Stats>,
    /// Blocks that count.
    pub kept: usize,
    /// Blocks discarded for other processes' load.
    pub discarded: usize,
    /// Energy of a call, from a window of its own after the timing; `null` when it was not asked for.
    pub energy: Option<Energy>,
    /// Of a spiking network in libtorch: what it did with the timed input; `null` for others.
    pub spiking: Option<Spiking>,
    /// What a reader must know before trusting the figures.
    pub warnings: Vec<String>,
    /// The raw times.
    pub blocks: Vec<Block>,
}

impl CaseReport {
    /// Millijoules of one image, where measured.
    pub fn millijoules_per_image(&self) -> Option<f64> {
        match &self.energy {
            Some(Energy::Measured(m)) => Some(1e3 * m.joules_per_call / self.batch as f64),
            _ => None,
        }
    }

    fn of(case: Case) -> Self {
        let times = |kept: bool| -> Vec<f64> {
            let blocks = case.blocks.iter().filter(|b| b.kept == kept);
            blocks.flat_map(|b| b.times_s.iter().copied()).collect()
        };
        let stats = Stats::of(&times(true), case.batch);
        let discarded_stats = Stats::of(&times(false), case.batch);
        let firsts: Vec<f64> = case
            .blocks
            .iter()
            .filter(|b| b.kept)
            .map(|b| b.first_s)
            .collect();
        let kept = firsts.len();
        let medians: Vec<f64> = case.round_medians().into_values().collect();
        Self {
            warnings: warnings(&case, stats.as_ref(), kept),
            median_of_blocks_s: median(&medians),
            median_first_s: median(&firsts),
            stats,
            discarded_stats,
            kept,
            discarded: case.blocks.len() - kept,
            subject: case.subject,
            batch: case.batch,
            energy: None,
            spiking: None,
            warm_up: case.warm_up,
            blocks: case.blocks,
        }
    }
}

fn warnings(case: &Case, stats: Option<&Stats>, kept: usize) -> Vec<String> {
    let mut warnings = stats.map(Stats::warnings).unwrap_or_default();
    let discarded = case.blocks.len() - kept;
    if kept == 0 && discarded > 0 {
        warnings.push(format!(
            "all {discarded} blocks were discarded: other processes kept the machine busy; there is no figure"
        ));
    } else if discarded > kept {
        warnings.push(format!(
            "{discarded} of {} blocks were discarded: other processes keep the machine busy",
            case.blocks.len()
        ));
    }
    if let Some(w) = case.warm_up.filter(|w| !w.settled) {
        warnings.push(format!(
            "times had not settled after {:.1} s of warm-up ({} calls)",
            w.seconds, w.calls
        ));
    }
    warnings
}

/// How one subject compares with the base at one batch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatioReport {
    /// The subject.
    pub subject: String,
    /// What it is compared with.
    pub base: String,
    /// Images per call.
    pub batch: usize,
    /// Its speed-up; `null` when no round kept a block of both.
    pub speed_up: Option<Ratio>,
}

/// Everything a run found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// What the run worked on.
    #[serde(flatten)]
    pub context: Context,
    /// How it was timed.
    pub schedule: Schedule,
    /// Whether other processes' load could be told.
    pub other_load: OtherLoad,
    /// Whether all rounds were run; the figures are those up to the end it had.
    pub ended: Ended,
    /// One for each subject and batch size.
    pub cases: Vec<CaseReport>,
    /// Speed-ups over the first subject; empty for one subject.
    pub ratios: Vec<RatioReport>,
}

impl Report {
    /// The report of `measured`; speed-ups are over the first subject.
    pub fn new(context: Context, schedule: Schedule, measured: Measured) -> Self {
        let other_load = match &measured.load_unavailable {
            None => OtherLoad::Measured,
            Some(why) => OtherLoad::Unavailable { why: why.0.clone() },
        };
        Self {
            schema: SCHEMA.into(),
            context,
            schedule,
            other_load,
            ended: measured.ended,
            ratios: ratios(&measured.cases),
            cases: measured.cases.into_iter().map(CaseReport::of).collect(),
        }
    }
}

fn ratios(cases: &[Case]) -> Vec<RatioReport> {
    let Some(base_name) = cases.first().map(|c| &c.subject) else {
        return Vec::new();
    };
    let others = cases.iter().filter(|c| c.subject != *base_name);
    others
        .filter_map(|case| {
            let mut bases = cases.iter().filter(|c| c.subject == *base_name);
            let base = bases.find(|b| b.batch == case.batch)?;
            Some(RatioReport {
                subject: case.subject.clone(),
                base: base_name.clone(),
                batch: case.batch,
                speed_up: paired_speed_up(base, case),
            })
        })
        .collect()
}
