//! A model of the zoo as an ONNX file, held to what libtorch computes.

mod gain;
mod rounding;
mod verify;

pub use gain::{Chosen, GAINS, choose};
pub use verify::{Verification, random_inputs};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tch::Tensor;
use zoo_backbones::{InputForm, Preprocessing};
use zoo_graph::Trace;
use zoo_graph::onnx::{self, ExportError, OnnxFile};
use zoo_runtime::{
    EngineError, INPUT_KEY, OnnxPreprocessing, PREPROCESSING_KEY, Session, SessionError,
    input_metadata,
};

/// The metadata key of the weights' identity.
pub const WEIGHTS_KEY: &str = "zoo.weights";

/// The metadata key of the classes' names, a JSON array in the logits' order.
pub const CLASS_NAMES_KEY: &str = "zoo.class_names";

/// What goes into a file.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What tells the weights from all others, for the metadata.
    pub weights: String,
    /// Names of the classes in the logits' order, for the metadata; empty where they are not known.
    pub classes: Vec<String>,
    /// How images become the input, for the metadata; `None` is the published way, at the session's size.
    pub preprocessing: Option<Preprocessing>,
    /// Weights in a file of their own.
    pub external_data: bool,
    /// Weights and arithmetic in half precision.
    pub half: bool,
    /// Verification begins no further batch after this time, but for the first two; `None` runs all.
    pub budget: Option<Duration>,
}

/// Why an image can not be had.
pub type ImageError = Box<dyn std::error::Error + Send + Sync>;

/// Batches of images in the model's form, each read when it is asked for.
pub type ImageBatches<'a> = dyn Iterator<Item = Result<Tensor, ImageError>> + 'a;

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
    /// The file computes something else, or it was not shown that it does not.
    #[error("{model}, {reason}. The file is kept as {} for a look; it is not to be used", path.display())]
    Differs {
        model: &'static str,
        reason: String,
        path: PathBuf,
    },
    /// Logits of another shape.
    #[error("{model}: ONNX Runtime gives logits {found:?}, and libtorch {expected:?}")]
    Shape {
        model: &'static str,
        expected: Vec<i64>,
        found: Vec<i64>,
    },
    /// An image to compare on can not be had.
    #[error("{0}")]
    Image(ImageError),
    /// The file system.
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// A traced model that is ready to be written.
pub struct Exporter<'a> {
    session: &'a Session,
    settings: Settings,
    trace: Trace,
}

impl<'a> Exporter<'a> {
    /// Traces the model at the size that the session was opened for.
    ///
    /// # Errors
    /// [`Error::Session`]: what can not be traced says what to change.
    pub fn new(session: &'a Session, settings: Settings) -> Result<Exporter<'a>, Error> {
        Ok(Exporter {
            trace: session.trace()?,
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

    /// Writes the file beside `path`, holds it to libtorch on random input and on `images` (batches of the model's form), then
    /// puts it in its place with the outcome in its metadata. A file that fails stays beside, and what was at `path` stays
    /// there.
    pub fn write_verified(
        &self,
        path: &Path,
        images: &mut ImageBatches<'_>,
    ) -> Result<(OnnxFile, Verification), Error> {
        let beside = verify::beside(path);
        self.write(&beside)?;
        let verification = verify::verify(self, &beside, images)?;
        if let Err(reason) = verification.judge() {
            return Err(Error::Differs {
                model: self.model(),
                reason: format!("weights {}: {reason}", self.settings.weights),
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
            embed_up_to: match self.settings.external_data {
                true => 0,
                false => onnx::EMBEDDED_LIMIT,
            },
            half: self.settings.half,
        };
        onnx::export(&self.trace, &options, path).map_err(|source| Error::Graph {
            model: self.model(),
            source,
        })
    }

    fn metadata(&self, verification: Option<&Verification>) -> BTreeMap<String, String> {
        let published = &self.session.variant().preprocessing;
        let preprocessing = self.settings.preprocessing.as_ref().unwrap_or(published);
        let mut preprocessing = OnnxPreprocessing::from(preprocessing);
        let [height, width] = self.session.input_size();
        preprocessing.size = (height as usize, width as usize);
        let form = self.session.input_form();
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
        if form != InputForm::Images {
            metadata.insert(INPUT_KEY.to_owned(), input_metadata(form));
        }
        if !self.settings.classes.is_empty() {
            let names = json(serde_json::to_string(&self.settings.classes));
            metadata.insert(CLASS_NAMES_KEY.to_owned(), names);
        }
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
}
