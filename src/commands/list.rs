//! `zoo list`: which models there are.

use super::output::{human, print, print_json, table};
use super::{Exit, model};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use zoo::backbones::{self, IMAGENET_1K, Variant};

/// List the models: family, parameters, input, reported accuracy with its source, weights known.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Names or globs, such as 'shvit-*'. Default: all.
    filter: Vec<String>,
    /// Only this family.
    #[arg(long)]
    family: Option<String>,
    /// Print JSON (schema zoo.list/1).
    #[arg(long)]
    json: bool,
}

/// A variant's data for programs.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    name: &'a str,
    family: &'a str,
    aliases: &'a [&'a str],
    params: u64,
    classes: i64,
    input: [usize; 2],
    pub(super) preprocessing: String,
    reported: Vec<Reported<'a>>,
    weights: Vec<Weights<'a>>,
}

#[derive(Serialize)]
pub(super) struct Reported<'a> {
    top1: f64,
    top5: Option<f64>,
    data: &'a str,
    source: &'a str,
}

#[derive(Serialize)]
pub(super) struct Weights<'a> {
    url: &'a str,
    names: &'a str,
    licence: &'a str,
}

#[derive(Serialize)]
struct Listing<'a> {
    schema: &'a str,
    models: Vec<Row<'a>>,
}

/// Prints the list.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let mut chosen: Vec<&Variant> = if arguments.filter.is_empty() {
        backbones::variants().collect()
    } else {
        model::variants(&arguments.filter)?
    };
    if let Some(family) = &arguments.family {
        chosen.retain(|v| v.family == family);
    }
    if arguments.json {
        print_json(&Listing {
            schema: "zoo.list/1",
            models: chosen.into_iter().map(row).collect(),
        })?;
        return Ok(Exit::Done);
    }
    let mut lines = table(&[
        "model", "family", "params", "input", "top-1 %", "source", "weights",
    ]);
    for v in chosen {
        let (height, width) = v.preprocessing.size;
        let reported = v.reported.first();
        lines.add_row([
            v.name.to_owned(),
            v.family.to_owned(),
            human(v.params),
            format!("{height}x{width}"),
            reported.map_or("-".to_owned(), |r| format!("{:.2}", r.top1)),
            reported.map_or("-".to_owned(), described),
            match v.weights.len() {
                0 => "none published".to_owned(),
                n => format!("{n} known"),
            },
        ]);
    }
    print(lines)?;
    Ok(Exit::Done)
}

/// The figure's source, with the data set where that is not the usual one.
fn described(r: &backbones::Reported) -> String {
    match r.data {
        IMAGENET_1K => r.source.to_owned(),
        data => format!("{} ({data})", r.source),
    }
}

/// The data of a variant.
pub(super) fn row(v: &Variant) -> Row<'_> {
    Row {
        name: v.name,
        family: v.family,
        aliases: v.aliases,
        params: v.params,
        classes: v.classes,
        input: [v.preprocessing.size.0, v.preprocessing.size.1],
        preprocessing: model::describe(&v.preprocessing),
        reported: v
            .reported
            .iter()
            .map(|r| Reported {
                top1: r.top1,
                top5: r.top5,
                data: r.data,
                source: r.source,
            })
            .collect(),
        weights: v
            .weights
            .iter()
            .map(|w| Weights {
                url: w.url,
                names: w.names,
                licence: w.licence,
            })
            .collect(),
    }
}
