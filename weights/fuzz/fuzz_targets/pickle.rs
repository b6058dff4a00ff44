//! Any bytes as the pickle of a sound archive with storages "0" and "1" of 24 bytes.
//!
//! Members have no checksum (torch.serialization.set_crc32_options(False) writes such files).
#![no_main]

#[path = "read.rs"]
mod read;

libfuzzer_sys::fuzz_target!(|pickle: &[u8]| {
    read::read(archive(&[
        ("a/data.pkl", pickle),
        ("a/data/0", &[1; 24]),
        ("a/data/1", &[2; 24]),
    ]));
});

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in members {
        let sizes = [
            [0; 4],
            (data.len() as u32).to_le_bytes(),
            (data.len() as u32).to_le_bytes(),
        ]
        .concat();
        let offset = (file.len() as u32).to_le_bytes();
        let length = (name.len() as u16).to_le_bytes();
        let shared = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            sizes.as_slice(),
            &length,
            &[0, 0],
        ]
        .concat();
        file.extend([b"PK\x03\x04", shared.as_slice(), name.as_bytes(), data].concat());
        directory.extend(
            [
                b"PK\x01\x02\x14\0",
                shared.as_slice(),
                &[0; 10],
                &offset,
                name.as_bytes(),
            ]
            .concat(),
        );
    }
    let count = (members.len() as u16).to_le_bytes();
    let (size, at) = (
        (directory.len() as u32).to_le_bytes(),
        (file.len() as u32).to_le_bytes(),
    );
    file.extend(
        [
            directory.as_slice(),
            b"PK\x05\x06\0\0\0\0",
            &count,
            &count,
            &size,
            &at,
            &[0, 0],
        ]
        .concat(),
    );
    file
}
