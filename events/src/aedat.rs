//! AEDAT 3.1 (DVS128 Gesture) and 2.0 (CIFAR10-DVS).
//!
//! 3.1: lines of text that begin with `#`, then packets, little-endian: a header of 28 bytes and `eventNumber` events.
//! Polarity events (type 1) have a word of data (bit 0 valid, bit 1 polarity, 15 bits of y, 15 bits of x) and a signed
//! timestamp, extended by the packet's overflow counter. Packets of other types are passed over.
//! <https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html>
//!
//! 2.0: lines of text, then pairs of big-endian words: an address and microseconds. Addresses are read as those of the
//! DVS128 (bit 0 polarity, bits 1 to 7, bits 8 to 14), and turned as SpikingJelly and tonic do for CIFAR10-DVS:
//! x = 127 - (address >> 8), y = 127 - (address >> 1), p = 1 - bit 0.

use crate::error::malformed;
use crate::{Event, EventsError, Limits, Recording};

const NAME: &str = "AEDAT";
const PACKET_HEADER: usize = 28;
const POLARITY: u16 = 1;
const POLARITY_BYTES: u32 = 8;
const DVS128: [usize; 2] = [128, 128];

pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Result<Recording, EventsError> {
    let first = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let version = String::from_utf8_lossy(first).trim().to_owned();
    match version.strip_prefix("#!AER-DAT") {
        Some("3.1") => packets(after_end_of_header(bytes)?, bytes.len(), limits),
        Some("2.0") => pairs(after_comments(bytes), limits),
        Some(other) => {
            let shown: String = other.chars().take(20).collect();
            Err(malformed(
                NAME,
                format!("version {shown:?}: 3.1 and 2.0 are read"),
            ))
        }
        None => Err(malformed(NAME, "does not begin with #!AER-DAT")),
    }
}

/// What follows `#End Of ASCII Header`; all lines before begin with `#`.
fn after_end_of_header(bytes: &[u8]) -> Result<&[u8], EventsError> {
    let mut rest = bytes;
    while rest.first() == Some(&b'#') {
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            break;
        };
        let line = rest[..end].trim_ascii_end();
        rest = &rest[end + 1..];
        if line == b"#End Of ASCII Header" {
            return Ok(rest);
        }
    }
    Err(malformed(
        NAME,
        "the line `#End Of ASCII Header` is missing",
    ))
}

fn after_comments(mut rest: &[u8]) -> &[u8] {
    while rest.first() == Some(&b'#') {
        match rest.iter().position(|b| *b == b'\n') {
            Some(end) => rest = &rest[end + 1..],
            None => return &[],
        }
    }
    rest
}

fn packets(mut rest: &[u8], whole: usize, limits: &Limits) -> Result<Recording, EventsError> {
    let mut events = Vec::new();
    while !rest.is_empty() {
        let at = whole - rest.len();
        let truncated = || malformed(NAME, format!("the packet at byte {at} is cut short"));
        let (header, body) = rest.split_at_checked(PACKET_HEADER).ok_or_else(truncated)?;
        let word = |i: usize| little_endian(&header[i..i + 4]);
        let kind = u16::from_le_bytes([header[0], header[1]]);
        let [size, overflow, number] = [4, 12, 20].map(word);
        let length = u64::from(size) * u64::from(number);
        let length = usize::try_from(length).map_err(|_| truncated())?;
        let (body, following) = body.split_at_checked(length).ok_or_else(truncated)?;
        rest = following;
        if kind != POLARITY {
            continue;
        }
        if size != POLARITY_BYTES {
            let what =
                format!("polarity events of {size} bytes at byte {at}: they have {POLARITY_BYTES}");
            return Err(malformed(NAME, what));
        }
        limits.check_events(events.len() as u64 + u64::from(number))?;
        let decoded = body
            .chunks_exact(POLARITY_BYTES as usize)
            .filter_map(|event| {
                let (data, clock) = (little_endian(&event[..4]), little_endian(&event[4..]));
                let valid = data & 1 != 0;
                valid.then(|| Event {
                    // 31 bits of the clock count; the overflow goes on where they end.
                    t: i64::from(overflow) << 31 | i64::from(clock & 0x7FFF_FFFF),
                    x: (data >> 17 & 0x7FFF) as u16,
                    y: (data >> 2 & 0x7FFF) as u16,
                    on: data >> 1 & 1 != 0,
                })
            });
        events.extend(decoded);
    }
    Ok(Recording::new(events, None))
}

