//! Builds checkpoint files byte by byte, sound ones and evil ones.
#![allow(dead_code, reason = "each test uses its part")]

pub mod evil;
pub mod pickle;
pub mod zip;

use pickle::{Code, int, legacy_system, list, program, tensor, text};

/// A safetensors file from its header and data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [
        &(header.len() as u64).to_le_bytes(),
        header.as_bytes(),
        data,
    ]
    .concat()
}

/// `n` floats 0, 1, 2, ...
pub fn floats(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

/// What `torch.save` writes now: the pickle of `root`, and storages by key.
pub fn torch_zip(root: &Code, storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    zip::Zip::checkpoint(root, storages).build()
}

/// What `torch.save` wrote before: storages as (key, elements, bytes).
pub fn torch_legacy(root: &Code, storages: &[(&str, u64, Vec<u8>)]) -> Vec<u8> {
    let keys: Vec<Code> = storages.iter().map(|(key, ..)| text(key)).collect();
    let mut file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
    file.extend(program(&int(1001)));
    file.extend(program(&legacy_system(true)));
    file.extend(program(root));
    file.extend(program(&list(&keys)));
    for (_, count, bytes) in storages {
        file.extend(count.to_le_bytes());
        file.extend(bytes);
    }
    file
}

/// A dict with one tensor `w` of shape 2 x 3 over a storage of six floats.
pub fn small_dict() -> Code {
    pickle::dict(&[(text("w"), small_tensor())])
}

pub fn small_tensor() -> Code {
    tensor(
        &pickle::storage("FloatStorage", "0", 6),
        0,
        &[2, 3],
        &[3, 1],
    )
}

/// Sound files of every format, each with a tensor `w` of six floats.
pub fn sound() -> Vec<(&'static str, Vec<u8>)> {
    let header = r#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
    let mut zip64 = zip::Zip::checkpoint(&small_dict(), &[("0", floats(6))]);
    zip64.zip64 = true;
    vec![
        ("safetensors", safetensors(header, &floats(6))),
        ("zip", torch_zip(&small_dict(), &[("0", floats(6))])),
        ("zip64", zip64.build()),
        (
            "legacy",
            torch_legacy(&small_dict(), &[("0", 6, floats(6))]),
        ),
    ]
}
