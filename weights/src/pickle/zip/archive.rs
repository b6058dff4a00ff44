//! The members of an archive, each checked to lie alone in the file.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Problem, within};
use crate::limits::Limits;

use super::records::{CENTRAL, Directory, Fields, LOCAL, Sizes, directory};

/// One member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its bytes in the file.
    pub(super) bytes: Range<usize>,
    pub(super) crc: u32,
    compressed: bool,
}

/// All members by name.
#[derive(Debug)]
pub(super) struct Archive {
    members: HashMap<String, Member>,
}

impl Archive {
    pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Archive, Problem> {
        let Directory {
            entries,
            size,
            offset,
        } = directory(bytes)?;
        within("members of the zip archive", entries, limits.zip_members)?;
        let listed = &bytes[..(offset + size) as usize];
        let mut fields = Fields::at(listed, offset)?;
        let mut members = HashMap::new();
        let mut taken = Vec::new();
        for _ in 0..entries {
            let (name, member, start) = member(bytes, offset, &mut fields)?;
            taken.push(start..member.bytes.end);
            if members.insert(name.to_owned(), member).is_some() {
                return Err(Problem::Duplicate {
                    what: "zip member",
                    name: name.into(),
                });
            }
        }
        check_disjoint(taken)?;
        Ok(Archive { members })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// A member that is stored as it is.
    pub(super) fn stored(&self, name: &str) -> Option<Result<&Member, Problem>> {
        let member = self.members.get(name)?;
        Some(if member.compressed {
            Err(Problem::Compressed {
                member: name.into(),
            })
        } else {
            Ok(member)
        })
    }
}

/// Reads a member's entry in the directory. Returns its name, itself, and where its local header begins.
fn member<'a>(
    bytes: &[u8],
    data_end: u64,
    fields: &mut Fields<'a>,
) -> Result<(&'a str, Member, usize), Problem> {
    const ENCRYPTED: u16 = 1;
    fields.signature(CENTRAL, "directory entry")?;
    fields.skip(4)?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.skip(4)?;
    let crc = fields.u32()?;
    let (packed, plain) = (fields.u32()?.into(), fields.u32()?.into());
    let (name, extra, comment) = (fields.u16()?, fields.u16()?, fields.u16()?);
    fields.skip(8)?;
    let mut sizes = Sizes {
        plain,
        packed,
        offset: fields.u32()?.into(),
    };
    let name = fields.take(name.into())?;
    sizes.widen(fields.take(extra.into())?)?;
    fields.skip(comment.into())?;
    let name = std::str::from_utf8(name)
        .map_err(|_| Problem::Zip("the name of a member is not UTF-8".into()))?;
    if flags & ENCRYPTED != 0 {
        return Err(Problem::Zip(format!("member {name:?} is encrypted")));
    }
    let compressed = method != 0;
    if !compressed && sizes.packed != sizes.plain {
        return Err(Problem::Zip(format!(
            "member {name:?} is stored but has two sizes"
        )));
    }
    let span = data(bytes, data_end, name, &sizes)?;
    Ok((
        name,
        Member {
            bytes: span,
            crc,
            compressed,
        },
        sizes.offset as usize,
    ))
}

/// The bytes of a member: behind its local header, before the directory.
fn data(bytes: &[u8], data_end: u64, name: &str, sizes: &Sizes) -> Result<Range<usize>, Problem> {
    let mut local = Fields::at(bytes, sizes.offset)?;
    local.signature(LOCAL, "local header")?;
    local.skip(22)?;
    let (name_length, extra) = (local.u16()?, local.u16()?);
    if local.take(name_length.into())? != name.as_bytes() {
        return Err(Problem::Zip(format!(
            "member {name:?} has another name in its local header"
        )));
    }
    local.skip(extra.into())?;
    let start = local.position();
    match (start as u64).checked_add(sizes.packed) {
        Some(end) if end <= data_end => Ok(start..end as usize),
        end => Err(Problem::truncated(
            format!("zip member {name:?}"),
            end.unwrap_or(u64::MAX),
            bytes.len(),
        )),
    }
}

fn check_disjoint(mut taken: Vec<Range<usize>>) -> Result<(), Problem> {
    taken.sort_by_key(|r| (r.start, r.end));
    match taken.windows(2).any(|pair| pair[1].start < pair[0].end) {
        true => Err(Problem::Zip("two members overlap".into())),
        false => Ok(()),
    }
}
