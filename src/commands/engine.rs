//! Choosing an engine, and models that are ONNX files.

use super::export_cache::exported;
use super::model::{self, ModelArguments};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use zoo::backbones::{IMAGENET, InputForm, Interpolation, Preprocessing, Variant};
use zoo::export::WEIGHTS_KEY;
use zoo::runtime::{
    Engine, EngineName, OnnxFile, OnnxOptions, OpenvinoSession, OptimizationLevel, OrtSession,
    Session, UnknownEngine,
};

/// Which engine runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    /// This one.
    Named(EngineName),
    /// The fastest of those that are installed, as measured on this machine.
    Auto,
}

impl FromStr for EngineChoice {
    type Err = UnknownEngine;

    fn from_str(s: &str) -> Result<Self, UnknownEngine> {
        match s {
            "auto" => Ok(EngineChoice::Auto),
            name => Ok(EngineChoice::Named(name.parse()?)),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineChoice::Named(engine) => engine.fmt(f),
            EngineChoice::Auto => f.write_str("auto"),
        }
    }
}

/// How ONNX graphs run, and what is to be known of a .onnx file that does not say it itself.
#[derive(Debug, Clone, Args)]
pub struct EngineArguments {
    /// libtorch, ort (ONNX Runtime), openvino, or auto: the fastest here, measured once. Default: libtorch, and ort for .onnx
    /// files.
    #[arg(long)]
    pub engine: Option<EngineChoice>,
    /// How far ONNX Runtime may rewrite the graph: none, basic, extended or all.
    #[arg(long, default_value = "all", value_name = "LEVEL")]
    pub optimization: OptimizationLevel,
    /// Size of the input. Default: the published one; 224x224 for a .onnx file that leaves it open.
    #[arg(long, value_name = "HxW", help_heading = INPUT, value_parser = size)]
    pub input_size: Option<(usize, usize)>,
    /// Share of the resized image's edge that the crop keeps. For .onnx files that do not state it: 0.875.
    #[arg(long, value_name = "SHARE", help_heading = INPUT, value_parser = share)]
    pub crop_pct: Option<f64>,
    /// Filter of the resize: bilinear or bicubic. For .onnx files that do not state it: bicubic.
    #[arg(long, value_name = "FILTER", help_heading = INPUT, value_parser = interpolation)]
    pub interpolation: Option<Interpolation>,
    /// Subtracted from RGB in [0, 1]. For .onnx files that do not state it: ImageNet's.
    #[arg(long, value_name = "R,G,B", help_heading = INPUT, value_parser = rgb)]
    pub mean: Option<[f32; 3]>,
    /// Divides afterwards. For .onnx files that do not state it: ImageNet's.
    #[arg(long, value_name = "R,G,B", help_heading = INPUT, value_parser = positive_rgb)]
    pub std: Option<[f32; 3]>,
}

const INPUT: &str = "How images become the input, where it is not as published";

fn size(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('x').and_then(|(h, w)| {
        let side = |s: &str| s.parse().ok().filter(|n| (1..=1 << 14).contains(n));
        Some((side(h)?, side(w)?))
    });
    parsed.ok_or_else(|| "say HEIGHTxWIDTH in pixels, such as 224x224".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("more than 0 and at most 1".to_owned()),
    }
}

fn interpolation(text: &str) -> Result<Interpolation, String> {
    match text {
        "bilinear" => Ok(Interpolation::Bilinear),
        "bicubic" => Ok(Interpolation::Bicubic),
        _ => Err("say bilinear or bicubic".to_owned()),
    }
}

fn rgb(text: &str) -> Result<[f32; 3], String> {
    let numbers: Vec<f32> = text
        .split(',')
        .map_while(|n| n.parse().ok().filter(|x: &f32| x.is_finite()))
        .collect();
    let three = "three numbers, such as 0.485,0.456,0.406";
    let complete = numbers.len() == text.split(',').count();
    let numbers = numbers.try_into().ok().filter(|_| complete);
    numbers.ok_or_else(|| three.to_owned())
}

fn positive_rgb(text: &str) -> Result<[f32; 3], String> {
    rgb(text).and_then(|std| match std.iter().all(|&s| s > 0.0) {
        true => Ok(std),
        false => Err("three numbers above 0".to_owned()),
    })
}

