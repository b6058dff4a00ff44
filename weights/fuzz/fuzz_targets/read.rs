// Shared by the targets: opens a file and reads every tensor of it.

use zoo_weights::{Checkpoint, Limits, Options};

/// Limits that keep one execution short; they are the defaults' in kind.
fn limits() -> Limits {
    Limits {
        objects: 100_000,
        tensor_bytes: 1 << 20,
        expansion_bytes: 1 << 20,
        ..Limits::default()
    }
}

pub fn read(bytes: Vec<u8>) {
    let options = Options {
        limits: limits(),
        ..Options::default()
    };
    let Ok(checkpoint) = Checkpoint::from_bytes("fuzz", bytes, &options) else {
        return;
    };
    for tensor in checkpoint.tensors() {
        if let Ok(elements) = checkpoint.bytes(&tensor.name) {
            assert_eq!(elements.len(), tensor.numel() * tensor.dtype.size());
        }
    }
    for note in checkpoint.notes() {
        assert!(!note.to_string().is_empty());
    }
}
