//! Where the entropy-coded data of a JPEG begins and ends.

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;
const BASELINE: u8 = 0xc0;
const EXTENDED: u8 = 0xc1;

/// The coded data of a file that has both its ends.
pub(super) struct Scans {
    /// Offset of the end-of-image marker.
    end: usize,
    /// Whether it is one sequential scan, which every non-progressive file in practice is.
    pub single: bool,
}

impl Scans {
    /// None when no scan begins, or no end-of-image marker follows it: Pillow calls such a file truncated.
    pub(super) fn find(bytes: &[u8]) -> Option<Self> {
        let mut at = 2;
        let mut sequential = false;
        let start = loop {
            let (code, next) = marker(bytes, at)?;
            match code {
                START_OF_SCAN => break next,
                BASELINE | EXTENDED => sequential = true,
                _ => {}
            }
            at = next + segment_length(code, &bytes[next..])?;
        };
        let mut scans = 1;
        at = start;
        let end = loop {
            let (code, next) = marker(bytes, at)?;
            match code {
                START_OF_SCAN => scans += 1,
                END_OF_IMAGE => break next - 2,
                _ => {}
            }
            at = next;
        };
        Some(Self {
            end,
            single: sequential && scans == 1,
        })
    }

    /// The file with zeros for its end.
    ///
    /// The decoder takes an early end-of-image marker for endless zero bits, which gives other pixels than
    /// libjpeg-turbo; but it reports running out of bytes. The zeros are as many as it may read ahead, so data that
    /// is short by no more than them still goes unnoticed.
    pub(super) fn without_end(&self, bytes: &[u8]) -> Vec<u8> {
        const READ_AHEAD: usize = 8;
        let mut data = Vec::with_capacity(self.end + READ_AHEAD);
        data.extend_from_slice(&bytes[..self.end]);
        data.resize(self.end + READ_AHEAD, 0);
        data
    }
}

/// The next marker at or after `at` and the offset after it; stuffed and fill bytes are none.
fn marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += memchr::memchr(0xff, bytes.get(at..)?)?;
        match bytes.get(at + 1)? {
            0xff => at += 1,
            0 => at += 2,
            &code => return Some((code, at + 2)),
        }
    }
}

/// Bytes of the segment that a marker before the first scan begins, 0 for the markers without one.
fn segment_length(code: u8, rest: &[u8]) -> Option<usize> {
    match code {
        0x01 | 0xd0..=0xd8 => Some(0),
        _ => Some(usize::from(u16::from_be_bytes([
            *rest.first()?,
            *rest.get(1)?,
        ]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame header and a scan header without their contents, four bytes of data with a stuffed one.
    fn file(before: &[u8], after: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xd8];
        bytes.extend_from_slice(before);
        bytes.extend_from_slice(b"\xff\xc0\0\x02\xff\xda\0\x02\x12\xff\0\x34\xff\xd9");
        bytes.extend_from_slice(after);
        bytes
    }

    #[test]
    fn the_end_is_the_images_own() {
        let thumbnail = b"\xff\xe1\0\x0a\xff\xd8\xff\xda\xff\xd9\0\0";
        let bytes = file(thumbnail, b"\xff\xd8 another \xff\xd9");
        let scans = Scans::find(&bytes).unwrap();
        assert!(scans.single);
        let data = scans.without_end(&bytes);
        assert!(
            data.ends_with(b"\x12\xff\0\x34\0\0\0\0\0\0\0\0"),
            "{data:x?}"
        );
    }

    #[test]
    fn every_scan_is_counted() {
        let bytes = file(b"", b"");
        let second = [&bytes[..bytes.len() - 2], b"\xff\xda\0\x02\x56\xff\xd9"].concat();
        assert!(Scans::find(&bytes).unwrap().single);
        assert!(!Scans::find(&second).unwrap().single);
    }

    #[test]
    fn a_file_without_an_end_is_told() {
        let bytes = file(b"", b"");
        for length in 0..bytes.len() {
            assert!(Scans::find(&bytes[..length]).is_none(), "{length}");
        }
    }
}
