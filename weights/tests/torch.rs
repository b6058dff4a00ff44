//! Every tensor of every checkpoint that `torch_files.py` wrote has the bytes that PyTorch gives it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use zoo_weights::{Checkpoint, Options, bytes_sha256};

#[derive(Deserialize)]
struct Case {
    file: String,
    container: Option<String>,
    tensors: BTreeMap<String, (String, Vec<usize>, String)>,
}

fn digest(
    path: &Path,
    container: Option<String>,
) -> BTreeMap<String, (String, Vec<usize>, String)> {
    let options = Options {
        container,
        ..Options::default()
    };
    let checkpoint = Checkpoint::open_with(path, &options).unwrap_or_else(|e| panic!("{e}"));
    let one = |t: &zoo_weights::TensorInfo| {
        let bytes = checkpoint.bytes(&t.name).unwrap_or_else(|e| panic!("{e}"));
        (
            t.name.clone(),
            (t.dtype.to_string(), t.shape.clone(), bytes_sha256(&bytes)),
        )
    };
    checkpoint.tensors().iter().map(one).collect()
}

#[test]
fn files_written_by_torch_read_as_torch_reads_them() {
    let Some(folder) = std::env::var_os("ZOO_TORCH_FILES") else {
        eprintln!("SKIPPED: ZOO_TORCH_FILES not set (see tests/torch_files.py)");
        return;
    };
    let folder = Path::new(&folder);
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&manifest).unwrap();
    assert!(cases.len() >= 36);
    for case in cases {
        let found = digest(&folder.join(&case.file), case.container);
        assert_eq!(found, case.tensors, "{}", case.file);
    }
}

#[test]
fn trained_checkpoints_read_as_torch_reads_them() {
    let Some(folder) = std::env::var_os("ZOO_TEST_DATA") else {
        eprintln!("SKIPPED: ZOO_TEST_DATA not set");
        return;
    };
    let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/osnet_pth.json");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(goldens).unwrap()).unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let path = Path::new(&folder).join("data/weights").join(&case.file);
        let path = if path.exists() {
            path
        } else {
            Path::new(&folder).join("weights").join(&case.file)
        };
        assert_eq!(digest(&path, case.container), case.tensors, "{}", case.file);
    }
}
