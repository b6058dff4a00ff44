//! A loaded model that runs: devices, weights applied strictly, engines behind one [`Session`].
//!
//! No data set and no metric.

mod device;
mod engine;
mod guard;
mod head;
mod load;
mod onnx;
mod precision;
mod session;

pub use device::{Device, DeviceError, LIBTORCH_VERSION, libtorch_dir};
pub use engine::{Engine, EngineError, EngineInfo, EngineName, UnknownEngine};
pub use head::HeadTensors;
pub use load::{WeightsError, WeightsSource, key_maps};
pub use onnx::{
    Dimension, INPUT_KEY, OnnxError, OnnxFile, OnnxLibrary, OnnxOptions, OnnxPreprocessing,
    OpenvinoSession, OptimizationLevel, OrtSession, PREPROCESSING_KEY, UnknownLevel,
    input_metadata, openvino_library, openvino_version, ort_library, ort_version,
};
pub use precision::{Precision, UnknownPrecision};
pub use session::{Head, Options, Session, SessionError};
