use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::super::{Context, CpuReading, Input, Machine, OtherLoad, Report, SCHEMA};
use super::*;

/// A machine on which time passes only when a subject runs, or when others use it.
#[derive(Default)]
struct FakeMachine {
    now_s: Cell<f64>,
    ours_s: Cell<f64>,
    others_s: Cell<f64>,
    /// Cores used by others during the block of this index (in the order blocks run).
    loads: RefCell<Vec<f64>>,
    log: RefCell<Vec<String>>,
    /// Who ran last: a change costs [`SWITCH_S`].
    last: Cell<&'static str>,
}

const SWITCH_S: f64 = 0.125;

struct FakeClock(Rc<FakeMachine>);

impl Clock for FakeClock {
    fn now_s(&self) -> f64 {
        self.0.now_s.get()
    }
}

struct FakeMeter {
    machine: Rc<FakeMachine>,
    block: usize,
    start_s: Option<f64>,
}

impl CpuMeter for FakeMeter {
    /// Read twice a block: the second reading adds what others used in between.
    fn read(&mut self) -> Result<CpuReading, LoadUnavailable> {
        let now_s = self.machine.now_s.get();
        match self.start_s.take() {
            None => self.start_s = Some(now_s),
            Some(start_s) => {
                let load = *self.machine.loads.borrow().get(self.block).unwrap_or(&0.0);
                let others_s = self.machine.others_s.get() + load * (now_s - start_s);
                self.machine.others_s.set(others_s);
                self.block += 1;
            }
        }
        let ours_s = self.machine.ours_s.get();
        Ok(CpuReading {
            machine_s: ours_s + self.machine.others_s.get(),
            ours_s,
        })
    }
}

struct NoMeter;

impl CpuMeter for NoMeter {
    fn read(&mut self) -> Result<CpuReading, LoadUnavailable> {
        Err(LoadUnavailable("no /proc here".into()))
    }
}

/// Takes the given seconds per image; the first `cold` calls take ten times as long.
struct FakeSubject {
    name: &'static str,
    per_image_s: f64,
    cold: usize,
    fails: bool,
    machine: Rc<FakeMachine>,
}

impl Subject for FakeSubject {
    fn name(&self) -> &str {
        self.name
    }

    fn run_once(&mut self, batch: usize) -> Result<(), PredictError> {
        if self.fails {
            return Err(PredictError("out of memory".into()));
        }
        let slow = if self.cold > 0 { 10.0 } else { 1.0 };
        self.cold = self.cold.saturating_sub(1);
        let switched = self.machine.last.replace(self.name) != self.name;
        let switch_s = if switched { SWITCH_S } else { 0.0 };
        let time_s = slow * self.per_image_s * batch as f64 + switch_s;
        self.machine.now_s.set(self.machine.now_s.get() + time_s);
        self.machine.ours_s.set(self.machine.ours_s.get() + time_s);
        Ok(())
    }
}

fn subject(name: &'static str, per_image_s: f64, machine: &Rc<FakeMachine>) -> FakeSubject {
    FakeSubject {
        name,
        per_image_s,
        cold: 7,
        fails: false,
        machine: machine.clone(),
    }
}

fn instruments(machine: &Rc<FakeMachine>) -> Instruments {
    Instruments {
        clock: Box::new(FakeClock(machine.clone())),
        meter: Box::new(FakeMeter {
            machine: machine.clone(),
            block: 0,
            start_s: None,
        }),
    }
}

