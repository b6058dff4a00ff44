//! Journals in one process: resumed, damaged, refused, merged.

mod common;

use std::fs;
use std::sync::atomic::AtomicBool;

use common::{
    Bytes, Model, finish, job, journal_path, printed, reference, run, run_until, samples,
};
use zoo_eval::journal::{Journal, JournalError, Shard};
use zoo_eval::merge::{MergeError, merge};
use zoo_eval::pipeline::{self, EvalError, NonFinite, Outcome, Silent};
use zoo_eval::{PredictError, Predictor};

#[test]
fn an_interrupted_run_goes_on_to_the_same_report() {
    let samples = samples(50, &[11, 33]);
    let expected = reference(&samples, 4);
    let (_guard, path) = journal_path();
    let job = job(&samples, 4, Some(&path));
    for after in [1, 3, 2] {
        let (outcome, _) = run_until(&job, after, false);
        assert!(matches!(outcome, Ok(Outcome::Interrupted { .. })));
    }
    let (outcome, _) = run_until(&job, 1, false);
    let Ok(Outcome::Interrupted { done, total }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((done, total), (28, 50));
    assert_eq!(printed(&finish(&job)), expected);
}

#[test]
fn a_run_that_is_stopped_before_it_began_keeps_its_journal() {
    let samples = samples(10, &[]);
    let (_guard, path) = journal_path();
    let job = job(&samples, 4, Some(&path));
    let stop = AtomicBool::new(true);
    let outcome = pipeline::run(&job, &Bytes, &mut Model, &stop, &mut Silent);
    assert!(matches!(
        outcome,
        Ok(Outcome::Interrupted { done: 0, total: 10 })
    ));
    assert_eq!(printed(&finish(&job)), reference(&samples, 4));
}

#[test]
fn a_failing_engine_leaves_what_was_done() {
    let samples = samples(50, &[]);
    let (_guard, path) = journal_path();
    let job = job(&samples, 4, Some(&path));
    let (outcome, _) = run_until(&job, 5, true);
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains("out of memory"), "{text}");
    let (outcome, calls) = run_until(&job, usize::MAX, false);
    assert_eq!(calls, 13 - 5, "finished batches were evaluated again");
    let Ok(Outcome::Finished(evaluation)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(printed(&evaluation), reference(&samples, 4));
}

#[test]
fn a_finished_journal_is_reported_without_the_model_even_with_timings() {
    let samples = samples(20, &[]);
    let (_guard, path) = journal_path();
    let job = job(&samples, 4, Some(&path));
    let first = finish(&job).report();
    let before = fs::read(&path).unwrap();
    let (outcome, calls) = run_until(&job, usize::MAX, false);
    let Ok(Outcome::Finished(evaluation)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(calls, 0);
    assert_eq!(evaluation.report(), first);
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// At every byte: the run goes on to the right report, whatever is left of the journal.
#[test]
fn a_journal_cut_at_any_byte_resumes() {
    let samples = samples(5, &[1]);
    let expected = reference(&samples, 2);
    let (_guard, path) = journal_path();
    finish(&job(&samples, 2, Some(&path)));
    let whole = fs::read(&path).unwrap();
    let line_ends: Vec<_> = (0..whole.len()).filter(|&i| whole[i] == b'\n').collect();
    assert_eq!(line_ends.len(), 4, "header and three batches");
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (outcome, calls) = run_until(&job(&samples, 2, Some(&path)), usize::MAX, false);
        let Ok(Outcome::Finished(evaluation)) = outcome else {
            panic!("cut at {cut}: {outcome:?}")
        };
        assert_eq!(printed(&evaluation), expected, "cut at {cut}");
        let whole_lines = line_ends.iter().filter(|&&end| end < cut).count();
        let lost = 3 - whole_lines.saturating_sub(1);
        assert_eq!(calls, lost, "cut at {cut}");
    }
}

/// At every byte: a changed byte is found, or its line was the last and is done again.
#[test]
fn a_journal_damaged_at_any_byte_never_gives_a_wrong_report() {
    let samples = samples(4, &[]);
    let expected = reference(&samples, 2);
    let (_guard, path) = journal_path();
    finish(&job(&samples, 2, Some(&path)));
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= if at % 2 == 0 { 1 } else { 0x80 };
        fs::write(&path, &damaged).unwrap();
        match run(&job(&samples, 2, Some(&path))) {
            Ok(Outcome::Finished(e)) => assert_eq!(printed(&e), expected, "byte {at}"),
            Err(EvalError::Journal(e)) => {
                refused += 1;
                assert!(e.to_string().contains("run.zoo-journal"), "{e}");
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(refused > whole.len() / 2, "{refused} of {}", whole.len());
}

/// A torn line that is longer than what is written in its place leaves nothing behind.
#[test]
fn a_torn_last_line_is_cut_off() {
    let samples = samples(12, &[]);
    let (_guard, path) = journal_path();
    let job = job(&samples, 4, Some(&path));
    finish(&job);
    let text = fs::read_to_string(&path).unwrap();
    let kept = text.match_indices('\n').nth(2).unwrap().0 + 1;
    let torn = text[kept..].replacen("class", &"long".repeat(1000), 1);
    fs::write(&path, format!("{}{}", &text[..kept], torn.trim_end())).unwrap();
    finish(&job);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.ends_with('\n') && !text.contains("longlong"));
    let (again, calls) = run_until(&job, usize::MAX, false);
    assert!(matches!(again, Ok(Outcome::Finished(_))) && calls == 0);
}

#[test]
fn a_damaged_line_is_named_and_its_remedy_works() {
    let samples = samples(12, &[]);
    let (_guard, path) = journal_path();
    let job = job(&samples, 4, Some(&path));
    finish(&job);
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[2] = lines[2].replacen("\"index\":", "\"indem\":", 1);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let error = run(&job).unwrap_err().to_string();
    assert!(
        error.contains("line 3") && error.contains("--fresh"),
        "{error}"
    );
    lines.remove(2);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    assert_eq!(printed(&finish(&job)), reference(&samples, 4));
}

#[test]
fn a_line_of_another_journal_or_twice_the_same_is_refused() {
    let samples = samples(12, &[]);
    let (_guard, path) = journal_path();
    let (_guard2, other_path) = journal_path();
    let mut other = job(&samples, 4, Some(&other_path));
    other.header.dtype = "float64".into();
    finish(&other);
    let job = job(&samples, 4, Some(&path));
    finish(&job);
    let text = fs::read_to_string(&path).unwrap();
    let foreign = fs::read_to_string(&other_path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let foreign: Vec<_> = foreign.lines().collect();
    let refused = |lines: &[&str]| {
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        run(&job).unwrap_err().to_string()
    };
    let mixed = refused(&[lines[0], foreign[1], lines[2], lines[3]]);
    assert!(mixed.contains("line 2"), "{mixed}");
    let twice = refused(&[lines[0], lines[1], lines[1], lines[3]]);
    assert!(
        twice.contains("line 3") && twice.contains("twice"),
        "{twice}"
    );
}

#[test]
fn other_settings_are_refused_and_named() {
    let samples = samples(12, &[]);
    let (_guard, path) = journal_path();
    finish(&job(&samples, 4, Some(&path)));
    let mut other = job(&samples, 6, Some(&path));
    other.header.dtype = "float64".into();
    other.header.preprocessing.crop_pct = 0.95;
    other.header.preprocessing.mean[1] = 0.25;
    other.header.shard = Shard { index: 1, count: 2 };
    other.header.reported = None;
    other.header.machine = "elsewhere".into();
    let error = run(&other).unwrap_err();
    let EvalError::Journal(JournalError::Settings { differences, .. }) = &error else {
        panic!("{error}")
    };
    let mut names: Vec<_> = differences.iter().map(|d| d.setting.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "batch",
            "dtype",
            "preprocessing.crop_pct",
            "preprocessing.mean",
            "reported",
            "shard.count"
        ]
    );
    let text = error.to_string();
    assert!(
        text.contains("batch: 4 in the journal, 6 now") && text.contains("--fresh"),
        "{text}"
    );

    other.fresh = true;
    other.header.shard = Shard::WHOLE;
    finish(&other);
    other.fresh = false;
    finish(&other);
}

#[test]
fn another_machine_and_other_workers_may_go_on() {
    let samples = samples(30, &[]);
    let (_guard, path) = journal_path();
    let mut job = job(&samples, 4, Some(&path));
    let _ = run_until(&job, 2, false).0.unwrap();
    job.header.machine = "elsewhere".into();
    job.workers = 1;
    assert_eq!(printed(&finish(&job)), reference(&samples, 4));
}

#[test]
fn a_changed_data_set_is_refused() {
    let mut samples = samples(12, &[]);
    let (_guard, path) = journal_path();
    finish(&job(&samples, 4, Some(&path)));
    samples[5].label = Some(0);
    let error = run(&job(&samples, 4, Some(&path))).unwrap_err().to_string();
    assert!(
        error.contains("image 5") && error.contains("label 0"),
        "{error}"
    );
}

#[test]
fn files_that_are_no_journals_are_left_alone() {
    let samples = samples(4, &[]);
    let (guard, path) = journal_path();
    for content in ["a picture", "{\"sun\":1}\n", "x"] {
        fs::write(&path, content).unwrap();
        for fresh in [false, true] {
            let mut job = job(&samples, 4, Some(&path));
            job.fresh = fresh;
            let error = run(&job).unwrap_err();
            assert!(
                matches!(error, EvalError::Journal(JournalError::NotAJournal { .. })),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
    let folder = job(&samples, 4, Some(guard.path()));
    assert!(matches!(
        run(&folder),
        Err(EvalError::Journal(JournalError::NotAJournal { .. }))
    ));
    let nowhere = guard.path().join("no/such/folder/j");
    let error = run(&job(&samples, 4, Some(&nowhere))).unwrap_err();
    assert!(error.to_string().contains("no/such/folder"), "{error}");
}

#[test]
fn a_journal_of_another_format_is_named() {
    let samples = samples(4, &[]);
    let (_guard, path) = journal_path();
    let job = job(&samples, 4, Some(&path));
    finish(&job);
    // Resealed by hand, as another version would write it.
    let text = fs::read_to_string(&path).unwrap();
    let first = text.lines().next().unwrap();
    let members = first.split_once("\",").unwrap().1;
    let members = members.replace("zoo.journal/1", "zoo.journal/9");
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(&members);
    let sum: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    fs::write(&path, format!("{{\"sum\":\"{sum}\",{members}\n")).unwrap();
    let error = run(&job).unwrap_err().to_string();
    assert!(error.contains("zoo.journal/9"), "{error}");
}

#[test]
fn a_journal_in_use_is_not_written_by_another() {
    let samples = samples(12, &[]);
    let (_guard, path) = journal_path();
    let job = job(&samples, 4, Some(&path));
    let (journal, _) = Journal::open(&path, &job.header, false).unwrap();
    assert!(matches!(
        run(&job),
        Err(EvalError::Journal(JournalError::Locked { .. }))
    ));
    assert!(matches!(
        merge(&[&path]),
        Err(MergeError::Journal(JournalError::Locked { .. }))
    ));
    drop(journal);
    finish(&job);
}

#[test]
fn counted_images_stop_a_stricter_run() {
    struct AllNan;
    impl Predictor for AllNan {
        fn predict(&mut self, _: &[f32], n: usize) -> Result<Vec<Vec<f64>>, PredictError> {
            Ok(vec![vec![f64::NAN; 10]; n])
        }
    }
    let samples = samples(4, &[]);
    let (_guard, path) = journal_path();
    let mut job = job(&samples, 4, Some(&path));
    job.non_finite = NonFinite::Count;
    let go = AtomicBool::new(false);
    pipeline::run(&job, &Bytes, &mut AllNan, &go, &mut Silent).unwrap();
    finish(&job);
    job.non_finite = NonFinite::Fail;
    assert!(matches!(
        run(&job),
        Err(EvalError::NonFinite { index: 0, .. })
    ));
}
