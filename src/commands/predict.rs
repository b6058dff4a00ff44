//! `zoo predict`: what a model sees in images.

use super::output::{explain, print, print_json};
use super::{Exit, model};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use zoo::eval::data::Classes;

/// Classify images.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The model.
    model: String,
    /// Image files.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// How many classes to print for each image.
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Print JSON (schema zoo.predict/1).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: model::ModelArguments,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    model: &'static str,
    weights: String,
    trained: bool,
    predictions: Vec<Prediction>,
}

#[derive(Serialize)]
struct Prediction {
    image: String,
    error: Option<String>,
    top: Vec<Guess>,
}

#[derive(Serialize)]
struct Guess {
    class: usize,
    wnid: Option<String>,
    name: Option<String>,
    probability: f64,
    logit: f64,
}

/// Prints the likeliest classes of each image. An unreadable image is reported and makes the exit code 1.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let variant = model::variant(&arguments.model)?;
    let source = arguments.run.source()?;
    let session = arguments.run.open(variant)?;
    let transform = model::transform(&variant.preprocessing);
    let (height, width) = transform.size;
    if !source.trained() {
        eprintln!("zoo: the weights are a formula, not trained: the classes mean nothing");
    }
    let mut predictions = Vec::new();
    for path in &arguments.images {
        let image = path.display().to_string();
        let logits = model::read_image(path, &transform).and_then(|input| {
            let x = tch::Tensor::from_slice(&input).reshape([1, 3, height as i64, width as i64]);
            let logits = session.logits(&x)?;
            Ok(Vec::<f64>::try_from(
                logits.to_kind(tch::Kind::Double).flatten(0, -1),
            )?)
        });
        predictions.push(match logits {
            Ok(logits) => Prediction {
                image,
                error: None,
                top: best(&logits, arguments.top),
            },
            Err(e) => Prediction {
                image,
                error: Some(explain(&e)),
                top: Vec::new(),
            },
        });
    }
    let failed = predictions.iter().any(|p| p.error.is_some());
    let report = Report {
        schema: "zoo.predict/1",
        model: variant.name,
        weights: source.identity()?,
        trained: source.trained(),
        predictions,
    };
    if arguments.json {
        print_json(&report)?;
    } else {
        print_report(&report)?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn print_report(report: &Report) -> Result<()> {
    for prediction in &report.predictions {
        if let Some(error) = &prediction.error {
            eprintln!("zoo: {error}");
            continue;
        }
        print(&prediction.image)?;
        for guess in &prediction.top {
            print(format!(
                "  {:6.2} %  {:4}  {}",
                100.0 * guess.probability,
                guess.class,
                guess.name.as_deref().unwrap_or("")
            ))?;
        }
    }
    Ok(())
}

/// The `top` largest logits with softmax probabilities; names only where the head has ImageNet's 1000 classes.
fn best(logits: &[f64], top: usize) -> Vec<Guess> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let classes = Classes::imagenet();
    order
        .into_iter()
        .take(top)
        .map(|class| {
            let known = (logits.len() == classes.len())
                .then(|| classes.get(class))
                .flatten();
            Guess {
                class,
                wnid: known.and_then(|c| c.wnid.clone()),
                name: known.map(|c| c.name.clone()),
                probability: (logits[class] - largest).exp() / sum,
                logit: logits[class],
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_logits_come_first_and_ties_by_index() {
        let top = best(&[0.0, 2.0, 2.0, -1.0], 3);
        assert_eq!(top.iter().map(|g| g.class).collect::<Vec<_>>(), [1, 2, 0]);
        let total: f64 = best(&[0.0, 2.0, 2.0, -1.0], 4)
            .iter()
            .map(|g| g.probability)
            .sum();
        assert!((total - 1.0).abs() < 1e-12);
        assert!(top[0].name.is_none(), "four classes are not ImageNet's");
    }
}
