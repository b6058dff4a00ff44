//! Any bytes behind the magic number of a legacy checkpoint.
#![no_main]

#[path = "read.rs"]
mod read;

const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let rest = bytes.strip_prefix(MAGIC).unwrap_or(bytes);
    read::read([MAGIC, rest].concat());
});
