//! Where a model runs, and the CUDA half of libtorch, which is loaded only when somebody asks for it.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

/// The libtorch that tch 0.24.0 binds.
pub const LIBTORCH_VERSION: &str = "2.11.0";

/// A device by name: `cpu`, `cuda`, `cuda:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device with this index.
    Cuda(usize),
}

/// Why a device can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not a device name.
    #[error("`{0}` is not a device: say cpu, cuda or cuda:N")]
    Unknown(String),
    /// The libtorch in use was built or installed without CUDA.
    #[error(
        "no CUDA: the libtorch in {} has no libtorch_cuda.so. Point LD_LIBRARY_PATH at the lib folder of a full \
         PyTorch {LIBTORCH_VERSION} (python3 -c 'import torch; print(torch.__path__[0] + \"/lib\")') and run the same \
         binary again",
        .0.display()
    )]
    NoCudaHalf(PathBuf),
    /// The loader refused the CUDA half.
    #[error("no CUDA: loading {} failed: {reason}", .library.display())]
    Load {
        /// The library.
        library: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// Another libtorch than the one this binary was built for.
    #[error(
        "the libtorch in {} is {found}; this binary needs {LIBTORCH_VERSION}: install torch=={LIBTORCH_VERSION} or unset \
         LD_LIBRARY_PATH",
        .dir.display()
    )]
    Version {
        /// Its folder.
        dir: PathBuf,
        /// Its version.
        found: String,
    },
    /// CUDA is there but sees no such device.
    #[error(
        "no such device cuda:{index}: {available} CUDA device(s) visible (driver? CUDA_VISIBLE_DEVICES?)"
    )]
    Missing {
        /// The index asked for.
        index: usize,
        /// How many there are.
        available: usize,
    },
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(s: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(s.to_owned());
        match s.split_once(':') {
            None if s == "cpu" => Ok(Device::Cpu),
            None if s == "cuda" => Ok(Device::Cuda(0)),
            Some(("cuda", index)) => index.parse().map(Device::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Device {
    /// The tch device, made ready: for CUDA its half of libtorch is loaded first, since libtorch remembers
    /// for good that CUDA was missing at the first question.
    pub fn open(self) -> Result<tch::Device, DeviceError> {
        let Device::Cuda(index) = self else {
            return Ok(tch::Device::Cpu);
        };
        static LOADED: OnceLock<Result<(), DeviceError>> = OnceLock::new();
        LOADED.get_or_init(load_cuda).clone()?;
        let available = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        if index >= available {
            return Err(DeviceError::Missing { index, available });
        }
        tch::Cuda::cudnn_set_benchmark(true);
        Ok(tch::Device::Cuda(index))
    }
}

/// The folder of the libtorch this process uses.
pub fn libtorch_dir() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let library = maps
        .lines()
        .filter_map(|line| line.find('/').map(|start| &line[start..]))
        .find(|path| path.ends_with("/libtorch_cpu.so"))?;
    Some(Path::new(library).parent()?.to_path_buf())
}

fn load_cuda() -> Result<(), DeviceError> {
    let dir = libtorch_dir().unwrap_or_default();
    check_version(&dir)?;
    let library = dir.join("libtorch_cuda.so");
    if !library.exists() {
        return Err(DeviceError::NoCudaHalf(dir));
    }
    let name = CString::new(library.as_os_str().as_bytes()).map_err(|e| DeviceError::Load {
        library: library.clone(),
        reason: e.to_string(),
    })?;
    // SAFETY: a NUL-terminated path; libtorch's initialisers only register operators. RTLD_GLOBAL, so that the
    // registration reaches the libtorch_cpu already loaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        // SAFETY: after a failed dlopen, dlerror returns a NUL-terminated message.
        let message = unsafe { CStr::from_ptr(libc::dlerror()) };
        return Err(DeviceError::Load {
            library,
            reason: message.to_string_lossy().into_owned(),
        });
    }
    Ok(())
}

/// Compares the version that an installation states beside its libraries, where it states one.
fn check_version(dir: &Path) -> Result<(), DeviceError> {
    let root = dir.parent().unwrap_or(dir);
    let stated = std::fs::read_to_string(root.join("build-version"))
        .ok()
        .or_else(|| python_version(&root.join("version.py")));
    match stated {
        Some(found) if !found.trim().starts_with(LIBTORCH_VERSION) => Err(DeviceError::Version {
            dir: dir.to_path_buf(),
            found: found.trim().to_owned(),
        }),
        _ => Ok(()),
    }
}

/// `__version__ = '2.11.0+cu130'` out of torch/version.py.
fn python_version(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|l| l.starts_with("__version__"))?;
    Some(line.split(['\'', '"']).nth(1)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["cpu", "cuda:0", "cuda:3"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["gpu", "cuda:", "cuda:x", "cpu:0", ""] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("lib");
        std::fs::create_dir(&lib).unwrap();
        assert_eq!(check_version(&lib), Ok(()));
        std::fs::write(
            dir.path().join("version.py"),
            "__version__ = '2.9.1+cu128'\n",
        )
        .unwrap();
        let message = check_version(&lib).unwrap_err().to_string();
        assert!(
            message.contains("2.9.1+cu128") && message.contains("2.11.0"),
            "{message}"
        );
    }

    #[test]
    fn the_process_knows_its_libtorch() {
        let _ = tch::Tensor::from(1.0);
        assert!(libtorch_dir().unwrap().join("libtorch_cpu.so").exists());
    }
}
