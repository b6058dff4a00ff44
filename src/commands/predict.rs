//! `zoo predict`: what a model sees in images.

use super::engine::{self, EngineChoice, Model, Opened};
use super::output::{explain, print, print_json};
use super::{Exit, auto, model};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tch::Tensor;
use zoo::eval::data::Classes;
use zoo::images::Transform;
use zoo::runtime::{Engine, EngineInfo, EngineName, Head, Options, Session};

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
    /// Print the pooled features that the head sees instead of classes. The checkpoint may lack the head.
    #[arg(long, conflicts_with_all = ["top", "classes"])]
    features: bool,
    /// Print JSON (schema zoo.predict/1).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: model::ModelArguments,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    model: String,
    engine: String,
    weights: String,
    trained: bool,
    predictions: Vec<Prediction>,
}

#[derive(Serialize)]
struct Prediction {
    image: String,
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<Guess>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    features: Vec<f64>,
}

#[derive(Serialize)]
struct Guess {
    class: usize,
    wnid: Option<String>,
    name: Option<String>,
    probability: f64,
    logit: f64,
}

/// Prints the likeliest classes of each image, or its features. An unreadable image is reported and makes the exit code 1.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let model = engine::one(&arguments.model, &arguments.run)?;
    let mut runner = Runner::open(arguments, &model)?;
    let transform = model::transform(&model.preprocessing);
    let trained = model.trained(&arguments.run)? && !runner.new_head();
    if !trained {
        let what = if runner.new_head() {
            "the head is new"
        } else {
            "the weights are a formula"
        };
        eprintln!(
            "zoo: {what}, not trained: the {} mean nothing",
            arguments.shown()
        );
    }
    let predictions: Vec<Prediction> = arguments
        .images
        .iter()
        .map(|path| predict(arguments, &mut runner, &transform, path))
        .collect();
    let failed = predictions.iter().any(|p| p.error.is_some());
    let info = runner.info();
    let report = Report {
        schema: "zoo.predict/1",
        weights: model.weights_identity(&arguments.run)?,
        model: model.name,
        engine: format!("{} {}", info.engine, info.version),
        trained,
        predictions,
    };
    if arguments.json {
        print_json(&report)?;
    } else {
        print_report(&report)?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

impl Arguments {
    fn shown(&self) -> &'static str {
        if self.features { "features" } else { "classes" }
    }
}

/// What looks at the images.
enum Runner {
    /// Any engine, for classes.
    Classes(Opened),
    /// libtorch, for what the head sees.
    Features(Box<Session>),
}

impl Runner {
    fn open(arguments: &Arguments, model: &Model) -> Result<Runner> {
        let run = &arguments.run;
        if !arguments.features {
            let engine = auto::resolve(model, run, 1)?;
            let opened = model.open(engine, run)?.for_images(&model.name)?;
            return Ok(Runner::Classes(opened));
        }
        let libtorch = EngineChoice::Named(EngineName::Libtorch);
        let Some(variant) = model
            .variant()
            .filter(|_| model.engine_choice(run) == libtorch)
        else {
            bail!(
                "--features needs a model of the zoo in --engine libtorch: an ONNX graph gives logits only"
            );
        };
        let options = Options {
            head: Head::None,
            ..run.options()
        };
        let session = Session::open(variant, &run.source(variant)?, &options)
            .with_context(|| format!("opening {}", model.name))?;
        Ok(Runner::Features(Box::new(session)))
    }

    fn new_head(&self) -> bool {
        match self {
            Runner::Classes(opened) => opened.new_head,
            Runner::Features(session) => session.new_head(),
        }
    }

    fn info(&self) -> EngineInfo {
        match self {
            Runner::Classes(opened) => opened.engine.info(),
            Runner::Features(session) => session.info(),
        }
    }

    /// Logits or features of an image.
    fn values(&mut self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Runner::Classes(opened) => opened.engine.logits(x)?,
            Runner::Features(session) => session.features(x)?,
        })
    }
}

fn predict(
    arguments: &Arguments,
    runner: &mut Runner,
    transform: &Transform,
    path: &Path,
) -> Prediction {
    let mut prediction = Prediction {
        image: path.display().to_string(),
        error: None,
        top: Vec::new(),
        features: Vec::new(),
    };
    match values(runner, transform, path) {
        Ok(values) if arguments.features => prediction.features = values,
        Ok(values) => prediction.top = best(&values, arguments.top),
        Err(e) => prediction.error = Some(explain(&e)),
    }
    prediction
}

/// The logits of an image, or its features.
fn values(runner: &mut Runner, transform: &Transform, path: &Path) -> Result<Vec<f64>> {
    let (height, width) = transform.size;
    let input = model::read_image(path, transform)?;
    let x = Tensor::from_slice(&input).reshape([1, 3, height as i64, width as i64]);
    let values = runner.values(&x)?;
    let flat = values.to_kind(tch::Kind::Double).flatten(0, -1);
    Ok(Vec::<f64>::try_from(flat)?)
}

fn print_report(report: &Report) -> Result<()> {
    for prediction in &report.predictions {
        if let Some(error) = &prediction.error {
            eprintln!("zoo: {error}");
            continue;
        }
        print(&prediction.image)?;
        if !prediction.features.is_empty() {
            let values: Vec<_> = prediction.features.iter().map(f64::to_string).collect();
            print(values.join(" "))?;
        }
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
