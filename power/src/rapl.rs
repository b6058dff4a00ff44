//! Processors, by the counters that Linux shows below `/sys/class/powercap`.

use crate::{EnergyCounter, Unavailable};
use std::fs;
use std::path::{Path, PathBuf};

/// Where Linux shows the counters.
const POWERCAP: &str = "/sys/class/powercap";

/// The counters of all processor packages and their memory: the machine's, whatever process used the energy.
#[derive(Debug)]
pub struct CpuCounter {
    zones: Vec<Zone>,
    source: String,
}

/// One counter, which begins at 0 again when it has reached its range.
#[derive(Debug)]
struct Zone {
    counter: PathBuf,
    range_uj: u64,
    last_uj: u64,
    laps: u64,
}

impl CpuCounter {
    /// The counters of this machine.
    ///
    /// # Errors
    /// Where there are none (virtual machines mostly) or this user may not read them.
    pub fn open() -> Result<CpuCounter, Unavailable> {
        Self::open_below(Path::new(POWERCAP))
    }

    fn open_below(folder: &Path) -> Result<CpuCounter, Unavailable> {
        let none = || {
            Unavailable(format!(
                "{}: no RAPL counters; virtual machines seldom have them",
                folder.display()
            ))
        };
        let mut names: Vec<String> = fs::read_dir(folder)
            .map_err(|_| none())?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("intel-rapl:"))
            .collect();
        names.sort();
        let mut zones = Vec::new();
        let mut domains = Vec::new();
        for name in names {
            let folder = folder.join(&name);
            let domain = fs::read_to_string(folder.join("name")).unwrap_or_default();
            let domain = domain.trim();
            if counts(&name, domain) {
                zones.push(Zone::open(&folder)?);
                domains.push(domain.to_owned());
            }
        }
        if zones.is_empty() {
            return Err(none());
        }
        Ok(CpuCounter {
            zones,
            source: format!("RAPL, whole machine: {}", domains.join(" + ")),
        })
    }
}

/// Packages, and the memory that is counted apart from them. Cores are in their package; `psys` holds everything.
fn counts(zone: &str, domain: &str) -> bool {
    let depth = zone.matches(':').count();
    (depth == 1 && domain.starts_with("package")) || (depth == 2 && domain == "dram")
}

impl Zone {
    fn open(folder: &Path) -> Result<Zone, Unavailable> {
        let counter = folder.join("energy_uj");
        let last_uj = read(&counter)?;
        let range_uj = read(&folder.join("max_energy_range_uj"))?;
        Ok(Zone {
            counter,
            range_uj,
            last_uj,
            laps: 0,
        })
    }

    fn joules(&mut self) -> Result<f64, Unavailable> {
        let now = read(&self.counter)?;
        if now < self.last_uj {
            self.laps += 1;
        }
        self.last_uj = now;
        Ok((self.laps as f64 * self.range_uj as f64 + now as f64) * 1e-6)
    }
}

fn read(path: &Path) -> Result<u64, Unavailable> {
    let text = fs::read_to_string(path).map_err(|e| {
        let remedy = match e.kind() {
            std::io::ErrorKind::PermissionDenied => {
                ": let this user read it, `sudo chmod a+r` on it"
            }
            _ => "",
        };
        Unavailable(format!("{}: {e}{remedy}", path.display()))
    })?;
    text.trim().parse().map_err(|_| {
        Unavailable(format!(
            "{}: `{}` is no number",
            path.display(),
            text.trim()
        ))
    })
}

impl EnergyCounter for CpuCounter {
    fn source(&self) -> &str {
        &self.source
    }

    fn joules(&mut self) -> Result<f64, Unavailable> {
        self.zones.iter_mut().map(Zone::joules).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(root: &Path, name: &str, domain: &str, uj: u64) -> PathBuf {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("name"), format!("{domain}\n")).unwrap();
        fs::write(folder.join("energy_uj"), format!("{uj}\n")).unwrap();
        fs::write(folder.join("max_energy_range_uj"), "10000000\n").unwrap();
        folder
    }

    #[test]
    fn packages_and_memory_are_summed_over_a_counters_end() {
        let root = tempfile::tempdir().unwrap();
        let package = zone(root.path(), "intel-rapl:0", "package-0", 9_000_000);
        zone(root.path(), "intel-rapl:0:0", "core", 4_000_000);
        zone(root.path(), "intel-rapl:0:1", "dram", 500_000);
        zone(root.path(), "intel-rapl:1", "psys", 7_000_000);
        let mut counter = CpuCounter::open_below(root.path()).unwrap();
        assert_eq!(counter.source(), "RAPL, whole machine: package-0 + dram");
        assert_eq!(counter.joules().unwrap(), 9.5);
        fs::write(package.join("energy_uj"), "2000000").unwrap();
        assert_eq!(counter.joules().unwrap(), 12.5);
    }

    #[test]
    fn what_is_missing_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = CpuCounter::open_below(root.path()).unwrap_err();
        assert!(error.to_string().contains("no RAPL counters"), "{error}");
        let folder = zone(root.path(), "intel-rapl:0", "package-0", 1);
        fs::write(folder.join("energy_uj"), "?").unwrap();
        let error = CpuCounter::open_below(root.path()).unwrap_err();
        assert!(error.to_string().contains("energy_uj"), "{error}");
    }
}
