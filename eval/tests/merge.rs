//! Shards of one evaluation, merged.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{finish, job, journal_path, printed, reference, run_until, samples};
use zoo_eval::data::Sample;
use zoo_eval::journal::{JournalError, Shard};
use zoo_eval::merge::{MergeError, merge};

/// Runs the shards of one evaluation, each on its own machine.
fn shards(folder: &Path, samples: &[Sample], batch: usize, count: usize) -> Vec<PathBuf> {
    (1..=count)
        .map(|index| {
            let path = folder.join(format!("{index}.zoo-journal"));
            let mut job = job(samples, batch, Some(&path));
            job.header.shard = Shard { index, count };
            job.header.machine = format!("node-{index}");
            job.header.threads = index;
            let report = finish(&job).report();
            let named = (count > 1).then(|| format!("{index}/{count}"));
            assert_eq!(report.shard, named);
            path
        })
        .collect()
}

#[test]
fn merged_shards_are_the_single_run() {
    let samples = samples(53, &[2, 40]);
    let expected = reference(&samples, 4);
    for count in [1, 3, 20] {
        let guard = tempfile::tempdir().unwrap();
        let mut paths = shards(guard.path(), &samples, 4, count);
        paths.reverse();
        let merged = merge(&paths).unwrap();
        assert_eq!(printed(&merged), expected, "{count} shards");
        let timings = merged.report().timings.unwrap();
        let ran_on: Vec<_> = timings.ran_on.iter().map(|p| p.threads).collect();
        assert_eq!(ran_on, (1..=count).collect::<Vec<_>>());
    }
}

#[test]
fn shards_that_do_not_fit_are_named() {
    let samples = samples(30, &[]);
    let guard = tempfile::tempdir().unwrap();
    let paths = shards(guard.path(), &samples, 4, 4);
    let none: [&Path; 0] = [];
    assert!(matches!(merge(&none), Err(MergeError::None)));

    let error = merge(&[&paths[3], &paths[0]]).unwrap_err().to_string();
    assert!(error.contains("2 shards are missing: 2/4, 3/4"), "{error}");

    let twice = [&paths[0], &paths[1], &paths[0], &paths[3]];
    let error = merge(&twice).unwrap_err().to_string();
    assert!(error.contains("shard 1/4 is given twice"), "{error}");

    let other = guard.path().join("other");
    let mut job = job(&samples, 4, Some(&other));
    job.header.shard = Shard { index: 2, count: 4 };
    job.header.weights_identity = "formula:2".into();
    finish(&job);
    let error = merge(&[&paths[0], &other]).unwrap_err().to_string();
    assert!(
        error.contains("weights_identity: \"formula:1\" and \"formula:2\""),
        "{error}"
    );

    let gone = guard.path().join("gone");
    assert!(matches!(
        merge(&[&gone]),
        Err(MergeError::Journal(JournalError::Io { .. }))
    ));
}

#[test]
fn an_unfinished_shard_is_named() {
    let samples = samples(30, &[]);
    let (_guard, path) = journal_path();
    let mut job = job(&samples, 4, Some(&path));
    job.header.shard = Shard { index: 1, count: 2 };
    let _ = run_until(&job, 2, false).0.unwrap();
    let error = merge(&[&path]).unwrap_err().to_string();
    assert!(error.contains("has 2 of 4 batches"), "{error}");
    fs::write(&path, "").unwrap();
    assert!(matches!(
        merge(&[&path]),
        Err(MergeError::Journal(JournalError::Empty { .. }))
    ));
}