/// Two subjects, the second twice as fast, at batches 1 and 2; runs `schedule` and logs what was timed.
fn run(schedule: &Schedule, machine: &Rc<FakeMachine>, instruments: &mut Instruments) -> Measured {
    let mut slow = subject("slow", 0.5, machine);
    let mut fast = subject("fast", 0.25, machine);
    let stop = AtomicBool::new(false);
    let mut progress = |step: &Progress<'_>| {
        if let Progress::Timed {
            subject,
            batch,
            block,
            ..
        } = step
        {
            let line = format!("{} {subject} {batch} {}", block.round, block.kept);
            machine.log.borrow_mut().push(line);
        }
    };
    let mut watch = Watch {
        stop: &stop,
        progress: &mut progress,
    };
    let subjects: &mut [&mut dyn Subject] = &mut [&mut slow, &mut fast];
    schedule
        .run(subjects, &[1, 2], instruments, &mut watch)
        .unwrap()
}

fn short() -> Schedule {
    Schedule {
        rounds: 2,
        block_s: 2.0,
        max_s: 10_000.0,
        warm_up: WarmUpLimits {
            min_s: 0.5,
            max_s: 1000.0,
            settled: 0.05,
        },
        ..Schedule::default()
    }
}

#[test]
fn blocks_take_turns_and_start_one_later_each_round() {
    let machine = Rc::new(FakeMachine::default());
    let measured = run(&short(), &machine, &mut instruments(&machine));
    let expected = [
        "0 slow 1 true",
        "0 fast 1 true",
        "0 slow 2 true",
        "0 fast 2 true",
        "1 fast 1 true",
        "1 slow 2 true",
        "1 fast 2 true",
        "1 slow 1 true",
    ];
    assert_eq!(*machine.log.borrow(), expected);
    assert_eq!(measured.ended, Ended::Complete);
    let slow_1 = &measured.cases[0];
    assert_eq!((slow_1.subject.as_str(), slow_1.batch), ("slow", 1));
    // The call that pays for taking turns stands apart; then 2 s at 0.5 s a call.
    assert_eq!(slow_1.blocks[0].first_s, 0.5 + SWITCH_S);
    assert_eq!(slow_1.blocks[0].times_s, [0.5; 4]);
    assert_eq!(slow_1.blocks[0].other_load, Some(0.0));
}

#[test]
fn warm_up_ends_when_times_settle_and_counts_for_nothing() {
    let machine = Rc::new(FakeMachine::default());
    let measured = run(&short(), &machine, &mut instruments(&machine));
    // Windows of five: cold, cold and warm (median warm, 10 times faster), warm: settled after 15 calls.
    let warm_up = measured.cases[0].warm_up.unwrap();
    assert_eq!((warm_up.calls, warm_up.settled), (15, true));
    assert!(
        measured
            .cases
            .iter()
            .flat_map(|c| &c.blocks)
            .all(|b| b.times_s.iter().all(|&t| t <= 1.0))
    );

    let machine = Rc::new(FakeMachine::default());
    let schedule = Schedule {
        warm_up: WarmUpLimits {
            min_s: 0.5,
            max_s: 12.0,
            settled: 0.05,
        },
        ..short()
    };
    let measured = run(&schedule, &machine, &mut instruments(&machine));
    // Three cold calls of 5 s are past the limit.
    let warm_up = measured.cases[0].warm_up.unwrap();
    assert_eq!((warm_up.calls, warm_up.settled), (3, false));
}

