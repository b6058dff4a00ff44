//! OpenVINO as an engine.

use super::file::{Element, OnnxFile};
use super::library::{OPENVINO, openvino_library};
use super::{OnnxError, OnnxOptions, image};
use crate::guard::guarded;
use crate::{Device, Engine, EngineError, EngineInfo, Precision};
use openvino::{
    CompiledModel, Core, DeviceType, ElementType, InferRequest, PartialShape, PropertyKey,
    RwPropertyKey, Shape,
};
use std::path::PathBuf;
use std::sync::OnceLock;
use tch::Tensor;
use zoo_backbones::InputForm;

const NAME: &str = "OpenVINO";
/// Programs kept, one for each shape of input.
const MAX_PROGRAMS: usize = 8;

/// An ONNX graph in OpenVINO's CPU plug-in: one program for each shape of input, made when it is first seen.
pub struct OpenvinoSession {
    file: OnnxFile,
    options: OnnxOptions,
    core: Core,
    version: &'static str,
    /// The latest last.
    programs: Vec<Program>,
}

/// The graph for inputs of one shape.
struct Program {
    shape: Vec<i64>,
    compiled: CompiledModel,
    request: InferRequest,
}

impl OpenvinoSession {
    /// Reads the graph and compiles it for one image, where its batch is not fixed to another number.
    ///
    /// # Errors
    /// A library that is missing or too old, a device or format that OpenVINO's CPU plug-in has not, a graph that it
    /// refuses.
    pub fn open(file: OnnxFile, options: &OnnxOptions) -> Result<OpenvinoSession, OnnxError> {
        let hint = precision_hint(&file, options)?;
        let version = version()?;
        let mut session = OpenvinoSession {
            core: core(options, hint).map_err(|reason| OnnxError::Library {
                library: &OPENVINO,
                path: openvino_library().unwrap_or_default(),
                reason,
            })?,
            options: *options,
            version,
            programs: Vec::new(),
            file,
        };
        session.read()?;
        Ok(session)
    }

    /// The file it runs.
    pub fn file(&self) -> &OnnxFile {
        &self.file
    }

    fn refused(&self, reason: String) -> OnnxError {
        OnnxError::Graph {
            path: self.file.path.clone(),
            engine: format!("{NAME} {}", self.version),
            reason,
            hint: self.file.foreign_operators(),
        }
    }

    fn read(&mut self) -> Result<openvino::Model, OnnxError> {
        let path = self.file.path.to_string_lossy().into_owned();
        let read =
            guarded(|| self.core.read_model_from_file(&path, "")).map_err(|r| self.refused(r))?;
        read.map_err(|e| self.refused(words(&e)))
    }

    fn compile(&mut self, shape: &[i64]) -> Result<Program, OnnxError> {
        let mut model = self.read()?;
        let core = &mut self.core;
        let compiled = guarded(|| {
            let rank = shape.len() as i64;
            model.reshape_single_input(&PartialShape::new_static(rank, shape)?)?;
            let mut compiled = core.compile_model(&model, DeviceType::CPU)?;
            let request = compiled.create_infer_request()?;
            Ok::<_, openvino::InferenceError>((compiled, request))
        });
        let (compiled, request) = compiled
            .map_err(|r| self.refused(r))?
            .map_err(|e| self.refused(words(&e)))?;
        Ok(Program {
            shape: shape.to_vec(),
            compiled,
            request,
        })
    }

    /// The program for this shape, which is then the last one.
    fn program(&mut self, shape: &[i64]) -> Result<&mut Program, OnnxError> {
        let program = match self.programs.iter().position(|p| p.shape == shape) {
            Some(known) => self.programs.remove(known),
            None => self.compile(shape)?,
        };
        if self.programs.len() == MAX_PROGRAMS {
            self.programs.remove(0);
        }
        self.programs.push(program);
        let last = self.programs.len() - 1;
        Ok(&mut self.programs[last])
    }

    fn run(&mut self, x: &Tensor) -> Result<Tensor, OnnxError> {
        let shape = x.size();
        self.file.check(&shape)?;
        let element = self.file.element;
        let x = image::contiguous(x, element);
        let engine = format!("{NAME} {} (CPU)", self.version);
        let path = self.file.path.clone();
        let program = self.program(&shape)?;
        guarded(|| program.run(&x, element))
            .and_then(|result| result.map_err(|e| words(&e)))
            .map_err(|reason| OnnxError::Run {
                path,
                engine,
                reason,
            })
    }

    /// A property of the last program, as OpenVINO itself tells it.
    fn property(&self, key: RwPropertyKey) -> Option<String> {
        let program = self.programs.last()?;
        let value = program.compiled.get_property(&PropertyKey::Rw(key)).ok()?;
        Some(value.into_owned())
    }
}

