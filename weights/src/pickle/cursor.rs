//! Reads the bytes of a pickle one after the other; every way to run out of them is an error with its place.

use crate::error::Problem;

/// Longest line, such as the name of a global.
pub(super) const LONGEST_LINE: usize = 4096;

/// The bytes of a pickle, and how far they have been read.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn fail<T>(&self, what: impl Into<String>) -> Result<T, Problem> {
        Err(Problem::Pickle {
            at: self.at,
            what: what.into(),
        })
    }

    pub(super) fn byte(&mut self) -> Result<u8, Problem> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn take(&mut self, n: u64) -> Result<&'a [u8], Problem> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(n).ok().and_then(|n| rest.get(..n)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => self.fail("the pickle is cut short or passes the limit on its length"),
        }
    }

    /// Little-endian, at most 8 bytes.
    pub(super) fn uint(&mut self, width: u64) -> Result<u64, Problem> {
        Ok(self
            .take(width)?
            .iter()
            .rev()
            .fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    /// Bytes behind a length of `width` bytes.
    pub(super) fn counted(&mut self, width: u64) -> Result<&'a [u8], Problem> {
        let n = self.uint(width)?;
        self.take(n)
    }

    pub(super) fn line(&mut self) -> Result<&'a str, Problem> {
        let rest = &self.bytes[self.at..];
        let Some(n) = rest
            .iter()
            .take(LONGEST_LINE)
            .position(|byte| *byte == b'\n')
        else {
            return self.fail("a line without an end");
        };
        self.at += n + 1;
        match std::str::from_utf8(&rest[..n]) {
            Ok(line) => Ok(line),
            Err(_) => self.fail("a line that is not UTF-8"),
        }
    }

    pub(super) fn parsed<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, Problem> {
        let line = self.line()?;
        match line.parse() {
            Ok(value) => Ok(value),
            Err(_) => self.fail(format!("{line:?} is not {what}")),
        }
    }
}