#[test]
fn loaded_blocks_are_discarded_counted_and_tried_again_after_the_others() {
    let machine = Rc::new(FakeMachine::default());
    // The first block of all, and every try of `fast` at batch 2 in round 0 (4th, 6th and 7th block).
    *machine.loads.borrow_mut() = vec![1.0, 0.2, 0.0, 0.9, 0.0, 0.9, 3.0];
    let measured = run(&short(), &machine, &mut instruments(&machine));
    let expected = [
        "0 slow 1 false",
        "0 fast 1 true",
        "0 slow 2 true",
        "0 fast 2 false",
        "0 slow 1 true",
        "0 fast 2 false",
        "0 fast 2 false",
        "1 fast 1 true",
        "1 slow 2 true",
        "1 fast 2 true",
        "1 slow 1 true",
    ];
    assert_eq!(*machine.log.borrow(), expected);
    assert!((measured.cases[0].blocks[0].other_load.unwrap() - 1.0).abs() < 1e-9);

    let report = report(short(), measured);
    let slow_1 = &report.cases[0];
    assert_eq!((slow_1.kept, slow_1.discarded), (2, 1));
    assert_eq!(slow_1.stats.as_ref().unwrap().calls, 8);
    assert_eq!(slow_1.discarded_stats.as_ref().unwrap().calls, 4);
    let fast_2 = &report.cases[3];
    assert_eq!((fast_2.kept, fast_2.discarded), (1, 3));
    assert!(
        fast_2
            .warnings
            .iter()
            .any(|w| w.starts_with("3 of 4 blocks were discarded")),
        "{:?}",
        fast_2.warnings
    );
    // Only round 1 kept both at batch 2.
    let ratio = &report.ratios[1];
    assert_eq!(
        (ratio.subject.as_str(), ratio.base.as_str(), ratio.batch),
        ("fast", "slow", 2)
    );
    let speed_up = ratio.speed_up.as_ref().unwrap();
    assert_eq!((speed_up.median, speed_up.rounds), (2.0, 1));
}

#[test]
fn a_machine_never_quiet_gives_no_figure_and_says_so() {
    let machine = Rc::new(FakeMachine::default());
    *machine.loads.borrow_mut() = vec![2.0; 100];
    let report = report(short(), run(&short(), &machine, &mut instruments(&machine)));
    for case in &report.cases {
        assert_eq!(
            (&case.stats, case.median_of_blocks_s, case.kept),
            (&None, None, 0)
        );
        // Two rounds of three attempts.
        assert_eq!(case.discarded, 6);
        assert!(case.discarded_stats.is_some());
        assert!(
            case.warnings[0].contains("all 6 blocks were discarded"),
            "{:?}",
            case.warnings
        );
    }
    assert!(report.ratios.iter().all(|r| r.speed_up.is_none()));
    let table = report.to_string();
    assert!(table.contains("fast         1        -"), "{table}");
}

#[test]
fn without_a_load_every_block_is_kept_and_the_report_says_why() {
    let machine = Rc::new(FakeMachine::default());
    let mut instruments = instruments(&machine);
    instruments.meter = Box::new(NoMeter);
    let report = report(short(), run(&short(), &machine, &mut instruments));
    assert_eq!(
        report.other_load,
        OtherLoad::Unavailable {
            why: "no /proc here".into()
        }
    );
    assert!(
        report
            .cases
            .iter()
            .all(|c| c.kept == 2 && c.blocks[0].other_load.is_none())
    );
}

#[test]
fn a_stop_gives_what_was_measured_without_the_cut_block() {
    let machine = Rc::new(FakeMachine::default());
    let mut only = subject("only", 0.5, &machine);
    let stop = AtomicBool::new(false);
    let mut progress = |step: &Progress<'_>| {
        if matches!(step, Progress::Timed { block, .. } if block.round == 1) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let mut watch = Watch {
        stop: &stop,
        progress: &mut progress,
    };
    let schedule = Schedule {
        rounds: 50,
        ..short()
    };
    let measured = schedule
        .run(
            &mut [&mut only],
            &[1],
            &mut instruments(&machine),
            &mut watch,
        )
        .unwrap();
    assert_eq!(measured.ended, Ended::Stopped);
    assert_eq!(measured.cases[0].blocks.len(), 2);

    let mut watch = Watch {
        stop: &stop,
        progress: &mut |_| (),
    };
    let measured = schedule
        .run(
            &mut [&mut only],
            &[1],
            &mut instruments(&machine),
            &mut watch,
        )
        .unwrap();
    assert_eq!(
        (measured.cases[0].warm_up, measured.cases[0].blocks.len()),
        (None, 0)
    );
}