impl Program {
    fn run(&mut self, x: &Tensor, element: Element) -> Result<Tensor, openvino::InferenceError> {
        let mut input = self.request.get_input_tensor()?;
        match element {
            Element::F32 => input
                .get_data_mut()?
                .copy_from_slice(image::values::<f32>(x)),
            Element::F16 => input
                .get_data_mut()?
                .copy_from_slice(image::values::<half::f16>(x)),
        }
        self.request.infer()?;
        let output = self.request.get_output_tensor()?;
        let shape: Shape = output.get_shape()?;
        let values = match output.get_element_type()? {
            ElementType::F16 => Tensor::from_slice(output.get_data::<half::f16>()?),
            _ => Tensor::from_slice(output.get_data::<f32>()?),
        };
        Ok(values.reshape(shape.get_dimensions()))
    }
}

impl Engine for OpenvinoSession {
    fn info(&self) -> EngineInfo {
        let threads = self
            .property(RwPropertyKey::InferenceNumThreads)
            .and_then(|n| n.parse().ok());
        let hint = self.property(RwPropertyKey::HintInferencePrecision);
        EngineInfo {
            engine: "openvino CPU".to_owned(),
            version: self.version.to_owned(),
            device: Device::Cpu,
            precision: hint
                .and_then(|hint| hint.parse().ok())
                .unwrap_or(self.options.precision),
            threads: threads.unwrap_or_else(|| self.options.threads()),
            options: vec!["one program for each batch size".to_owned()],
        }
    }

    fn input_channels(&self) -> i64 {
        self.file.channels()
    }

    fn input_form(&self) -> InputForm {
        self.file.form()
    }

    fn prepare(&self, x: &Tensor) -> Tensor {
        image::contiguous(x, self.file.element)
    }

    fn logits(&mut self, x: &Tensor) -> Result<Tensor, EngineError> {
        Ok(self.run(x)?)
    }
}

/// OpenVINO's name for the format, which it otherwise chooses itself: bf16 on processors that have it.
fn precision_hint(file: &OnnxFile, options: &OnnxOptions) -> Result<&'static str, OnnxError> {
    let unsupported = |what: String, remedy| {
        Err(OnnxError::Unsupported {
            engine: NAME,
            what,
            remedy,
        })
    };
    if options.device != Device::Cpu {
        return unsupported(
            format!("device {}", options.device),
            "say --device cpu, or --engine ort or libtorch",
        );
    }
    match (options.precision, file.element) {
        (Precision::F32, _) => Ok("f32"),
        (Precision::Bf16, _) => Ok("bf16"),
        (Precision::F16, _) => Ok("f16"),
        (other, _) => unsupported(
            format!("{other} arithmetic on the CPU"),
            "say --dtype f32, bf16 or f16, or --engine libtorch",
        ),
    }
}

fn core(options: &OnnxOptions, hint: &str) -> Result<Core, String> {
    guarded(|| {
        let mut core = Core::new().map_err(|e| e.to_string())?;
        let threads = options.threads().to_string();
        let properties = [
            (RwPropertyKey::InferenceNumThreads, threads.as_str()),
            (RwPropertyKey::HintPerformanceMode, "LATENCY"),
            (RwPropertyKey::HintInferencePrecision, hint),
        ];
        core.set_properties(&DeviceType::CPU, properties)
            .map_err(|e| words(&e))?;
        Ok(core)
    })?
}

/// OpenVINO's message without the places in its source files.
fn words(error: &openvino::InferenceError) -> String {
    let Some(message) = &error.message else {
        return error.to_string();
    };
    let lines = message.lines().map(str::trim).filter(|line| {
        let place = line.starts_with("Exception from src/") || line.starts_with("Check '");
        !line.is_empty() && !place
    });
    let text = lines.collect::<Vec<_>>().join("; ");
    if text.is_empty() {
        message.clone()
    } else {
        text
    }
}

fn version() -> Result<&'static str, OnnxError> {
    static LOADED: OnceLock<String> = OnceLock::new();
    if let Some(version) = LOADED.get() {
        return Ok(version);
    }
    let path = openvino_library()?;
    let wrong = |reason| OnnxError::Library {
        library: &OPENVINO,
        path: path.clone(),
        reason,
    };
    guarded(|| openvino_sys::library::load_from(&path))
        .and_then(|loaded| loaded)
        .map_err(wrong)?;
    let build = guarded(|| openvino::version().build_number).map_err(wrong)?;
    Ok(LOADED.get_or_init(|| build))
}

/// The library that is loaded and its version, without reading a graph.
pub fn openvino_version() -> Result<(PathBuf, String), OnnxError> {
    let path = openvino_library()?;
    Ok((path, version()?.to_owned()))
}
