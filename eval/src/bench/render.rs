//! The report for reading.

use std::collections::BTreeSet;
use std::fmt;

use zoo_power::Energy;

use super::{CaseReport, Ended, Input, OtherLoad, Ratio, Report, Spiking};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.heading(f)?;
        self.table(f)?;
        for case in &self.cases {
            for warning in &case.warnings {
                writeln!(
                    f,
                    "warning: {}, batch {}: {warning}",
                    case.subject, case.batch
                )?;
            }
        }
        self.spiking(f)?;
        self.energy(f)?;
        if let OtherLoad::Unavailable { why } = &self.other_load {
            writeln!(
                f,
                "warning: other processes' load is unknown ({why}); no block was discarded"
            )?;
        }
        match self.ended {
            Ended::Complete => Ok(()),
            Ended::Stopped => writeln!(f, "stopped: these are the figures up to then"),
            Ended::TimeLimit => writeln!(
                f,
                "the time limit of {} s ended the run: these are the figures up to then",
                self.schedule.max_s
            ),
        }
    }
}

impl Report {
    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.context.machine;
        let cpu = machine.cpu.as_deref().unwrap_or("processor unknown");
        let cores = machine.cores.map_or("?".into(), |n| n.to_string());
        writeln!(
            f,
            "{}: {}, {cpu}, {cores} logical cores",
            self.context.tool, machine.system
        )?;
        for s in &self.context.subjects {
            let [_, height, width] = s.input;
            write!(
                f,
                "{}: {}, {} {}, {}, ",
                s.name, s.model, s.engine, s.version, s.device
            )?;
            write!(f, "{}, {} threads, {height}x{width}", s.dtype, s.threads)?;
            writeln!(
                f,
                "{}",
                s.options
                    .iter()
                    .map(|o| format!(", {o}"))
                    .collect::<String>()
            )?;
        }
        writeln!(f, "input: {}", self.context.input)
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self
            .cases
            .iter()
            .map(|c| c.subject.len())
            .max()
            .unwrap_or(0)
            .max(8);
        let base = self
            .ratios
            .first()
            .map(|r| format!("  speed-up over {}", r.base));
        writeln!(
            f,
            "{:name$} {:>5} {:>8} {:>8} {:>8} {:>10} {:>10}{}",
            "subject",
            "batch",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "images/s",
            "kept/lost",
            base.unwrap_or_default()
        )?;
        for case in &self.cases {
            let ratio = self
                .speed_up(case)
                .map(|r| format!("  {r}"))
                .unwrap_or_default();
            let [p50, p90, p99, images] = figures(case);
            let blocks = format!("{}/{}", case.kept, case.discarded);
            writeln!(
                f,
                "{:name$} {:>5} {p50:>8} {p90:>8} {p99:>8} {images:>10} {blocks:>10}{ratio}",
                case.subject, case.batch
            )?;
        }
        Ok(())
    }

    /// What spiking networks did.
    fn spiking(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            if let Some(spiking) = &case.spiking {
                writeln!(
                    f,
                    "spikes: {}, batch {}: {spiking}",
                    case.subject, case.batch
                )?;
            }
        }
        Ok(())
    }

    /// Measured energies, and each reason there is none once.
    fn energy(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons = BTreeSet::new();
        for case in &self.cases {
            match &case.energy {
                Some(Energy::Measured(m)) => writeln!(
                    f,
                    "energy: {}, batch {}: measured {:.3} mJ/image, {:.1} W over {:.1} s and {} ticks ({})",
                    case.subject,
                    case.batch,
                    case.millijoules_per_image().unwrap_or_default(),
                    m.watts,
                    m.seconds,
                    m.ticks,
                    m.source
                )?,
                Some(Energy::Unavailable { reason }) => {
                    reasons.insert(reason);
                }
                None => {}
            }
        }
        for reason in reasons {
            writeln!(f, "energy: unavailable: {reason}")?;
        }
        Ok(())
    }

    fn speed_up(&self, case: &CaseReport) -> Option<&Ratio> {
        let mut ratios = self.ratios.iter();
        let ratio = ratios.find(|r| r.subject == case.subject && r.batch == case.batch)?;
        ratio.speed_up.as_ref()
    }
}

fn figures(case: &CaseReport) -> [String; 4] {
    let Some(stats) = &case.stats else {
        return std::array::from_fn(|_| "-".into());
    };
    let ms = |seconds: f64| format!("{:.2}", 1e3 * seconds);
    let images = format!("{:.1}", stats.images_per_s);
    [ms(stats.p50_s), ms(stats.p90_s), ms(stats.p99_s), images]
}

impl fmt::Display for Spiking {
    /// Of one image; layers are in the JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let giga = |n: f64| n / 1e9;
        write!(
            f,
            "firing rate {:.2} %; of {:.3} G MACs {:.3} G are synaptic operations; {:.3} G additions ran in place of {:.3} G MACs",
            100.0 * self.firing_rate,
            giga(self.macs),
            giga(self.sops),
            giga(self.additions),
            giga(self.summed_macs)
        )?;
        for e in &self.estimates {
            write!(
                f,
                "\n  estimated {:.4} mJ/image ({}, {})",
                e.millijoules, e.model, e.row
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, low, high) = (self.median, self.low, self.high);
        write!(
            f,
            "{median:.2} [{low:.2}, {high:.2}] {:.0} %",
            100.0 * self.coverage
        )
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Images { path, count } => write!(f, "{count} images of {path}"),
            Input::Formula { salt } => write!(f, "numbers of a formula, salt {salt}; no image"),
            Input::Random { seed } => write!(f, "random numbers, seed {seed}; no image"),
        }
    }
}