#[test]
fn the_time_limit_ends_a_run_with_what_it_measured() {
    let machine = Rc::new(FakeMachine::default());
    let schedule = Schedule {
        rounds: 1000,
        max_s: 100.0,
        ..short()
    };
    let measured = run(&schedule, &machine, &mut instruments(&machine));
    assert_eq!(measured.ended, Ended::TimeLimit);
    let blocks = measured.cases.iter().flat_map(|c| &c.blocks);
    let blocks_s: f64 = blocks
        .map(|b| b.first_s + b.times_s.iter().sum::<f64>())
        .sum();
    // No block is begun after 100 s, and none lasts four.
    assert!((100.0..104.0).contains(&blocks_s), "{blocks_s}");
    let text = report(schedule, measured).to_string();
    assert!(
        text.contains("the time limit of 100 s ended the run"),
        "{text}"
    );
}

fn refusal(schedule: Schedule, names: [&'static str; 2], batches: &[usize], fails: bool) -> String {
    let machine = Rc::new(FakeMachine::default());
    let mut a = subject(names[0], 0.1, &machine);
    let mut b = subject(names[1], 0.1, &machine);
    b.fails = fails;
    let stop = AtomicBool::new(false);
    let mut watch = Watch {
        stop: &stop,
        progress: &mut |_| (),
    };
    let subjects: &mut [&mut dyn Subject] = &mut [&mut a, &mut b];
    let run = schedule.run(subjects, batches, &mut instruments(&machine), &mut watch);
    run.unwrap_err().to_string()
}

#[test]
fn nonsense_is_refused_by_name() {
    let names = ["a", "b"];
    let no_rounds = Schedule {
        rounds: 0,
        ..short()
    };
    assert!(refusal(no_rounds, names, &[1], false).contains("rounds and attempts is 0 and 3"));
    let endless = Schedule {
        block_s: f64::NAN,
        ..short()
    };
    assert!(refusal(endless, names, &[1], false).contains("length of a block is NaN"));
    let negative = Schedule {
        max_other_load: -1.0,
        ..short()
    };
    assert!(refusal(negative, names, &[1], false).contains("load allowed to others is -1"));
    assert!(refusal(short(), names, &[1, 0], false).contains("[1, 0]"));
    assert!(refusal(short(), names, &[], false).contains("list of batch sizes"));
    assert!(refusal(short(), ["a", "a"], &[1], false).contains("two subjects are called a"));
    let failure = refusal(short(), names, &[4], true);
    assert_eq!(failure, "b failed at batch 4: out of memory");
}

fn report(schedule: Schedule, measured: Measured) -> Report {
    let context = Context {
        tool: "zoo 0.1.0".into(),
        machine: Machine::this(),
        input: Input::Formula { salt: "zoo".into() },
        subjects: Vec::new(),
    };
    Report::new(context, schedule, measured)
}

#[test]
fn the_report_survives_json_whole() {
    let machine = Rc::new(FakeMachine::default());
    let report = report(short(), run(&short(), &machine, &mut instruments(&machine)));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["schema"], SCHEMA);
    assert_eq!(json["input"]["kind"], "formula");
    assert_eq!(json["other_load"]["kind"], "measured");
    assert_eq!(json["cases"][1]["median_of_blocks_s"], 0.25);
    // After another subject in round 0, after itself in round 1.
    assert_eq!(json["cases"][1]["median_first_s"], 0.25 + SWITCH_S / 2.0);
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}

#[test]
fn the_table_has_every_case_and_its_warnings() {
    let machine = Rc::new(FakeMachine::default());
    let table = report(short(), run(&short(), &machine, &mut instruments(&machine))).to_string();
    assert!(
        table.contains("input: numbers of a formula, salt zoo; no image"),
        "{table}"
    );
    assert!(
        table.contains("fast         2   500.00   500.00   500.00        4.0        2/0  2.00 [2.00, 2.00] 50 %"),
        "{table}"
    );
    assert!(
        table.contains("warning: slow, batch 1: 8 calls: p99"),
        "{table}"
    );
}
