//! The records of the zip format (APPNOTE.TXT sections 4.3.7 to 4.3.16), read with bounds.

use crate::error::Problem;

pub(super) const LOCAL: u32 = 0x0403_4b50;
pub(super) const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
const END_SIZE: usize = 22;
const LOCATOR_SIZE: usize = 20;

/// Reads little-endian fields one after the other.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn at(bytes: &'a [u8], at: u64) -> Result<Fields<'a>, Problem> {
        match usize::try_from(at) {
            Ok(at) if at <= bytes.len() => Ok(Fields { bytes, at }),
            _ => Err(Problem::truncated(
                "a record of the zip archive",
                at,
                bytes.len(),
            )),
        }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Problem> {
        let taken = self.bytes[self.at..].get(..n);
        let taken = taken.ok_or_else(|| {
            Problem::truncated(
                "a record of the zip archive",
                (self.at + n) as u64,
                self.bytes.len(),
            )
        })?;
        self.at += n;
        Ok(taken)
    }

    fn uint(&mut self, width: usize) -> Result<u64, Problem> {
        Ok(self
            .take(width)?
            .iter()
            .rev()
            .fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Problem> {
        Ok(self.uint(2)? as u16)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Problem> {
        Ok(self.uint(4)? as u32)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Problem> {
        self.uint(8)
    }

    pub(super) fn skip(&mut self, n: usize) -> Result<(), Problem> {
        self.take(n).map(drop)
    }

    pub(super) fn signature(&mut self, expected: u32, record: &str) -> Result<(), Problem> {
        if self.u32()? == expected {
            Ok(())
        } else {
            Err(Problem::Zip(format!("no {record} where one should be")))
        }
    }
}

/// Where the central directory lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) entries: u64,
    pub(super) size: u64,
    pub(super) offset: u64,
}

/// Finds the central directory by the record at the file's end, and by its zip64 form where there is one.
pub(super) fn directory(bytes: &[u8]) -> Result<Directory, Problem> {
    let at = find_end(bytes)?;
    let mut fields = Fields::at(bytes, at as u64 + 4)?;
    let disks = (fields.u16()?, fields.u16()?);
    let (here, entries) = (fields.u16()?, fields.u16()?);
    let short = Directory {
        entries: entries.into(),
        size: fields.u32()?.into(),
        offset: fields.u32()?.into(),
    };
    let locator = at.checked_sub(LOCATOR_SIZE);
    let locator = locator.filter(|at| bytes[*at..].starts_with(&LOCATOR64.to_le_bytes()));
    let directory = match locator {
        Some(locator) => long_directory(bytes, locator, &short)?,
        None if disks != (0, 0) || here != entries => {
            return Err(Problem::Zip("it spans several disks".into()));
        }
        None => short,
    };
    let end = directory.offset.checked_add(directory.size);
    if end.is_none_or(|end| end > at as u64) {
        return Err(Problem::truncated(
            "the zip directory",
            end.unwrap_or(u64::MAX),
            bytes.len(),
        ));
    }
    Ok(directory)
}

/// The end record stands last, with nothing behind it but its comment.
fn find_end(bytes: &[u8]) -> Result<usize, Problem> {
    let last = bytes.len().checked_sub(END_SIZE);
    let first = last.unwrap_or(0).saturating_sub(usize::from(u16::MAX));
    let is_end = |at: &usize| {
        let comment = usize::from(u16::from_le_bytes([bytes[at + 20], bytes[at + 21]]));
        bytes[*at..].starts_with(&END.to_le_bytes()) && at + END_SIZE + comment == bytes.len()
    };
    let found = last.and_then(|last| (first..=last).rev().find(is_end));
    found.ok_or_else(|| {
        Problem::Zip(
            "the record at its end is missing: the file is cut short, fetch it again".into(),
        )
    })
}

fn long_directory(bytes: &[u8], locator: usize, short: &Directory) -> Result<Directory, Problem> {
    let mut fields = Fields::at(bytes, locator as u64 + 8)?;
    let mut fields = Fields::at(bytes, fields.u64()?)?;
    fields.signature(END64, "zip64 end record")?;
    fields.skip(8 + 2 + 2 + 4 + 4 + 8)?;
    let long = Directory {
        entries: fields.u64()?,
        size: fields.u64()?,
        offset: fields.u64()?,
    };
    let agree = |long: u64, short: u64, escape: u64| short == escape || short == long;
    let same = agree(long.entries, short.entries, u64::from(u16::MAX))
        && agree(long.size, short.size, u64::from(u32::MAX))
        && agree(long.offset, short.offset, u64::from(u32::MAX));
    if same {
        Ok(long)
    } else {
        Err(Problem::Zip("its two end records disagree".into()))
    }
}

/// Sizes and offset of a member; 32-bit fields that are all ones continue in the zip64 extra field.
#[derive(Debug)]
pub(super) struct Sizes {
    pub(super) plain: u64,
    pub(super) packed: u64,
    pub(super) offset: u64,
}

impl Sizes {
    pub(super) fn widen(&mut self, extra: &[u8]) -> Result<(), Problem> {
        const ZIP64: u16 = 1;
        let escape = u64::from(u32::MAX);
        let mut fields = Fields::at(extra, 0)?;
        while extra.len() - fields.position() >= 4 {
            let (kind, length) = (fields.u16()?, fields.u16()?);
            let body = fields.take(length.into())?;
            if kind == ZIP64 {
                let mut body = Fields::at(body, 0)?;
                for field in [&mut self.plain, &mut self.packed, &mut self.offset] {
                    if *field == escape {
                        *field = body.u64()?;
                    }
                }
                return Ok(());
            }
        }
        Ok(())
    }
}
