//! Engines against each other: one process each, outputs compared, then timed in turn.

use super::engine::Model;
use super::model::ModelArguments;
use anyhow::{Context, Result};
use serde::Serialize;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use zoo::eval::bench::{
    Context as BenchContext, Input, Instruments, Machine, ProcMeter, ProcessError, Progress,
    Report, Schedule, Subject, SystemClock, Watch, WorkerProcess,
};
use zoo::runtime::{EngineName, Precision};

/// The salt of the input, whose formula the goldens share.
const SALT: &str = "zoo";

/// The engines that run, and why the others do not.
pub struct Field {
    workers: Vec<WorkerProcess>,
    /// How far each one's logits are from the first one's.
    pub agreement: Vec<Agreement>,
    /// Engines that do not take part.
    pub left_out: Vec<LeftOut>,
    context: BenchContext,
}

/// An engine's logits beside those of the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// The engine.
    pub engine: String,
    /// max |a - b| / max |b| over all batch sizes, b being the first engine's; null where a logit is not finite.
    pub max_relative_difference: Option<f64>,
    /// Images whose largest logit is of the same class.
    pub same_top1: usize,
    /// Images compared.
    pub images: usize,
}

/// An engine that does not take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The engine.
    pub engine: String,
    /// Why.
    pub reason: String,
}

/// What is allowed between engines, relative to the largest logit: rounding in another order.
pub fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F64 => 1e-10,
        Precision::F32 => 1e-4,
        Precision::Tf32 | Precision::F16 => 5e-3,
        Precision::Bf16 => 5e-2,
    }
}

impl Field {
    /// Starts a process for each engine, and asks each for its logits at these batch sizes.
    pub fn start(
        model: &Model,
        run: &ModelArguments,
        engines: &[EngineName],
        batches: &[usize],
    ) -> Result<Field> {
        let program = std::env::current_exe().context("where this program is")?;
        let mut field = Field {
            workers: Vec::new(),
            agreement: Vec::new(),
            left_out: Vec::new(),
            context: BenchContext {
                tool: format!("zoo {}", env!("CARGO_PKG_VERSION")),
                machine: Machine::this(),
                input: Input::Formula {
                    salt: SALT.to_owned(),
                },
                subjects: Vec::new(),
            },
        };
        let mut base = None;
        for &engine in engines {
            let mut command = Command::new(&program);
            command.args(["bench", "--worker"]);
            command.args(run.command_line(engine)).arg(model.argument());
            match field.enter(engine.as_str(), &mut command, batches, &mut base) {
                Ok(()) => {}
                Err(e) => field.left_out.push(LeftOut {
                    engine: engine.to_string(),
                    reason: e.to_string().trim_start_matches("zoo: error: ").to_owned(),
                }),
            }
        }
        Ok(field)
    }

    fn enter(
        &mut self,
        name: &str,
        command: &mut Command,
        batches: &[usize],
        base: &mut Option<Vec<Vec<f64>>>,
    ) -> Result<(), ProcessError> {
        let mut worker = WorkerProcess::start(name, command)?;
        let description = worker.describe()?;
        let mut logits = Vec::new();
        for &batch in batches {
            logits.extend(worker.logits(batch, SALT)?);
        }
        self.agreement.push(agreement(
            name,
            &logits,
            base.get_or_insert_with(|| logits.clone()),
        ));
        self.context.subjects.push(description);
        self.workers.push(worker);
        Ok(())
    }

    /// Takes the engines out whose logits are further from the first one's than this.
    pub fn leave_out_beyond(&mut self, tolerance: f64) {
        let Field {
            workers,
            agreement,
            left_out,
            context,
        } = self;
        for found in agreement {
            let Some(reason) = found.beyond(tolerance) else {
                continue;
            };
            workers.retain(|w| w.name() != found.engine);
            context.subjects.retain(|s| s.name != found.engine);
            left_out.push(LeftOut {
                engine: found.engine.clone(),
                reason,
            });
        }
    }

