//! Choosing a model, its weights and how it runs: the same arguments for every command that runs one.

use super::engine::{EngineArguments, EngineChoice};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use zoo::backbones::{
    self, Encoding, Interpolation, NeuronKind, Preprocessing, SpikingOptions, TimeForm, Variant,
};
use zoo::images::Transform;
use zoo::runtime::{Device, EngineName, Head, Options, Precision, Session, WeightsSource};

/// How a model is loaded and run.
#[derive(Debug, Clone, Args)]
pub struct ModelArguments {
    /// Weights: a checkpoint (safetensors, .pth, .pt, .bin), or formula[:SALT[:GAIN]]. Default: formula weights, until
    /// trained ones are found for the model.
    #[arg(long, value_name = "FILE|formula")]
    pub weights: Option<String>,
    /// The container to read inside a checkpoint, such as model_ema.
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,
    /// cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    pub device: Device,
    /// f32, tf32 (CUDA only), f64, bf16 or f16.
    #[arg(long, default_value = "f32")]
    pub dtype: Precision,
    /// Threads of one operator. Default: all cores.
    #[arg(long, value_name = "N")]
    pub threads: Option<std::num::NonZeroUsize>,
    /// Run the model as it was trained: norms apart, branches apart, no prepacked kernels.
    #[arg(long)]
    pub no_fuse: bool,
    /// Width of the head. Default: the model's own. A checkpoint whose head is of another width gives the backbone, and the
    /// head is new: not trained.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    pub classes: Option<i64>,
    #[command(flatten)]
    pub engine: EngineArguments,
    /// Neurons of a spiking network: if, lif, lif-braincog, plif, eif, ilif, nilif, klif, clif, glif, psn, hdlif,
    /// izhikevich or hh. Default: those published. Others ignore it.
    #[arg(long, value_name = "NAME")]
    pub neuron: Option<NeuronKind>,
    /// Time steps of a spiking network. Default: as published. Others ignore it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=1024))]
    pub time_steps: Option<i64>,
    /// How an image becomes a sequence over time, for spiking networks of images: direct, rate, rate:SEED, ttfs or phase.
    /// All but direct read the preprocessed values as intensities in [0, 1] (docs/spiking.md).
    #[arg(long, value_name = "NAME", default_value = "direct")]
    pub encoding: Encoding,
    /// In which order a spiking network takes its time steps: folded (all steps of a layer at once), stepwise (memory
    /// does not grow with the number of steps), or auto, by the size of the input. Both give the same numbers.
    #[arg(long, value_name = "FORM", default_value = "auto")]
    pub time_form: TimeForm,
}

impl ModelArguments {
    /// Where the weights of a model come from: where none are given, the formula with the gain that suits it.
    pub fn source(&self, variant: &Variant) -> Result<WeightsSource> {
        let untrained = || format!("formula:zoo:{}", variant.formula_gain());
        let weights = self.weights.clone().unwrap_or_else(untrained);
        match (weights.parse()?, &self.container) {
            (WeightsSource::File { path, .. }, container) => Ok(WeightsSource::File {
                path,
                container: container.clone(),
            }),
            (WeightsSource::Formula(_), Some(_)) => {
                bail!("--container names a part of a checkpoint: give one with --weights FILE")
            }
            (formula, _) => Ok(formula),
        }
    }

    /// Whether the weights are a file, of one model then.
    pub fn names_a_file(&self) -> Result<bool> {
        let given: Option<WeightsSource> = self.weights.as_deref().map(str::parse).transpose()?;
        Ok(given.is_some_and(|source| source.trained()))
    }

    /// As they stand on a command line, with this engine.
    pub fn command_line(&self, engine: EngineName) -> Vec<String> {
        let mut line = vec![
            format!("--engine={engine}"),
            format!("--device={}", self.device),
            format!("--dtype={}", self.dtype),
        ];
        line.extend(self.weights.iter().map(|w| format!("--weights={w}")));
        line.extend(self.container.iter().map(|c| format!("--container={c}")));
        line.extend(self.threads.map(|n| format!("--threads={n}")));
        line.extend(self.no_fuse.then(|| "--no-fuse".to_owned()));
        line.extend(self.classes.map(|n| format!("--classes={n}")));
        line.extend(self.neuron.map(|n| format!("--neuron={n}")));
        line.extend(self.time_steps.map(|n| format!("--time-steps={n}")));
        line.push(format!("--encoding={}", self.encoding));
        line.push(format!("--time-form={}", self.time_form));
        line.extend(self.engine.command_line());
        line
    }

