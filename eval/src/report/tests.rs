use super::*;
use crate::journal::{BatchRecord, Shard, Took};

/// A header of one shard with made-up names.
pub(crate) fn header(batch: usize, images: usize) -> Header {
    Header {
        version: "0.0.0".into(),
        model: "net-s".into(),
        weights: "net, \"quoted\"".into(),
        weights_identity: "sha256:00".into(),
        trained: true,
        data_set: "set".into(),
        layout: "folders".into(),
        fingerprint: "abc".into(),
        images,
        preprocessing: Preprocessing {
            size: [8, 8],
            crop_pct: 0.875,
            interpolation: "bicubic".into(),
            mean: vec![0.5; 3],
            std: vec![0.25; 3],
        },
        dtype: "float32".into(),
        engine: "test".into(),
        device: "cpu".into(),
        batch,
        threads: 1,
        shard: Shard::WHOLE,
        machine: "here".into(),
        reported: None,
    }
}

/// Batch `k` of 4 images that are all right.
pub(crate) fn record(k: usize, took: Took) -> BatchRecord {
    let rows = (4 * k..4 * k + 4).map(|index| row(index, Some(7), scored(&[7, 1, 2, 3, 4], 0.5)));
    BatchRecord {
        batch: k,
        classes: Some(1000),
        rows: rows.collect(),
        took,
    }
}

fn row(index: usize, label: Option<usize>, result: RowResult) -> Row {
    Row {
        index,
        id: format!("img/{index}.png"),
        label,
        result,
    }
}

fn scored(top: &[usize], nll: f64) -> RowResult {
    RowResult::Scored {
        top: top.to_vec(),
        logits: top.iter().map(|&class| 9.0 - class as f64 / 2.0).collect(),
        nll: Some(nll),
    }
}

/// Eight images: 2 right, 2 in the top five, 1 wrong, 1 not finite, 1 unreadable, 1 without a label.
fn mixed() -> Evaluation {
    let first = vec![
        row(0, Some(7), scored(&[7, 1, 2, 3, 4], 0.25)),
        row(1, Some(7), RowResult::Unreadable("cut off".into())),
        row(2, Some(3), scored(&[7, 1, 2, 3, 4], 2.0)),
        row(3, Some(9), scored(&[7, 1, 2, 3, 4], 4.0)),
    ];
    let no_label = RowResult::Scored {
        top: vec![7, 1],
        logits: vec![2.5, -1.0],
        nll: None,
    };
    let second = vec![
        row(4, Some(1), RowResult::NonFinite("1 NaN".into())),
        row(5, None, no_label),
        row(6, Some(1), scored(&[1, 7, 2, 3, 4], 0.5)),
        row(7, Some(2), scored(&[7, 1, 2, 3, 4], 1.25)),
    ];
    let took = Took {
        model: 0.5,
        span: 1.0,
        workers: 1,
        ..Took::default()
    };
    let batch = |batch, rows| BatchRecord {
        batch,
        classes: Some(10),
        rows,
        took,
    };
    let mut header = header(4, 8);
    header.reported = Some(Reported {
        top1: 30.0,
        source: "Table 1".into(),
    });
    // Out of order: the report must not depend on it.
    Evaluation::new(header, vec![batch(1, second), batch(0, first)])
}

#[test]
fn figures_equal_those_counted_by_hand() {
    let r = mixed().report();
    assert_eq!((r.images, r.labelled), (8, 6));
    let top1 = r.top1.unwrap();
    assert_eq!((top1.correct, top1.of), (2, 6));
    assert_eq!(r.top5.unwrap().correct, 4);
    assert_eq!(r.mean_loss, Some((0.25 + 2.0 + 4.0 + 0.5 + 1.25) / 5.0));
    let named = |list: &[Named]| list.iter().map(|n| n.id.clone()).collect::<Vec<_>>();
    assert_eq!(named(&r.unreadable), ["img/1.png"]);
    assert_eq!(named(&r.non_finite), ["img/4.png"]);
    let difference = r.reported.unwrap().difference.unwrap();
    assert!((difference - 10.0 / 3.0).abs() < 1e-12);
    assert_eq!(r.warnings.len(), 2, "{:?}", r.warnings);
    assert_eq!(r.timings.unwrap().images_per_s, 4.0);
}

#[test]
fn chance_level_and_formula_weights_are_warned_of() {
    let wrong = |index| row(index, Some(8), scored(&[7, 1, 2, 3, 4], 6.0));
    let batches: Vec<_> = (0..10)
        .map(|k| BatchRecord {
            rows: (4 * k..4 * k + 4).map(wrong).collect(),
            ..record(k, Took::default())
        })
        .collect();
    let trained = Evaluation::new(header(4, 40), batches.clone()).report();
    assert!(trained.warnings[0].contains("permuted"));
    let mut formula = header(4, 40);
    formula.trained = false;
    let formula = Evaluation::new(formula, batches).report();
    assert_eq!(formula.warnings.len(), 1);
    assert!(formula.warnings[0].contains("not trained"));
}

