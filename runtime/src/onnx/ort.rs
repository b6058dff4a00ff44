//! ONNX Runtime as an engine.

use super::file::{Element, OnnxFile};
use super::library::{ORT, ort_library};
use super::{OnnxError, OnnxOptions, image};
use crate::{Device, Engine, EngineError, EngineInfo, Precision};
use half::f16;
use ort::environment::Environment;
use ort::ep;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionOutputs};
use ort::value::TensorRef;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use tch::Tensor;
use zoo_backbones::InputForm;

const NAME: &str = "ONNX Runtime";
/// Its own names for its providers.
const CPU: &str = "CPUExecutionProvider";
const CUDA: &str = "CUDAExecutionProvider";

/// How far ONNX Runtime may rewrite a graph before it runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OptimizationLevel {
    /// Not at all.
    None,
    /// Constants folded, redundant operators removed.
    Basic,
    /// Operators fused too.
    Extended,
    /// Memory layout too.
    #[default]
    All,
}

const LEVELS: [(OptimizationLevel, &str); 4] = [
    (OptimizationLevel::None, "none"),
    (OptimizationLevel::Basic, "basic"),
    (OptimizationLevel::Extended, "extended"),
    (OptimizationLevel::All, "all"),
];

/// Not an optimisation level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an optimisation level: say none, basic, extended or all")]
pub struct UnknownLevel(String);

impl FromStr for OptimizationLevel {
    type Err = UnknownLevel;

    fn from_str(s: &str) -> Result<Self, UnknownLevel> {
        let level = LEVELS.iter().find(|(_, name)| *name == s);
        level
            .map(|(level, _)| *level)
            .ok_or_else(|| UnknownLevel(s.to_owned()))
    }
}

impl fmt::Display for OptimizationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = LEVELS.iter().find(|(level, _)| level == self);
        f.write_str(level.map_or("", |(_, name)| name))
    }
}

impl From<OptimizationLevel> for GraphOptimizationLevel {
    fn from(level: OptimizationLevel) -> Self {
        match level {
            OptimizationLevel::None => GraphOptimizationLevel::Disable,
            OptimizationLevel::Basic => GraphOptimizationLevel::Level1,
            OptimizationLevel::Extended => GraphOptimizationLevel::Level2,
            OptimizationLevel::All => GraphOptimizationLevel::All,
        }
    }
}

/// An ONNX graph in ONNX Runtime.
pub struct OrtSession {
    file: OnnxFile,
    options: OnnxOptions,
    session: Session,
    version: &'static str,
    provider: &'static str,
}

impl OrtSession {
    /// Loads the graph. Telemetry is off, and idle threads do not spin.
    ///
    /// # Errors
    /// A library that is missing or too old, a provider that does not register, a format that ONNX Runtime can not
    /// compute in, a graph that it refuses.
    pub fn open(file: OnnxFile, options: &OnnxOptions) -> Result<OrtSession, OnnxError> {
        supported(&file, options)?;
        let runtime = runtime()?;
        let refused = |reason: String| OnnxError::Graph {
            path: file.path.clone(),
            engine: format!("{NAME} {}", runtime.version),
            reason,
            hint: file.foreign_operators(),
        };
        let builder = builder(&runtime.environment, options).map_err(|e| refused(e.to_string()))?;
        let (mut builder, provider) = register(builder, options)?;
        let session = builder
            .commit_from_file(&file.path)
            .map_err(|e| refused(e.to_string()))?;
        Ok(OrtSession {
            options: *options,
            session,
            version: &runtime.version,
            provider,
            file,
        })
    }

    /// The file it runs.
    pub fn file(&self) -> &OnnxFile {
        &self.file
    }

    fn run(&mut self, x: &Tensor) -> Result<Tensor, OnnxError> {
        let shape = x.size();
        self.file.check(&shape)?;
        let x = image::contiguous(x, self.file.element);
        let (input, output) = (self.file.input.as_str(), self.file.output.as_str());
        let result = match self.file.element {
            Element::F32 => TensorRef::from_array_view((shape, image::values::<f32>(&x)))
                .and_then(|x| self.session.run(ort::inputs![input => x])),
            Element::F16 => TensorRef::from_array_view((shape, image::values::<f16>(&x)))
                .and_then(|x| self.session.run(ort::inputs![input => x])),
        };
        result
            .and_then(|outputs| logits(&outputs, output))
            .map_err(|e| OnnxError::Run {
                path: self.file.path.clone(),
                engine: format!("{NAME} {} ({})", self.version, self.provider),
                reason: e.to_string(),
            })
    }
}

