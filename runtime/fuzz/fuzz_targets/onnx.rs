//! Any bytes as an ONNX file: read or refused, never a panic, never more memory than the bounds allow.
#![no_main]

use std::path::Path;
use zoo_runtime::OnnxFile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = OnnxFile::parse(Path::new("fuzzed.onnx"), bytes) {
        let _ = (file.size(), file.channels(), file.operators().len());
    }
});
