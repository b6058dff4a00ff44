//! A tiny zip writer whose every field can lie.

use super::pickle::{Code, program};

/// A member as it will be written; `None` and equal fields are filled in truthfully.
#[derive(Clone)]
pub struct Member {
    pub name: String,
    pub local_name: Option<String>,
    pub data: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    pub crc: Option<u32>,
    pub packed: Option<u32>,
    pub plain: Option<u32>,
}

pub struct Zip {
    pub members: Vec<Member>,
    /// Write zip64 records, with all 32-bit fields set to ones.
    pub zip64: bool,
    /// Entries that the end record claims.
    pub entries: Option<u16>,
    /// Offset of the directory that the end record claims.
    pub directory: Option<u32>,
}

impl Member {
    pub fn new(name: &str, data: &[u8]) -> Member {
        let (name, data) = (name.into(), data.into());
        Member {
            name,
            local_name: None,
            data,
            method: 0,
            flags: 0,
            crc: None,
            packed: None,
            plain: None,
        }
    }
}

impl Zip {
    pub fn new(members: Vec<Member>) -> Zip {
        Zip {
            members,
            zip64: false,
            entries: None,
            directory: None,
        }
    }

    pub fn checkpoint(root: &Code, storages: &[(&str, Vec<u8>)]) -> Zip {
        let mut members = vec![
            Member::new("archive/data.pkl", &program(root)),
            Member::new("archive/byteorder", b"little"),
        ];
        members.extend(
            storages
                .iter()
                .map(|(key, bytes)| Member::new(&format!("archive/data/{key}"), bytes)),
        );
        members.push(Member::new("archive/version", b"3\n"));
        Zip::new(members)
    }

    /// Changes the member called `name`.
    pub fn with(mut self, name: &str, change: impl FnOnce(&mut Member)) -> Zip {
        change(
            self.members
                .iter_mut()
                .find(|m| m.name == name)
                .expect("a member of that name"),
        );
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut directory = Vec::new();
        for member in &self.members {
            let offset = file.len();
            self.local(&mut file, member);
            self.central(&mut directory, member, offset);
        }
        let at = file.len();
        file.extend(&directory);
        self.end(&mut file, at, directory.len());
        file
    }

    fn local(&self, file: &mut Vec<u8>, member: &Member) {
        let name = member.local_name.as_ref().unwrap_or(&member.name);
        file.extend(b"PK\x03\x04\x14\0");
        put16(file, &[member.flags, member.method, 0, 0]);
        let sizes = [
            crc(member),
            member.packed.unwrap_or(member.data.len() as u32),
            member.plain.unwrap_or(member.data.len() as u32),
        ];
        put32(file, &sizes);
        put16(file, &[name.len() as u16, 0]);
        file.extend(name.as_bytes());
        file.extend(&member.data);
    }

    fn central(&self, directory: &mut Vec<u8>, member: &Member, offset: usize) {
        let packed = member.packed.unwrap_or(member.data.len() as u32);
        let plain = member.plain.unwrap_or(member.data.len() as u32);
        let extra = if self.zip64 {
            zip64_extra(plain, packed, offset)
        } else {
            Vec::new()
        };
        let narrow = |n: u32| if self.zip64 { u32::MAX } else { n };
        directory.extend(b"PK\x01\x02\x14\0\x14\0");
        put16(directory, &[member.flags, member.method, 0, 0]);
        put32(directory, &[crc(member), narrow(packed), narrow(plain)]);
        put16(
            directory,
            &[member.name.len() as u16, extra.len() as u16, 0, 0, 0],
        );
        put32(directory, &[0, narrow(offset as u32)]);
        directory.extend(member.name.as_bytes());
        directory.extend(extra);
    }

    fn end(&self, file: &mut Vec<u8>, at: usize, size: usize) {
        let entries = self.entries.unwrap_or(self.members.len() as u16);
        let offset = self.directory.unwrap_or(at as u32);
        if self.zip64 {
            let record = file.len() as u64;
            file.extend(b"PK\x06\x06");
            put64(file, &[44]);
            put16(file, &[45, 45]);
            put32(file, &[0, 0]);
            put64(
                file,
                &[entries.into(), entries.into(), size as u64, offset.into()],
            );
            file.extend(b"PK\x06\x07\0\0\0\0");
            put64(file, &[record]);
            put32(file, &[1]);
        }
        file.extend(b"PK\x05\x06");
        let (entries, size, offset) = if self.zip64 {
            (u16::MAX, u32::MAX, u32::MAX)
        } else {
            (entries, size as u32, offset)
        };
        put16(file, &[0, 0, entries, entries]);
        put32(file, &[size, offset]);
        put16(file, &[0]);
    }
}

fn zip64_extra(plain: u32, packed: u32, offset: usize) -> Vec<u8> {
    let mut extra = Vec::new();
    put16(&mut extra, &[1, 24]);
    put64(&mut extra, &[plain.into(), packed.into(), offset as u64]);
    extra
}

fn crc(member: &Member) -> u32 {
    member.crc.unwrap_or_else(|| crc32fast::hash(&member.data))
}

fn put16(to: &mut Vec<u8>, values: &[u16]) {
    to.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn put32(to: &mut Vec<u8>, values: &[u32]) {
    to.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn put64(to: &mut Vec<u8>, values: &[u64]) {
    to.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}
