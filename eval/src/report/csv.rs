//! Reports as CSV, one line a model.

use super::Report;

/// The columns of [`to_csv`], in order; percentages and nats as in the report, empty where it has none.
pub const CSV_COLUMNS: [&str; 29] = [
    "schema",
    "version",
    "model",
    "weights",
    "weights_identity",
    "trained",
    "data_set",
    "layout",
    "fingerprint",
    "dtype",
    "engine",
    "device",
    "batch",
    "shard",
    "classes",
    "images",
    "labelled",
    "unreadable",
    "non_finite",
    "top1_percent",
    "top1_low95",
    "top1_high95",
    "top5_percent",
    "mean_loss",
    "reported_top1",
    "reported_source",
    "warnings",
    "images_per_s",
    "limited_by",
];

/// A header line and one line a report; warnings are joined by `; `.
pub fn to_csv(reports: &[Report]) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(CSV_COLUMNS)?;
    for report in reports {
        writer.write_record(record(report))?;
    }
    let bytes = writer.into_inner().map_err(|e| e.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn record(r: &Report) -> [String; CSV_COLUMNS.len()] {
    [
        r.schema.to_owned(),
        r.version.clone(),
        r.model.clone(),
        r.weights.clone(),
        r.weights_identity.clone(),
        r.trained.to_string(),
        r.data_set.clone(),
        r.layout.clone(),
        r.fingerprint.clone(),
        r.dtype.clone(),
        r.engine.clone(),
        r.device.clone(),
        r.batch.to_string(),
        r.shard.clone().unwrap_or_default(),
        cell(r.classes),
        r.images.to_string(),
        r.labelled.to_string(),
        r.unreadable.len().to_string(),
        r.non_finite.len().to_string(),
        cell(r.top1.map(|a| a.percent)),
        cell(r.top1.map(|a| a.interval95[0])),
        cell(r.top1.map(|a| a.interval95[1])),
        cell(r.top5.map(|a| a.percent)),
        cell(r.mean_loss),
        cell(r.reported.as_ref().map(|c| c.top1)),
        r.reported
            .as_ref()
            .map(|c| c.source.clone())
            .unwrap_or_default(),
        r.warnings.join("; "),
        cell(r.timings.as_ref().map(|t| t.images_per_s)),
        cell(r.timings.as_ref().map(|t| t.limited_by)),
    ]
}

fn cell<T: ToString>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}