impl Engine for OrtSession {
    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: format!("onnxruntime {}", self.provider),
            version: self.version.to_owned(),
            device: self.options.device,
            precision: self.options.precision,
            threads: self.options.threads(),
            options: vec![format!("graph optimisation {}", self.options.optimization)],
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

fn supported(file: &OnnxFile, options: &OnnxOptions) -> Result<(), OnnxError> {
    let unsupported = |what: String, remedy| {
        Err(OnnxError::Unsupported {
            engine: NAME,
            what,
            remedy,
        })
    };
    match (options.precision, file.element) {
        (Precision::F32, Element::F32) | (Precision::F16, Element::F16) => Ok(()),
        (Precision::F32, Element::F16) => unsupported(
            format!(
                "float32 for {}, whose input is float16",
                file.path.display()
            ),
            "say --dtype f16",
        ),
        (Precision::F16, Element::F32) => unsupported(
            format!(
                "float16 for {}, whose input is float32",
                file.path.display()
            ),
            "export the model in float16",
        ),
        (Precision::Bf16, _) => unsupported(
            "bf16 kernels for convolutions and products on the CPU".to_owned(),
            "say --engine openvino or --engine libtorch, or --dtype f32",
        ),
        (Precision::Tf32, _) if options.device != Device::Cpu => Ok(()),
        (other, _) => unsupported(
            format!("{other} arithmetic"),
            "say --engine libtorch, or --dtype f32",
        ),
    }
}

fn builder(environment: &Environment, options: &OnnxOptions) -> ort::Result<SessionBuilder> {
    Session::builder(environment)?
        .with_optimization_level(options.optimization.into())?
        .with_intra_threads(options.threads())?
        .with_inter_threads(1)?
        // Idle threads that spin slow down everything else in the process and on the machine.
        .with_config_entry("session.force_spinning_stop", "1")
        .map_err(ort::Error::into)
}

/// Registers the device's provider, or fails: no other one takes over.
fn register(
    builder: SessionBuilder,
    options: &OnnxOptions,
) -> Result<(SessionBuilder, &'static str), OnnxError> {
    let failed = |provider, reason: String, remedy| OnnxError::Provider {
        engine: NAME,
        provider,
        reason,
        remedy,
    };
    match options.device {
        Device::Cpu => builder
            .with_execution_providers([ep::CPU::default().build().error_on_failure()])
            .map(|builder| (builder, CPU))
            .map_err(|e| {
                failed(
                    CPU,
                    e.to_string(),
                    "Is ORT_DYLIB_PATH a complete ONNX Runtime?",
                )
            }),
        Device::Cuda(index) => {
            let remedy = "Point ORT_DYLIB_PATH at the library of an onnxruntime-gpu whose CUDA is installed, or say --device cpu";
            let provider = ep::CUDA::default()
                .with_device_id(i32::try_from(index).unwrap_or(i32::MAX))
                .with_tf32(options.precision == Precision::Tf32)
                .build()
                .error_on_failure();
            let cuda_only = || -> ort::Result<SessionBuilder> {
                let builder = builder.with_execution_providers([provider])?;
                // Operators that the provider lacks would run on the CPU without a word.
                Ok(builder.with_config_entry("session.disable_cpu_ep_fallback", "1")?)
            };
            cuda_only()
                .map(|builder| (builder, CUDA))
                .map_err(|e| failed(CUDA, e.to_string(), remedy))
        }
    }
}

fn logits(outputs: &SessionOutputs<'_>, name: &str) -> ort::Result<Tensor> {
    let Some(value) = outputs.get(name) else {
        return Err(ort::Error::new(format!("there is no output `{name}`")));
    };
    if let Ok((shape, values)) = value.try_extract_tensor::<f32>() {
        return Ok(Tensor::from_slice(values).reshape(&shape[..]));
    }
    let (shape, values) = value.try_extract_tensor::<f16>()?;
    Ok(Tensor::from_slice(values).reshape(&shape[..]))
}

/// The library, loaded once for the process.
struct Runtime {
    environment: Environment,
    version: String,
}

fn runtime() -> Result<&'static Runtime, OnnxError> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = load(&ort_library()?)?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

fn load(path: &Path) -> Result<Runtime, OnnxError> {
    let wrong = |reason: String| OnnxError::Library {
        library: &ORT,
        path: path.to_path_buf(),
        reason,
    };
    // Before anything else: crate ort aborts the process on an older library.
    let version = library_version(path).map_err(wrong)?;
    if older(&version, ORT.oldest) {
        return Err(wrong(format!("it is version {version}, which is too old")));
    }
    let environment = ort::init_from(path)
        .map_err(|e| wrong(e.to_string()))?
        .with_telemetry(false)
        .build()
        .map_err(|e| wrong(e.to_string()))?;
    environment.set_log_level(LogLevel::Error);
    Ok(Runtime {
        environment,
        version,
    })
}

/// `OrtApiBase` of ONNX Runtime's C API, the one structure that no version changes.
#[repr(C)]
struct ApiBase {
    get_api: extern "C" fn(u32) -> *const c_void,
    get_version: extern "C" fn() -> *const c_char,
}

fn library_version(path: &Path) -> Result<String, String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: a NUL-terminated path; the library stays loaded, since ort loads it next.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: after a failed dlopen, dlerror returns a NUL-terminated message.
        let message = unsafe { CStr::from_ptr(libc::dlerror()) };
        return Err(message.to_string_lossy().into_owned());
    }
    // SAFETY: a valid handle and a NUL-terminated name.
    let symbol = unsafe { libc::dlsym(handle, c"OrtGetApiBase".as_ptr()) };
    if symbol.is_null() {
        return Err("it is no ONNX Runtime: it exports no OrtGetApiBase".to_owned());
    }
    // SAFETY: that is the symbol's type in ONNX Runtime's C API, in every version.
    let get_base: extern "C" fn() -> *const ApiBase = unsafe { std::mem::transmute(symbol) };
    // SAFETY: the library returns a pointer to a static structure, and its version a static string.
    let version = unsafe { CStr::from_ptr(((*get_base()).get_version)()) };
    Ok(version.to_string_lossy().into_owned())
}

