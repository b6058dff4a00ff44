//! A model of the zoo as an ONNX file, held to what libtorch computes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tch::{Kind, Tensor};
use zoo_backbones::InputForm;
use zoo_graph::Trace;
use zoo_graph::onnx::{self, ExportError, OnnxFile};
use zoo_runtime::{
    Engine, EngineError, OnnxOptions, OnnxPreprocessing, OrtSession, PREPROCESSING_KEY, Precision,
    Session, SessionError,
};

/// The metadata key of the weights' identity.
pub const WEIGHTS_KEY: &str = "zoo.weights";

/// Batches of random input that a file is held to libtorch on.
const BATCHES: [i64; 4] = [1, 2, 5, 8];

/// What goes into a file.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What tells the weights from all others, for the metadata.
    pub weights: String,
    /// Weights in a file of their own.
    pub external_data: bool,
    /// Weights and arithmetic in half precision.
    pub half: bool,
}

/// How far ONNX Runtime's logits are from libtorch's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Largest difference of a logit, relative to the largest logit of its batch.
    pub max_relative_difference: f64,
    /// What was allowed.
    pub tolerance: f64,
    /// Batches of random input.
    pub random_batches: Vec<i64>,
    /// Images.
    pub images: usize,
    /// Images whose likeliest class is the same.
    pub same_top1: usize,
}

impl Verification {
    /// Whether the file computes what the model does.
    pub fn holds(&self) -> bool {
        self.max_relative_difference <= self.tolerance
    }
}

/// Why there is no verified file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    /// The model can not be traced or run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The graph can not be written.
    #[error("{model}: {source}")]
    Graph {
        model: &'static str,
        source: ExportError,
    },
    /// ONNX Runtime does not run the file.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file computes something else.
    #[error(
        "{model}: ONNX Runtime's logits are {difference:.1e} of the largest apart from libtorch's, and {tolerance:.1e} is \
         allowed. The file is kept as {} for a look; it is not to be used", path.display()
    )]
    Differs {
        model: &'static str,
        difference: f64,
        tolerance: f64,
        path: PathBuf,
    },
    /// The file system.
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Inputs that ONNX Runtime's session does not take.
    #[error(
        "{model} takes {form}, which this does not feed to ONNX Runtime: export it unverified (--no-verify)"
    )]
    Form { model: &'static str, form: String },
}

/// A traced model that is ready to be written.
pub struct Exporter<'a> {
    session: &'a Session,
    settings: Settings,
    trace: Trace,
}

impl<'a> Exporter<'a> {
    /// Traces the model at its published input size.
    ///
    /// # Errors
    /// [`Error::Session`]: what can not be traced says what to change.
    pub fn new(session: &'a Session, settings: Settings) -> Result<Exporter<'a>, Error> {
        let (height, width) = session.variant().preprocessing.size;
        Ok(Exporter {
            trace: session.trace([height as i64, width as i64])?,
            session,
            settings,
        })
    }

    /// What the model computes.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Writes the file without looking at what it computes.
    pub fn write(&self, path: &Path) -> Result<OnnxFile, Error> {
        self.write_with(path, None)
    }

    /// Writes the file beside `path`, holds it to libtorch on random input and on `images`, then puts it in its place with
    /// the outcome in its metadata. A file that fails stays beside, and what was at `path` stays there.
    pub fn write_verified(
        &self,
        path: &Path,
        images: &[Tensor],
    ) -> Result<(OnnxFile, Verification), Error> {
        if self.session.input_form() != InputForm::Images {
            return Err(Error::Form {
                model: self.model(),
                form: self.session.input_form().to_string(),
            });
        }
        let beside = path.with_extension("unverified.onnx");
        self.write(&beside)?;
        let verification = self.verify(&beside, images)?;
        if !verification.holds() {
            return Err(Error::Differs {
                model: self.model(),
                difference: verification.max_relative_difference,
                tolerance: verification.tolerance,
                path: beside,
            });
        }
        let file = self.write_with(path, Some(&verification))?;
        let mut data = beside.clone().into_os_string();
        data.push(".data");
        for written in [beside, PathBuf::from(data)] {
            if written.exists() {
                std::fs::remove_file(&written).map_err(|source| Error::Io {
                    path: written,
                    source,
                })?;
            }
        }
        Ok((file, verification))
    }

    fn model(&self) -> &'static str {
        self.session.variant().name
    }

