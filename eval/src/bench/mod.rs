//! Benchmarks that hold up on a shared machine.
//!
//! What is timed is a [`Subject`]: one forward pass of one engine. A [`Schedule`] warms every subject up, then
//! times them in short blocks that take turns, so that a change of the machine's mood meets all of them. Around
//! each block a [`CpuMeter`] asks how much of the machine OTHER processes used; a block with too much of it is
//! discarded, counted and tried again. [`Report`] is what comes out, raw times included (`docs/bench-report.md`).
//!
//! Several engines in one process disturb each other (idle thread pools spin), so an engine can also be a process
//! of its own that answers a line protocol: [`worker`] is the process's side of it, [`WorkerProcess`] the other. Nothing here knows an engine, a model or a tensor.

mod case;
mod clock;
mod load;
mod process;
mod ratio;
mod render;
mod report;
mod schedule;
mod spiking;
mod stats;
mod subject;
pub mod worker;

pub use case::{Block, Case, Ended, Measured, WarmUp};
pub use clock::{Clock, SystemClock};
pub use load::{CpuMeter, CpuReading, LoadUnavailable, ProcMeter, other_load, own_cpu_s};
pub use process::{ProcessError, WorkerProcess};
pub use ratio::{Ratio, paired_speed_up};
pub use report::{CaseReport, Context, Input, Machine, OtherLoad, RatioReport, Report, SCHEMA};
pub use schedule::{BenchError, Instruments, Progress, Schedule, WarmUpLimits, Watch};
pub use spiking::{EstimatedEnergy, LayerRate, Spiking};
pub use stats::{Stats, median, percentile};
pub use subject::{Calls, Description, Subject};
