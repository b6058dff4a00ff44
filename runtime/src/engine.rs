//! What every engine can do: preprocessed images in, logits out.

use crate::onnx::OnnxError;
use crate::{Device, LIBTORCH_VERSION, Precision, Session, SessionError};
use std::fmt;
use std::str::FromStr;
use tch::Tensor;
use zoo_backbones::{Encoding, InputForm, TimeForm};

/// An engine by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum EngineName {
    /// The model as it is written here, run by libtorch: a [`Session`].
    #[default]
    Libtorch,
    /// The model's ONNX graph in ONNX Runtime: an [`OrtSession`](crate::OrtSession).
    Ort,
    /// The same graph in OpenVINO: an [`OpenvinoSession`](crate::OpenvinoSession).
    Openvino,
}

impl EngineName {
    /// Every engine.
    pub const ALL: [EngineName; 3] = [EngineName::Libtorch, EngineName::Ort, EngineName::Openvino];

    /// The name as it is given and printed.
    pub fn as_str(self) -> &'static str {
        match self {
            EngineName::Libtorch => "libtorch",
            EngineName::Ort => "ort",
            EngineName::Openvino => "openvino",
        }
    }

    /// Whether it runs ONNX graphs.
    pub fn takes_onnx(self) -> bool {
        self != EngineName::Libtorch
    }
}

/// Not an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an engine: say libtorch, ort or openvino")]
pub struct UnknownEngine(String);

impl FromStr for EngineName {
    type Err = UnknownEngine;

    fn from_str(s: &str) -> Result<Self, UnknownEngine> {
        let mut all = EngineName::ALL.into_iter();
        all.find(|e| e.as_str() == s)
            .ok_or_else(|| UnknownEngine(s.to_owned()))
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What really runs, in words for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// The engine, with the provider or device plug-in that runs the graph: `libtorch`,
    /// `onnxruntime CPUExecutionProvider`, `openvino CPU`.
    pub engine: String,
    /// The engine's own version.
    pub version: String,
    /// Where it runs.
    pub device: Device,
    /// The format it computes in.
    pub precision: Precision,
    /// Threads of one operator.
    pub threads: usize,
    /// What else bears on speed.
    pub options: Vec<String>,
}

/// Why an engine does not run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// libtorch's reasons.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The reasons of the engines that run ONNX graphs.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
}

/// A model that is ready to run.
pub trait Engine {
    /// What really runs.
    fn info(&self) -> EngineInfo;

    /// Channels of the input.
    fn input_channels(&self) -> i64;

    /// The form of the input.
    fn input_form(&self) -> InputForm;

    /// Inputs of that form, f32, in the format, in the memory layout and on the device that [`Engine::logits`] takes
    /// without any further work.
    fn prepare(&self, x: &Tensor) -> Tensor;

    /// Logits [B, classes] of inputs, prepared or not.
    fn logits(&mut self, x: &Tensor) -> Result<Tensor, EngineError>;

    /// Waits until the device has finished what was asked of it.
    fn synchronize(&self) {}

    /// The model of the zoo that libtorch runs here; none in other engines, which show nothing of their inside.
    fn session(&self) -> Option<&Session> {
        None
    }
}

impl Engine for Session {
    fn info(&self) -> EngineInfo {
        let options = self.options();
        let form: &[&str] = if options.fuse {
            &["fused", "channels-last"]
        } else {
            &["plain"]
        };
        let mut form: Vec<String> = form.iter().map(|&text| text.to_owned()).collect();
        let spiking = &options.spiking;
        form.extend(spiking.neuron.map(|neuron| format!("neuron {neuron}")));
        form.extend(spiking.steps.map(|steps| format!("{steps} steps")));
        if spiking.encoding != Encoding::Direct {
            form.push(format!("encoding {}", spiking.encoding));
        }
        if self.variant().family == "step" || spiking.time != TimeForm::default() {
            form.push(format!("time {}", spiking.time));
        }
        EngineInfo {
            engine: "libtorch".to_owned(),
            version: LIBTORCH_VERSION.to_owned(),
            device: options.device,
            precision: options.precision,
            threads: usize::try_from(tch::get_num_threads()).unwrap_or(1),
            options: form,
        }
    }

    fn input_channels(&self) -> i64 {
        Session::input_channels(self)
    }

    fn input_form(&self) -> InputForm {
        Session::input_form(self)
    }

    fn prepare(&self, x: &Tensor) -> Tensor {
        Session::prepare(self, x)
    }

    fn logits(&mut self, x: &Tensor) -> Result<Tensor, EngineError> {
        Ok(Session::logits(self, x)?)
    }

    fn synchronize(&self) {
        Session::synchronize(self);
    }

    fn session(&self) -> Option<&Session> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for engine in EngineName::ALL {
            assert_eq!(engine.to_string().parse(), Ok(engine));
        }
        let message = "onnxruntime".parse::<EngineName>().unwrap_err().to_string();
        assert!(
            message.contains("`onnxruntime`") && message.contains("ort"),
            "{message}"
        );
    }
}