    fn write_with(
        &self,
        path: &Path,
        verification: Option<&Verification>,
    ) -> Result<OnnxFile, Error> {
        let options = onnx::OnnxOptions {
            name: self.model().to_owned(),
            description: format!(
                "{} of the zoo, weights {}",
                self.model(),
                self.settings.weights
            ),
            outputs: vec!["logits".to_owned()],
            metadata: self.metadata(verification),
            external_data: self.settings.external_data,
            half: self.settings.half,
        };
        onnx::export(&self.trace, &options, path).map_err(|source| Error::Graph {
            model: self.model(),
            source,
        })
    }

    fn metadata(&self, verification: Option<&Verification>) -> BTreeMap<String, String> {
        let preprocessing = OnnxPreprocessing::from(&self.session.variant().preprocessing);
        let json = |text: serde_json::Result<String>| text.unwrap_or_default();
        let mut metadata = BTreeMap::from([
            (
                "zoo.version".to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
            ("zoo.model".to_owned(), self.model().to_owned()),
            (WEIGHTS_KEY.to_owned(), self.settings.weights.clone()),
            (
                PREPROCESSING_KEY.to_owned(),
                json(serde_json::to_string(&preprocessing)),
            ),
        ]);
        if let Some(shape) = self.trace.graph.outputs.first() {
            let classes = self.trace.graph.values[*shape].shape.last();
            metadata.extend(classes.map(|n| ("zoo.classes".to_owned(), n.to_string())));
        }
        if let Some(verification) = verification {
            let text = json(serde_json::to_string(verification));
            metadata.insert("zoo.verified".to_owned(), text);
        }
        metadata
    }

    /// Holds a file to libtorch: random input at several batches, then images [n, C, H, W].
    fn verify(&self, path: &Path, images: &[Tensor]) -> Result<Verification, Error> {
        let file = zoo_runtime::OnnxFile::read(path).map_err(EngineError::from)?;
        let options = OnnxOptions {
            precision: Precision::F32,
            threads: self.session.options().threads,
            ..OnnxOptions::default()
        };
        let mut ort = OrtSession::open(file, &options).map_err(EngineError::from)?;
        let mut verification = Verification {
            max_relative_difference: 0.0,
            tolerance: self.tolerance(),
            random_batches: BATCHES.to_vec(),
            images: 0,
            same_top1: 0,
        };
        let (height, width) = self.session.variant().preprocessing.size;
        let (channels, sides) = (self.session.input_channels(), [height as i64, width as i64]);
        for batch in BATCHES {
            let shape = [batch, channels, sides[0], sides[1]];
            let x = Tensor::randn(shape, (Kind::Float, tch::Device::Cpu));
            self.hold(&mut ort, &x, &mut verification)?;
        }
        for x in images {
            let same = self.hold(&mut ort, x, &mut verification)?;
            verification.images += x.size()[0] as usize;
            verification.same_top1 += same;
        }
        Ok(verification)
    }

    /// Compares the logits of a batch; gives how many inputs have the same likeliest class.
    fn hold(
        &self,
        ort: &mut OrtSession,
        x: &Tensor,
        verification: &mut Verification,
    ) -> Result<usize, Error> {
        let expected = self.session.logits(x)?.to_kind(Kind::Double);
        let found = ort.logits(x)?.to_kind(Kind::Double);
        let scale = expected.abs().max();
        let apart = ((&found - &expected).abs().max() / scale).double_value(&[]);
        // Not `max`, which would lose what is not a number.
        if apart.is_nan() || apart > verification.max_relative_difference {
            verification.max_relative_difference = apart;
        }
        let top = |t: &Tensor| t.argmax(1, false);
        let same = top(&found).eq_tensor(&top(&expected)).sum(Kind::Int64);
        Ok(same.int64_value(&[]) as usize)
    }

    /// Of the logits' scale: rounding, or what the model's decisions make of it.
    fn tolerance(&self) -> f64 {
        let least = if self.settings.half { 2e-2 } else { 1e-4 };
        self.session.float32_tolerance().max(least)
    }
}
