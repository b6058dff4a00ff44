//! Recordings from disk, and from bytes that are none.

use npyz::WriterBuilder;
use proptest::prelude::*;
use std::io::Write;
use zoo_events::{Event, EventsError, Format, Limits, frames, open, read};

fn npz(arrays: &[(&str, &[i64])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, values) in arrays {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(format!("{name}.npy"), options).unwrap();
        let shape = [values.len() as u64];
        let builder = npyz::WriteOptions::new().default_dtype().shape(&shape);
        let mut writer = builder.writer(&mut archive).begin_nd().unwrap();
        writer.extend(values.iter()).unwrap();
        writer.finish().unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn spikingjellys_arrays_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("airplane_0.npz");
    let bytes = npz(&[
        ("t", &[5, 9]),
        ("x", &[127, 0]),
        ("y", &[3, 4]),
        ("p", &[1, 0]),
    ]);
    std::fs::File::create(&path)
        .unwrap()
        .write_all(&bytes)
        .unwrap();
    let recording = open(&path, &Limits::default()).unwrap();
    let first = Event {
        t: 5,
        x: 127,
        y: 3,
        on: true,
    };
    let second = Event {
        t: 9,
        x: 0,
        y: 4,
        on: false,
    };
    assert_eq!(recording.events, [first, second]);
    assert_eq!(recording.size(), [128, 5]);
}

/// The file was written by NumPy: `savez_compressed` of int64, uint8, int16 and bool.
#[test]
fn numpys_own_archives_are_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/numpy.npz");
    let recording = open(path.as_ref(), &Limits::default()).unwrap();
    let seen: Vec<_> = recording
        .events
        .iter()
        .map(|e| (e.t, e.x, e.y, e.on))
        .collect();
    let written = [
        (3, 0, 1, true),
        (10, 127, 2, false),
        (10, 5, 127, true),
        (250, 9, 0, true),
    ];
    assert_eq!(seen, written);
}

#[test]
fn an_archive_that_is_no_recording_says_why() {
    let refused = |arrays: &[(&str, &[i64])]| {
        read(Format::Npz, &npz(arrays), &Limits::default())
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&[("t", &[1])]).contains("`x`"));
    let short = refused(&[("t", &[1, 2]), ("x", &[1]), ("y", &[1]), ("p", &[1])]);
    assert!(short.contains("different lengths"), "{short}");
    let outside = refused(&[("t", &[1]), ("x", &[-1]), ("y", &[1]), ("p", &[1])]);
    assert!(outside.contains("x = -1"), "{outside}");
    let few = Limits {
        events: 1,
        ..Limits::default()
    };
    let many = npz(&[
        ("t", &[1, 2]),
        ("x", &[1, 2]),
        ("y", &[1, 2]),
        ("p", &[1, 0]),
    ]);
    assert!(matches!(
        read(Format::Npz, &many, &few),
        Err(EventsError::TooLarge { .. })
    ));
}

#[test]
fn files_are_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "no events").unwrap();
    let error = open(&path, &Limits::default()).unwrap_err().to_string();
    assert!(
        error.contains("notes.txt") && error.contains(".npz"),
        "{error}"
    );
    let small = Limits {
        bytes: 4,
        ..Limits::default()
    };
    assert!(
        open(&path, &small)
            .unwrap_err()
            .to_string()
            .contains("size in bytes")
    );
    assert!(open(&folder.path().join("none.bin"), &small).is_err());
}

proptest! {
    /// Any bytes, also behind a plausible beginning: an answer or an error, never a panic, and no more events than allowed.
    #[test]
    fn strange_bytes_are_survived(
        format in prop::sample::select(vec![Format::Aedat, Format::Bin, Format::Npz]),
        start in prop::sample::select(vec![
            &b""[..], b"#!AER-DAT3.1\n#End Of ASCII Header\n", b"#!AER-DAT2.0\n", b"PK\x03\x04",
            b"#!AER-DAT3.1\n#End Of ASCII Header\n\x01\0\0\0\x08\0\0\0",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let limits = Limits { events: 10, ..Limits::default() };
        if let Ok(recording) = read(format, &[start, &rest].concat(), &limits) {
            prop_assert!(recording.events.len() <= 10);
            prop_assert!(recording.events.is_sorted_by_key(|e| e.t));
            let _ = frames(&recording, 3);
        }
    }
}