    /// The model in libtorch, for what only libtorch shows: the values inside.
    pub fn open_in_libtorch(&self, variant: &'static Variant) -> Result<Session> {
        if let Some(EngineChoice::Named(EngineName::Libtorch)) | None = self.engine.engine {
            return Session::open(variant, &self.source(variant)?, &self.options())
                .with_context(|| format!("opening {}", variant.name));
        }
        bail!("this looks inside the model, which libtorch alone shows: leave --engine away")
    }

    /// How images become the input of a model of the zoo: as published, but for what the flags say.
    pub fn preprocessing(&self, variant: &Variant) -> Preprocessing {
        self.engine.preprocessing(&variant.preprocessing)
    }

    /// The same, as the images crate runs it.
    pub fn transform(&self, variant: &Variant) -> Transform {
        transform(&self.preprocessing(variant))
    }

    /// How to open a session.
    pub fn options(&self) -> Options {
        let size = self.engine.input_size;
        Options {
            size: size.map(|(height, width)| [height as i64, width as i64]),
            device: self.device,
            precision: self.dtype,
            threads: self.threads.map(Into::into),
            fuse: !self.no_fuse,
            head: self.classes.map_or(Head::Published, Head::Classes),
            spiking: SpikingOptions {
                neuron: self.neuron,
                steps: self.time_steps,
                time: self.time_form,
                encoding: self.encoding,
            },
        }
    }
}

/// The one variant of this name.
pub fn variant(name: &str) -> Result<&'static Variant> {
    backbones::find(name).ok_or_else(|| unknown(name))
}

/// The variants that names and globs select, each once, in the order given.
pub fn variants(names: &[String]) -> Result<Vec<&'static Variant>> {
    let mut chosen: Vec<&'static Variant> = Vec::new();
    for name in names {
        let found = backbones::matching(name);
        if found.is_empty() {
            return Err(unknown(name));
        }
        for variant in found {
            if !chosen.iter().any(|v| v.name == variant.name) {
                chosen.push(variant);
            }
        }
    }
    Ok(chosen)
}

fn unknown(name: &str) -> anyhow::Error {
    let mut near: Vec<(usize, &str)> = backbones::variants()
        .map(|v| (strsim::damerau_levenshtein(name, v.name), v.name))
        .collect();
    near.sort_unstable();
    let suggestions: Vec<&str> = near.iter().take(3).map(|(_, name)| *name).collect();
    anyhow!(
        "no model is called `{name}`. Near it: {}; `zoo list` shows all",
        suggestions.join(", ")
    )
}

/// A variant's preprocessing as the images crate runs it.
pub fn transform(p: &Preprocessing) -> Transform {
    Transform {
        size: p.size,
        crop_pct: p.crop_pct,
        interpolation: match p.interpolation {
            Interpolation::Bilinear => zoo::images::Interpolation::Bilinear,
            Interpolation::Bicubic => zoo::images::Interpolation::Bicubic,
        },
        mean: p.mean,
        std: p.std,
    }
}

/// The filter's name in reports.
pub fn filter(interpolation: Interpolation) -> &'static str {
    match interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
    }
}

/// Preprocessing in one line, as reports name it.
pub fn describe(p: &Preprocessing) -> String {
    let (height, width) = p.size;
    format!(
        "{height}x{width}, crop {}, {} (Pillow), mean {:?}, std {:?}",
        p.crop_pct,
        filter(p.interpolation),
        p.mean,
        p.std
    )
}

/// The image file as the model's input, [3, H, W].
pub fn read_image(path: &std::path::Path, transform: &Transform) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let image = zoo::images::decode(&bytes).with_context(|| path.display().to_string())?;
    let (height, width) = transform.size;
    let mut input = vec![0.0; 3 * height * width];
    transform.write(&image, &mut input);
    Ok(input)
}
