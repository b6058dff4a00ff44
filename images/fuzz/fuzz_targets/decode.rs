//! No bytes may make `decode` panic, and what it returns has the size that it says.
//!
//! From `images/`: `RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none decode -- -rss_limit_mb=4096`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = zoo_images::decode(bytes) {
        assert_eq!(image.pixels.len(), image.width * image.height * 3);
    }
});
