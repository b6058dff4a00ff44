//! Every model against the records of what the official ones compute.

use std::path::Path;
use zoo::runtime::{Options, Precision};
use zoo::verify::{Check, Record, find_records, verify};

/// Records that take minutes on one thread; they run with ZOO_TEST_ALL=1.
const SLOW: [&str; 2] = ["step_sdt_imagenet", "overlock_t_det"];

fn runs(record: &Record) -> bool {
    let skipped =
        SLOW.contains(&record.name.as_str()) && std::env::var_os("ZOO_TEST_ALL").is_none();
    if skipped {
        eprintln!(
            "SKIPPED {}: it takes minutes; ZOO_TEST_ALL=1 runs it",
            record.name
        );
    }
    !skipped
}

/// Every record, plain and fused, on one thread; failures are collected so that one run names them all.
fn hold(precision: Precision) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let mut check = Check::new(precision);
    check.options = Options {
        threads: Some(1),
        ..Options::default()
    };
    let mut failed = Vec::new();
    let records = find_records(&[folder]).unwrap();
    for path in &records {
        let record = Record::open(path).unwrap();
        if !runs(&record) {
            continue;
        }
        let outcome = verify(&record, &check).unwrap();
        if !outcome.passed() {
            failed.push(format!(
                "{} ({:?}): {:?}",
                outcome.record, outcome.model, outcome.failures
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn in_double_every_output_agrees() {
    hold(Precision::F64);
}

#[test]
fn in_single_the_logits_agree() {
    hold(Precision::F32);
}

#[test]
fn a_record_that_does_not_hold_is_found_out() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/shvit_s1.json");
    let mut record = Record::open(&golden).unwrap();
    record.salt = "another".to_owned();
    let mut check = Check::new(Precision::F64);
    check.options.threads = Some(1);
    let outcome = verify(&record, &check).unwrap();
    assert!(!outcome.passed());
    record.state_dict.pop();
    record.state_dict[0].1[0] += 1;
    let outcome = verify(&record, &check).unwrap();
    let failures = format!("{:?}", outcome.failures);
    assert!(failures.contains("Shapes"), "{failures}");
}