#[test]
fn a_reported_accuracy_far_off_is_warned_of() {
    let batches: Vec<_> = (0..10).map(|k| record(k, Took::default())).collect();
    let mut header = header(4, 40);
    header.reported = Some(Reported {
        top1: 80.0,
        source: "paper".into(),
    });
    let report = Evaluation::new(header, batches).report();
    assert!(
        report.warnings[0].contains("reported"),
        "{:?}",
        report.warnings
    );
}

#[test]
fn an_empty_shard_has_a_report_without_figures() {
    let mut header = header(4, 4);
    header.shard = Shard { index: 2, count: 2 };
    let r = Evaluation::new(header, Vec::new()).report();
    assert_eq!(
        (r.images, r.top1, r.top5, r.mean_loss),
        (0, None, None, None)
    );
    assert_eq!(r.shard.as_deref(), Some("2/2"));
    assert!(r.to_json().unwrap().contains("\"timings\": null"));
}

#[test]
fn csv_reads_back_cell_by_cell() {
    let report = mixed().report();
    let text = to_csv(&[report.clone(), report.clone()]).unwrap();
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    assert!(reader.headers().unwrap().iter().eq(CSV_COLUMNS));
    let lines: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(lines.len(), 2);
    let cell = |name| {
        let at = CSV_COLUMNS.iter().position(|&c| c == name).unwrap();
        lines[0][at].to_owned()
    };
    assert_eq!(cell("weights"), "net, \"quoted\"");
    assert_eq!(cell("mean_loss"), "1.6");
    assert_eq!(cell("top1_percent").parse(), Ok(100.0 * 2.0 / 6.0));
    assert_eq!(cell("unreadable"), "1");
    assert_eq!(cell("shard"), "");
    assert_eq!(cell("reported_source"), "Table 1");
}

#[test]
fn tables_have_a_line_a_model_and_every_warning() {
    let report = mixed().report();
    let ascii = table(&[report.clone(), report.clone()], Style::Ascii);
    assert!(ascii.is_ascii(), "{ascii}");
    assert_eq!(ascii.matches("| net-s ").count(), 2, "{ascii}");
    assert!(ascii.contains("33.33 (9.68 to 70.00)"), "{ascii}");
    assert!(ascii.contains("8 (1 unreadable)"), "{ascii}");
    assert!(ascii.contains("+3.33"), "{ascii}");
    assert_eq!(ascii.matches("warning: net-s: ").count(), 4, "{ascii}");
    assert!(!table(std::slice::from_ref(&report), Style::Utf8).is_ascii());
    let stages = stages_table(report.timings.as_ref().unwrap(), Style::Ascii);
    assert!(stages.contains("limited by: "), "{stages}");
}

#[test]
fn predictions_have_a_line_an_image() {
    let evaluation = mixed();
    let mut out = Vec::new();
    write_predictions(&evaluation, PredictionFormat::Csv, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[0], PREDICTION_COLUMNS.join(","));
    assert_eq!(lines[1], "0,img/0.png,7,ok,,0.25,7,1,2,3,4,5.5,8.5,8,7.5,7");
    assert_eq!(lines[2], "1,img/1.png,7,unreadable,cut off,,,,,,,,,,,");
    assert_eq!(lines[6], "5,img/5.png,,ok,,,7,1,,,,2.5,-1,,,");

    let mut out = Vec::new();
    write_predictions(&evaluation, PredictionFormat::JsonLines, &mut out).unwrap();
    let rows: Vec<Row> = String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(rows.iter().eq(evaluation.rows()));
}

/// Every field of the JSON form and every column has its line in the page that describes them.
#[test]
fn the_schema_page_describes_every_field() {
    let page = include_str!("../../../docs/eval-report.md");
    let value = serde_json::to_value(mixed().report()).unwrap();
    let mut names = Vec::new();
    collect("", &value, &mut names);
    assert!(names.len() > 50, "{names:?}");
    let columns = CSV_COLUMNS.iter().chain(&PREDICTION_COLUMNS);
    names.extend(columns.map(|&name| name.to_owned()));
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "not described: {missing:?}");
}

fn collect(prefix: &str, value: &serde_json::Value, names: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            for (key, value) in members {
                let dot = if prefix.is_empty() { "" } else { "." };
                let name = format!("{prefix}{dot}{key}");
                collect(&name, value, names);
                names.push(name);
            }
        }
        serde_json::Value::Array(items) => {
            for item in items {
                collect(&format!("{prefix}[]"), item, names);
            }
        }
        _ => {}
    }
}
