//! No bytes may make reading or integrating panic, in any format; the first byte chooses it.
//!
//! From `events/`: `RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none read -- -rss_limit_mb=4096`

#![no_main]

use libfuzzer_sys::fuzz_target;
use zoo_events::{Format, Limits, frames, read};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let format = [Format::Aedat, Format::Bin, Format::Npz][usize::from(choice % 3)];
    let limits = Limits {
        bytes: 1 << 20,
        events: 1 << 16,
    };
    if let Ok(recording) = read(format, bytes, &limits) {
        assert!(recording.events.len() as u64 <= limits.events);
        assert!(recording.events.is_sorted_by_key(|e| e.t));
        let [width, height] = recording.size();
        if width * height < 1 << 16 {
            let _ = frames(&recording, 4);
        }
    }
});