impl EngineArguments {
    /// As they stand on a command line, but for the engine.
    pub fn command_line(&self) -> Vec<String> {
        let rgb = |v: [f32; 3]| v.map(|x| x.to_string()).join(",");
        let mut line = vec![format!("--optimization={}", self.optimization)];
        line.extend(
            self.input_size
                .map(|(h, w)| format!("--input-size={h}x{w}")),
        );
        line.extend(self.crop_pct.map(|share| format!("--crop-pct={share}")));
        line.extend(
            self.interpolation
                .map(|filter| format!("--interpolation={}", model::filter(filter))),
        );
        line.extend(self.mean.map(|mean| format!("--mean={}", rgb(mean))));
        line.extend(self.std.map(|std| format!("--std={}", rgb(std))));
        line
    }

    /// The preprocessing with what the flags say of it.
    pub fn preprocessing(&self, p: &Preprocessing) -> Preprocessing {
        Preprocessing {
            size: self.input_size.unwrap_or(p.size),
            crop_pct: self.crop_pct.unwrap_or(p.crop_pct),
            interpolation: self.interpolation.unwrap_or(p.interpolation),
            mean: self.mean.unwrap_or(p.mean),
            std: self.std.unwrap_or(p.std),
            source: p.source,
        }
    }
}

/// A model of the zoo, or an ONNX file.
pub struct Model {
    /// The canonical name, or the file's name without its ending.
    pub name: String,
    /// The evaluation transform.
    pub preprocessing: Preprocessing,
    /// What it is.
    pub origin: Origin,
}

/// Where a model comes from.
pub enum Origin {
    /// The registry.
    Zoo(&'static Variant),
    /// A file.
    Onnx(Box<OnnxFile>),
}

/// Whether this names a file and not a model of the zoo.
pub fn is_onnx(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("onnx"))
}

/// The models that names, globs and .onnx files select, in the order given.
pub fn models(names: &[String], run: &ModelArguments) -> Result<Vec<Model>> {
    let mut models = Vec::new();
    for name in names {
        if is_onnx(name) {
            models.push(onnx_model(Path::new(name), run)?);
            continue;
        }
        for variant in model::variants(std::slice::from_ref(name))? {
            if !models.iter().any(|m: &Model| m.name == variant.name) {
                models.push(zoo_model(variant, run));
            }
        }
    }
    Ok(models)
}

/// The one model of this name.
pub fn one(name: &str, run: &ModelArguments) -> Result<Model> {
    if !is_onnx(name) {
        // Not a glob here.
        model::variant(name)?;
    }
    let mut models = models(&[name.to_owned()], run)?;
    models.pop().with_context(|| format!("no model `{name}`"))
}

fn zoo_model(variant: &'static Variant, run: &ModelArguments) -> Model {
    Model {
        name: variant.name.to_owned(),
        preprocessing: run.preprocessing(variant),
        origin: Origin::Zoo(variant),
    }
}

fn onnx_model(path: &Path, run: &ModelArguments) -> Result<Model> {
    for (option, given) in [
        ("--weights", run.weights.is_some()),
        ("--container", run.container.is_some()),
        ("--classes", run.classes.is_some()),
        ("--no-fuse", run.no_fuse),
    ] {
        if given {
            bail!(
                "{}: {option} is for models of the zoo; an ONNX file holds its own weights and graph",
                path.display()
            );
        }
    }
    let file = OnnxFile::read(path)?;
    let preprocessing = onnx_preprocessing(&file, &run.engine)?;
    Ok(Model {
        name: path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        preprocessing,
        origin: Origin::Onnx(Box::new(file)),
    })
}

/// From the flags, else the metadata, else ImageNet's usual one, which is said aloud.
fn onnx_preprocessing(file: &OnnxFile, flags: &EngineArguments) -> Result<Preprocessing> {
    let stated = file.preprocessing();
    let path = file.path().display();
    let p = match stated {
        Some(stated) => stated.to_preprocessing(),
        None => Preprocessing {
            size: file.size().unwrap_or((224, 224)),
            crop_pct: 0.875,
            interpolation: Interpolation::Bicubic,
            mean: IMAGENET.0,
            std: IMAGENET.1,
            source: "assumed: the file states none",
        },
    };
    if let (Some(asked), Some(fixed)) = (flags.input_size, file.size())
        && asked != fixed
    {
        bail!(
            "{path} takes {}x{} images only, not {}x{}",
            fixed.0,
            fixed.1,
            asked.0,
            asked.1
        );
    }
    let p = flags.preprocessing(&p);
    if stated.is_none() {
        eprintln!(
            "zoo: {path} does not state its preprocessing; taken: {}",
            model::describe(&p)
        );
    }
    Ok(p)
}

/// A model in its engine.
pub struct Opened {
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// Whether its head is new and untrained.
    pub new_head: bool,
}

