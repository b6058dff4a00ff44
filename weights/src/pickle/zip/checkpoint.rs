//! A checkpoint inside an archive: `NAME/data.pkl`, `NAME/data/KEY`, `NAME/byteorder`.

use crate::error::{Problem, within};
use crate::limits::Limits;
use crate::parts::Parts;

use super::super::machine;
use super::super::select::{self, Located};
use super::super::storage::Declared;
use super::archive::{Archive, Member};

/// Reads a checkpoint in a zip archive.
pub(crate) fn read(bytes: &[u8], wanted: Option<&str>, limits: &Limits) -> Result<Parts, Problem> {
    let archive = Archive::read(bytes, limits)?;
    let folder = folder(&archive)?;
    let order = archive.stored(&format!("{folder}byteorder")).transpose()?;
    if order.is_some_and(|member| &bytes[member.bytes.clone()] == b"big") {
        return Err(Problem::BigEndian);
    }
    let name = format!("{folder}data.pkl");
    let member = archive
        .stored(&name)
        .unwrap_or_else(|| Err(Problem::Zip(format!("{name:?} is missing"))))?;
    within(
        "bytes of the pickle",
        member.bytes.len() as u64,
        limits.pickle_bytes,
    )?;
    let text = &bytes[member.bytes.clone()];
    if recorded(member).is_some_and(|crc| crc32fast::hash(text) != crc) {
        return Err(Problem::Checksum { member: name });
    }
    let pickle = machine::run(text, limits)?;
    select::read(&pickle, wanted, limits, |declared| {
        locate(&archive, &folder, declared)
    })
}

/// The folder that holds `data.pkl`, with its slash.
fn folder(archive: &Archive) -> Result<String, Problem> {
    if archive
        .names()
        .any(|name| name.ends_with("constants.pkl") || name.contains("/code/"))
    {
        return Err(Problem::Foreign {
            what: "a TorchScript archive (a program with its weights)",
            remedy: "load it with torch.jit.load and save its state_dict() with torch.save",
        });
    }
    let mut folders: Vec<_> = archive
        .names()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|f| f.is_empty() || f.ends_with('/'))
        .collect();
    folders.sort_unstable();
    match folders[..] {
        [only] => Ok(only.into()),
        [] => Err(foreign(archive)),
        _ => Err(Problem::Zip(format!(
            "it has several pickles, in {folders:?}"
        ))),
    }
}

fn foreign(archive: &Archive) -> Problem {
    let any = |end: &str| archive.names().any(|name| name.ends_with(end));
    if any(".npy") {
        return Problem::Foreign {
            what: "a NumPy .npz archive",
            remedy: "save its arrays as safetensors",
        };
    }
    if any("model.weights.h5") {
        return Problem::Foreign {
            what: "a Keras model",
            remedy: "export PyTorch weights or safetensors from it",
        };
    }
    Problem::Foreign {
        what: "a zip archive without data.pkl",
        remedy: "if the checkpoint is packed inside, unpack it",
    }
}

fn locate(archive: &Archive, folder: &str, declared: &Declared<'_>) -> Result<Located, Problem> {
    let name = format!("{folder}data/{}", declared.key);
    let member = archive
        .stored(&name)
        .unwrap_or_else(|| Err(Problem::Zip(format!("{name:?} is missing"))))?;
    let claimed = declared.numel.checked_mul(declared.kind.width);
    if claimed != Some(member.bytes.len()) {
        return Err(Problem::Zip(format!(
            "{name:?} has {} bytes, not the {} elements of {} that the pickle says",
            member.bytes.len(),
            declared.numel,
            declared.kind.name
        )));
    }
    Ok(Located {
        bytes: member.bytes.clone(),
        crc: recorded(member),
        label: name,
    })
}

/// The CRC-32 of a member; 0 stands for "not computed" (`torch.serialization.set_crc32_options`).
fn recorded(member: &Member) -> Option<u32> {
    (member.crc != 0).then_some(member.crc)
}