fn little_endian(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, b| word << 8 | u32::from(*b))
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |word, b| word << 8 | u32::from(*b))
}

fn pairs(body: &[u8], limits: &Limits) -> Result<Recording, EventsError> {
    if !body.len().is_multiple_of(8) {
        let what = format!(
            "{} bytes of events are no whole number of 8-byte events: is it cut short?",
            body.len()
        );
        return Err(malformed(NAME, what));
    }
    limits.check_events((body.len() / 8) as u64)?;
    let event = |event: &[u8]| {
        let address = big_endian(&event[..4]);
        Event {
            t: i64::from(big_endian(&event[4..])),
            x: 127 - (address >> 8 & 0x7F) as u16,
            y: 127 - (address >> 1 & 0x7F) as u16,
            on: address & 1 == 0,
        }
    };
    let events = body.chunks_exact(8).map(event).collect();
    Ok(Recording::new(events, Some(DVS128)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: u16, overflow: u32, events: &[[u32; 2]]) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(1u16.to_le_bytes());
        let number = events.len() as u32;
        for word in [8, 4, overflow, number, number, number] {
            bytes.extend(word.to_le_bytes());
        }
        for word in events.iter().flatten() {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    fn file(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#End Of ASCII Header\r\n".to_vec();
        bytes.extend(packets.concat());
        bytes
    }

    #[test]
    fn version_3_has_packets_of_valid_and_invalid_events() {
        let data = |x: u32, y: u32, on: u32, valid: u32| x << 17 | y << 2 | on << 1 | valid;
        let bytes = file(&[
            packet(1, 0, &[[data(120, 5, 1, 1), 10], [data(1, 2, 0, 0), 11]]),
            packet(0, 0, &[[u32::MAX, 12]]),
            packet(1, 1, &[[data(32767, 9, 0, 1), 3]]),
        ]);
        let recording = read(&bytes, &Limits::default()).unwrap();
        let first = Event {
            t: 10,
            x: 120,
            y: 5,
            on: true,
        };
        let second = Event {
            t: (1 << 31) + 3,
            x: 32767,
            y: 9,
            on: false,
        };
        assert_eq!(recording.events, [first, second]);
        assert_eq!(recording.size(), [32768, 10]);
        let error = read(&bytes[..bytes.len() - 1], &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("cut short"), "{error}");
    }

    #[test]
    fn version_2_is_turned_as_cifar10_dvs_is() {
        let mut bytes = b"#!AER-DAT2.0\n# a comment\n".to_vec();
        bytes.extend((100u32 << 8 | 3 << 1 | 1).to_be_bytes());
        bytes.extend(77u32.to_be_bytes());
        let recording = read(&bytes, &Limits::default()).unwrap();
        assert_eq!(
            recording.events,
            [Event {
                t: 77,
                x: 27,
                y: 124,
                on: false
            }]
        );
        assert_eq!(recording.size(), [128, 128]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |bytes: &[u8]| read(bytes, &Limits::default()).unwrap_err().to_string();
        assert!(refused(b"#!AER-DAT4.0\n").contains("4.0"));
        assert!(refused(b"#!AER-DAT3.1\n#x").contains("End Of ASCII Header"));
        let mut header = file(&[packet(1, 0, &[])]);
        let at = header.len() - 24;
        header[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let number = header.len() - 8;
        header[number..number + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(refused(&header).contains("cut short"));
    }
}