impl Opened {
    /// The engine, for RGB images.
    ///
    /// # Errors
    /// A model of something else: event frames, sequences, points, grey digits.
    pub fn for_images(self, name: &str) -> Result<Opened> {
        let (form, channels) = (self.engine.input_form(), self.engine.input_channels());
        if form == InputForm::Images && channels == 3 {
            return Ok(self);
        }
        bail!(
            "{name} takes {form} with {channels} channels, and images are [batch, 3, height, width]: `zoo bench` and `zoo compare` \
             run it on random input"
        )
    }
}

impl Model {
    /// The engine by name where auto is not asked: libtorch runs the zoo's models, ONNX Runtime runs files.
    pub fn engine_choice(&self, run: &ModelArguments) -> EngineChoice {
        run.engine.engine.unwrap_or(match self.origin {
            Origin::Zoo(_) => EngineChoice::Named(EngineName::Libtorch),
            Origin::Onnx(_) => EngineChoice::Named(EngineName::Ort),
        })
    }

    /// What names it on a command line.
    pub fn argument(&self) -> OsString {
        match &self.origin {
            Origin::Zoo(variant) => variant.name.into(),
            Origin::Onnx(file) => file.path().as_os_str().to_owned(),
        }
    }

    /// What tells its weights from all others.
    pub fn weights_identity(&self, run: &ModelArguments) -> Result<String> {
        Ok(match &self.origin {
            Origin::Zoo(variant) => run.source(variant)?.identity()?,
            Origin::Onnx(file) => file.identity()?,
        })
    }

    /// Whether its weights were trained, as far as can be told: a file of unknown origin counts as trained.
    pub fn trained(&self, run: &ModelArguments) -> Result<bool> {
        Ok(match &self.origin {
            Origin::Zoo(variant) => run.source(variant)?.trained(),
            Origin::Onnx(file) => {
                let weights = file.metadata().get(WEIGHTS_KEY);
                !weights.is_some_and(|w| w.starts_with("formula"))
            }
        })
    }

    /// Its variant, where it is the zoo's.
    pub fn variant(&self) -> Option<&'static Variant> {
        match self.origin {
            Origin::Zoo(variant) => Some(variant),
            Origin::Onnx(_) => None,
        }
    }

    /// Loads it into this engine.
    pub fn open(&self, engine: EngineName, run: &ModelArguments) -> Result<Opened> {
        self.open_quietly(engine, run)
            .with_context(|| format!("opening {} in {engine}", self.name))
    }

    fn open_quietly(&self, engine: EngineName, run: &ModelArguments) -> Result<Opened> {
        match (&self.origin, engine) {
            (Origin::Zoo(variant), EngineName::Libtorch) => {
                let session = Session::open(variant, &run.source(variant)?, &run.options())?;
                Ok(Opened {
                    new_head: session.new_head(),
                    engine: Box::new(session),
                })
            }
            (Origin::Zoo(variant), _) => {
                let path = exported(variant, run)?;
                open_onnx(OnnxFile::read(&path)?, engine, run)
            }
            (Origin::Onnx(file), _) => open_onnx(OnnxFile::clone(file), engine, run),
        }
    }
}

fn open_onnx(file: OnnxFile, engine: EngineName, run: &ModelArguments) -> Result<Opened> {
    let options = OnnxOptions {
        device: run.device,
        precision: run.dtype,
        threads: run.threads.map(Into::into),
        optimization: run.engine.optimization,
    };
    let engine: Box<dyn Engine> = match engine {
        EngineName::Ort => Box::new(OrtSession::open(file, &options)?),
        EngineName::Openvino => Box::new(OpenvinoSession::open(file, &options)?),
        EngineName::Libtorch => bail!(
            "{}: libtorch does not run ONNX files: say --engine ort or --engine openvino",
            file.path().display()
        ),
    };
    Ok(Opened {
        engine,
        new_head: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_parsed() {
        assert_eq!(size("224x256"), Ok((224, 256)));
        assert_eq!(rgb("0.5,0.5,0.25"), Ok([0.5, 0.5, 0.25]));
        for wrong in ["224", "0x1", "x", "1x99999"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0.5", "1,2,3,4", "1,2,x", "1,2,inf"] {
            assert!(rgb(wrong).is_err(), "{wrong}");
        }
        assert!(positive_rgb("1,0,1").is_err());
        assert!(share("0").is_err() && share("1.1").is_err());
        assert_eq!("auto".parse(), Ok(EngineChoice::Auto));
        assert_eq!("ort".parse(), Ok(EngineChoice::Named(EngineName::Ort)));
    }

    #[test]
    fn onnx_files_are_told_by_their_ending() {
        assert!(is_onnx("a.onnx") && is_onnx("/x/A.ONNX"));
        assert!(!is_onnx("shvit-s1") && !is_onnx("onnx"));
    }
}