    /// The engines that run, in the order given.
    pub fn engines(&self) -> Vec<&str> {
        self.workers.iter().map(|w| w.name()).collect()
    }

    /// Times them at these batch sizes.
    pub fn time(
        mut self,
        schedule: Schedule,
        batches: &[usize],
        stop: &AtomicBool,
    ) -> Result<Report> {
        let children = self.workers.iter().map(WorkerProcess::id).collect();
        let mut instruments = Instruments {
            clock: Box::new(SystemClock::default()),
            meter: Box::new(ProcMeter::with_children(children)),
        };
        let mut progress = |_: &Progress<'_>| {};
        let mut watch = Watch {
            stop,
            progress: &mut progress,
        };
        let mut subjects: Vec<&mut dyn Subject> = self
            .workers
            .iter_mut()
            .map(|w| w as &mut dyn Subject)
            .collect();
        let measured = schedule
            .run(&mut subjects, batches, &mut instruments, &mut watch)
            .context("timing the engines")?;
        Ok(Report::new(self.context, schedule, measured))
    }
}

impl Agreement {
    /// Why these logits can not count as equal; `None` where they can.
    pub fn beyond(&self, tolerance: f64) -> Option<String> {
        match self.max_relative_difference {
            Some(difference) if difference <= tolerance => None,
            Some(difference) => Some(format!(
                "its logits are {difference:.1e} from the first engine's, relative to the largest; {tolerance:.0e} is allowed"
            )),
            None => Some("its logits have another shape, or are not finite".to_owned()),
        }
    }
}

fn agreement(engine: &str, found: &[Vec<f64>], base: &[Vec<f64>]) -> Agreement {
    let pairs = || found.iter().zip(base);
    let same_shape = found.len() == base.len() && pairs().all(|(a, b)| a.len() == b.len());
    let mut difference: f64 = 0.0;
    let mut scale: f64 = 0.0;
    let mut finite = true;
    for (a, b) in pairs().flat_map(|(a, b)| a.iter().zip(b)) {
        finite &= a.is_finite() && b.is_finite();
        difference = difference.max((a - b).abs());
        scale = scale.max(b.abs());
    }
    let relative = if difference > 0.0 {
        difference / scale
    } else {
        0.0
    };
    Agreement {
        engine: engine.to_owned(),
        max_relative_difference: (same_shape && finite).then_some(relative),
        same_top1: pairs().filter(|(a, b)| largest(a) == largest(b)).count(),
        images: base.len(),
    }
}

/// The class of the largest logit; of equal ones the first.
fn largest(logits: &[f64]) -> Option<usize> {
    let rank = |&(i, a): &(usize, &f64), &(j, b): &(usize, &f64)| a.total_cmp(b).then(j.cmp(&i));
    logits.iter().enumerate().max_by(rank).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_relative_to_the_largest_logit() {
        let base = [vec![1.0, -4.0, 2.0], vec![0.0, 1.0, 1.0]];
        let same = agreement("a", &base, &base);
        assert_eq!(
            (same.max_relative_difference, same.same_top1),
            (Some(0.0), 2)
        );
        let off = agreement("a", &[vec![1.0, -4.0, 0.5], vec![0.0, 1.0, 1.0]], &base);
        assert_eq!(off.max_relative_difference, Some(1.5 / 4.0));
        assert_eq!((off.same_top1, off.images), (1, 2));
        assert!(off.beyond(0.3).is_some() && off.beyond(0.4).is_none());
    }

    #[test]
    fn another_shape_or_no_number_is_no_agreement() {
        let base = [vec![1.0, 2.0]];
        for found in [vec![vec![1.0]], vec![], vec![vec![1.0, f64::NAN]]] {
            let found = agreement("a", &found, &base);
            assert!(found.beyond(1e9).is_some(), "{found:?}");
        }
    }

    #[test]
    fn the_first_of_equal_logits_is_the_class() {
        assert_eq!(largest(&[0.0, 2.0, 2.0]), Some(1));
        assert_eq!(largest(&[]), None);
    }
}
