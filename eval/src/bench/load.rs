//! How much of the machine other processes use.

/// CPU time so far, in seconds of one core.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuReading {
    /// Spent by the whole machine: user, nice, system, interrupts, and what the hypervisor took (steal).
    pub machine_s: f64,
    /// Spent by this process and the children it watches.
    pub ours_s: f64,
}

/// Why the load of other processes cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the load of other processes is unknown: {0}")]
pub struct LoadUnavailable(pub String);

/// Reads CPU times.
pub trait CpuMeter {
    /// CPU times up to now.
    fn read(&mut self) -> Result<CpuReading, LoadUnavailable>;
}

/// Cores used by other processes, on average, between two readings `wall_s` seconds apart.
///
/// Never negative: the machine's time is counted in ticks of 10 ms, ours exactly, and over a short block the
/// difference can fall a little below zero.
pub fn other_load(before: CpuReading, after: CpuReading, wall_s: f64) -> f64 {
    let machine_s = after.machine_s - before.machine_s;
    let ours_s = after.ours_s - before.ours_s;
    ((machine_s - ours_s) / wall_s).max(0.0)
}

/// CPU time this process has spent, all threads, in seconds.
pub fn own_cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Reads Linux's `/proc`. Elsewhere every reading is unavailable.
///
/// `/proc/stat` counts the whole machine: inside a container that is the host. It ticks every 10 ms, so blocks
/// should last 0.25 s or more.
#[derive(Debug, Default)]
pub struct ProcMeter {
    children: Vec<u32>,
}

impl ProcMeter {
    /// A meter that counts the CPU time of these processes as ours too.
    pub fn with_children(children: Vec<u32>) -> Self {
        Self { children }
    }
}

#[cfg(target_os = "linux")]
impl CpuMeter for ProcMeter {
    fn read(&mut self) -> Result<CpuReading, LoadUnavailable> {
        let mut ours_s = own_cpu_s();
        for &child in &self.children {
            ours_s += proc::child_cpu_s(child)?;
        }
        Ok(CpuReading {
            machine_s: proc::machine_cpu_s()?,
            ours_s,
        })
    }
}

#[cfg(not(target_os = "linux"))]
impl CpuMeter for ProcMeter {
    fn read(&mut self) -> Result<CpuReading, LoadUnavailable> {
        Err(LoadUnavailable("this system has no /proc/stat".into()))
    }
}

#[cfg(target_os = "linux")]
mod proc {
    use procfs::{CurrentSI, KernelStats, process::Process, ticks_per_second};

    use super::LoadUnavailable;

    fn unavailable(what: &str, error: procfs::ProcError) -> LoadUnavailable {
        LoadUnavailable(format!("{what}: {error}"))
    }

    pub(super) fn machine_cpu_s() -> Result<f64, LoadUnavailable> {
        let cpu = KernelStats::current()
            .map_err(|e| unavailable("/proc/stat", e))?
            .total;
        let optional = [cpu.irq, cpu.softirq, cpu.steal];
        let ticks =
            cpu.user + cpu.nice + cpu.system + optional.iter().flatten().copied().sum::<u64>();
        Ok(ticks as f64 / ticks_per_second() as f64)
    }

    pub(super) fn child_cpu_s(pid: u32) -> Result<f64, LoadUnavailable> {
        let stat = i32::try_from(pid)
            .map_err(|e| LoadUnavailable(format!("process id {pid}: {e}")))
            .and_then(|pid| {
                Process::new(pid)
                    .and_then(|p| p.stat())
                    .map_err(|e| unavailable(&format!("/proc/{pid}/stat"), e))
            })?;
        Ok((stat.utime + stat.stime) as f64 / ticks_per_second() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(machine_s: f64, ours_s: f64) -> CpuReading {
        CpuReading { machine_s, ours_s }
    }

    #[test]
    fn other_load_is_what_is_not_ours_per_second() {
        // 1.5 core seconds of the machine, 1.0 of them ours, in half a second: one other core.
        let load = other_load(reading(10.0, 3.0), reading(11.5, 4.0), 0.5);
        assert!((load - 1.0).abs() < 1e-12);
    }

    #[test]
    fn tick_rounding_never_gives_a_negative_load() {
        assert_eq!(
            other_load(reading(1.0, 1.0), reading(1.24, 1.25), 0.25),
            0.0
        );
    }

    #[test]
    fn own_cpu_time_grows_with_work() {
        let before = own_cpu_s();
        let mut x = 1u64;
        while own_cpu_s() <= before {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_counts_as_ours_only_when_watched() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let mut meter = ProcMeter::with_children(vec![child.id()]);
        while proc::child_cpu_s(child.id()).unwrap() < 0.02 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let alone = ProcMeter::default().read().unwrap();
        let with_child = meter.read().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(with_child.ours_s >= alone.ours_s + 0.02);
        assert!(with_child.machine_s >= 0.02);
        let gone = meter.read().unwrap_err().to_string();
        assert!(gone.contains("/proc/"), "{gone}");
    }
}
