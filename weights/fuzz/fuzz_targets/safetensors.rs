//! Any bytes as a safetensors file. The length field is put right, so that the header is reached.
#![no_main]

#[path = "read.rs"]
mod read;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read::read(bytes.to_vec());
    let Some((prefix, rest)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let length = u64::from_le_bytes(*prefix) % (rest.len() as u64 + 1);
    read::read([&length.to_le_bytes(), rest].concat());
});