/// Whether a version comes before another, number by number.
fn older(version: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let parts = text.split(['.', '-', '+']);
        parts.map_while(|part| part.parse().ok()).collect()
    };
    numbers(version) < numbers(than)
}

/// The library that would be loaded and its version, without loading a graph.
pub fn ort_version() -> Result<(PathBuf, String), OnnxError> {
    let path = ort_library()?;
    Ok((path, runtime()?.version.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(older("1.22.1", "1.26.0") && older("1.9.0", "1.26.0"));
        assert!(!older("1.26.0", "1.26.0") && !older("1.32.0", "1.26.0"));
        assert!(!older("2.0.0-rc1", "1.26.0"));
    }

    #[test]
    fn levels_round_trip() {
        for (level, name) in LEVELS {
            assert_eq!(name.parse(), Ok(level));
            assert_eq!(level.to_string(), name);
        }
        assert!("fast".parse::<OptimizationLevel>().is_err());
    }

    #[test]
    fn a_library_of_something_else_is_named() {
        let libtorch = crate::libtorch_dir();
        let _ = tch::Tensor::from(1.0);
        let dir = libtorch.or_else(crate::libtorch_dir).unwrap();
        let message = load(&dir.join("libc10.so")).err().unwrap().to_string();
        assert!(
            message.contains("libc10.so") && message.contains("OrtGetApiBase"),
            "{message}"
        );
        let message = load(Path::new("/nowhere.so")).err().unwrap().to_string();
        assert!(
            message.contains("/nowhere.so") && message.contains("ORT_DYLIB_PATH"),
            "{message}"
        );
    }
}
