//! Where the engines' libraries are: an environment variable, else what the project's set-up fetched.

use super::OnnxError;
use std::path::{Path, PathBuf};

/// An engine's library: how it is called, and how to get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnnxLibrary {
    /// The engine's name for people.
    pub name: &'static str,
    /// The environment variable that names the library.
    pub variable: &'static str,
    /// What the variable is set to.
    pub file: &'static str,
    /// How its file name begins.
    pub(super) prefix: &'static str,
    /// Its folder below the project.
    folder: &'static str,
    /// The command that fetches it.
    pub setup: &'static str,
    /// The oldest version that is taken.
    pub oldest: &'static str,
}

/// ONNX Runtime's.
pub static ORT: OnnxLibrary = OnnxLibrary {
    name: "ONNX Runtime",
    variable: "ORT_DYLIB_PATH",
    file: "a libonnxruntime.so",
    prefix: "libonnxruntime.so",
    folder: ".tools/onnxruntime",
    setup: "scripts/setup",
    oldest: "1.26.0",
};

/// OpenVINO's.
pub static OPENVINO: OnnxLibrary = OnnxLibrary {
    name: "OpenVINO",
    variable: "OPENVINO_DYLIB_PATH",
    file: "a libopenvino_c.so (with the other libraries beside it)",
    prefix: "libopenvino_c.so",
    folder: ".tools/openvino",
    setup: "scripts/setup-openvino",
    oldest: "2025.1.0",
};

/// The file of ONNX Runtime's library that would be loaded.
pub fn ort_library() -> Result<PathBuf, OnnxError> {
    find(&ORT, std::env::var_os(ORT.variable).map(PathBuf::from))
}

/// The file of OpenVINO's C library that would be loaded.
pub fn openvino_library() -> Result<PathBuf, OnnxError> {
    find(
        &OPENVINO,
        std::env::var_os(OPENVINO.variable).map(PathBuf::from),
    )
}

fn find(library: &'static OnnxLibrary, given: Option<PathBuf>) -> Result<PathBuf, OnnxError> {
    if let Some(path) = given.filter(|path| !path.as_os_str().is_empty()) {
        return match path.canonicalize() {
            Ok(path) => Ok(path),
            Err(e) => Err(OnnxError::Library {
                library,
                path,
                reason: format!("{e} (from {})", library.variable),
            }),
        };
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(library.folder);
    newest(&folder, library.prefix).ok_or(OnnxError::NoLibrary {
        library,
        searched: folder,
    })
}

/// The last by name of the folder's files that begin so.
fn newest(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let named = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    let found = entries.filter_map(|entry| Some(entry.ok()?.path()));
    found.filter(named).max()?.canonicalize().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_names_variable_and_setup() {
        let missing = find(&ORT, Some("/nowhere/libonnxruntime.so".into())).unwrap_err();
        let message = missing.to_string();
        for part in [
            "/nowhere/libonnxruntime.so",
            "ORT_DYLIB_PATH",
            "scripts/setup",
            "1.26.0",
        ] {
            assert!(message.contains(part), "{message}");
        }
        static NOWHERE: OnnxLibrary = OnnxLibrary {
            name: "OpenVINO",
            variable: "OPENVINO_DYLIB_PATH",
            file: "a file",
            prefix: "libopenvino_c.so",
            folder: "no/such/folder",
            setup: "scripts/setup-openvino",
            oldest: "2025.1.0",
        };
        let message = find(&NOWHERE, None).unwrap_err().to_string();
        for part in [
            "OPENVINO_DYLIB_PATH",
            "scripts/setup-openvino",
            "no/such/folder",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn the_newest_library_of_a_folder_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "libonnxruntime.so.1.31.0",
            "libonnxruntime.so.1.32.0",
            "LICENSE",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = newest(folder.path(), ORT.prefix).unwrap();
        assert!(found.ends_with("libonnxruntime.so.1.32.0"), "{found:?}");
        assert_eq!(newest(folder.path(), OPENVINO.prefix), None);
    }
}
