//! The evil corpus: files that must be refused, each with words that the refusal must contain.

use super::pickle::*;
use super::zip::{Member, Zip};
use super::{floats, safetensors, small_dict, small_tensor, torch_legacy, torch_zip};

/// A file that must be refused.
pub struct Evil {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// Must occur in the error.
    pub says: &'static str,
}

fn evil(name: &'static str, says: &'static str, bytes: Vec<u8>) -> Evil {
    Evil { name, bytes, says }
}

pub fn all() -> Vec<Evil> {
    [
        safetensors_files(),
        zip_files(),
        pickles(),
        geometries(),
        legacy_files(),
        foreign_files(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub fn safetensors_files() -> Vec<Evil> {
    let of = |header: &str| safetensors(header, &floats(6));
    let w = |fields: &str| of(&format!(r#"{{"w":{{{fields}}}}}"#));
    let two = |a: &str, b: &str| {
        let one = |name: &str, offsets: &str| {
            format!(r#""{name}":{{"dtype":"U8","shape":[12],"data_offsets":[{offsets}]}}"#)
        };
        of(&format!("{{{},{}}}", one("a", a), one("b", b)))
    };
    let huge = [&(u64::MAX >> 8).to_le_bytes(), b"{\"w\"".as_slice()].concat();
    let cut = safetensors(
        r#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#,
        &floats(5),
    );
    let deep = format!(r#"{{"w":{}"#, "[".repeat(100_000));
    let dims = "1,".repeat(100_000) + "6";
    vec![
        evil("header length beyond all limits", "limit", huge),
        evil(
            "header longer than the file",
            "cut short",
            [&9999u64.to_le_bytes(), b"{}".as_slice()].concat(),
        ),
        evil("header that is no JSON", "header", of("{oh")),
        evil("text behind the header", "header", of("{} {}")),
        evil("deeply nested header", "header", of(&deep)),
        evil("overlapping tensors", "overlap", two("0,12", "8,20")),
        evil("the same bytes twice", "overlap", two("0,12", "0,12")),
        evil("a hole", "belong to no tensor", two("0,12", "16,28")),
        evil(
            "bytes behind the last tensor",
            "belong to no tensor",
            w(r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#),
        ),
        evil("data cut short", "cut short", cut),
        evil(
            "offsets beyond the file",
            "cut short",
            w(r#""dtype":"F32","shape":[9],"data_offsets":[0,36]"#),
        ),
        evil(
            "offsets at the end of the world",
            "cut short",
            w(r#""dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]"#),
        ),
        evil(
            "offsets backwards",
            "ends before it begins",
            of(
                r#"{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,24]},"v":{"dtype":"U8","shape":[0],"data_offsets":[24,3]}}"#,
            ),
        ),
        evil(
            "negative offset",
            "header",
            w(r#""dtype":"U8","shape":[1],"data_offsets":[-1,24]"#),
        ),
        evil(
            "one name twice",
            "occurs twice",
            of(
                r#"{"w":{"dtype":"U8","shape":[24],"data_offsets":[0,24]},"w":{"dtype":"U8","shape":[24],"data_offsets":[0,24]}}"#,
            ),
        ),
        evil(
            "metadata twice",
            "occurs twice",
            of(
                r#"{"__metadata__":{"a":"1","a":"2"},"w":{"dtype":"U8","shape":[24],"data_offsets":[0,24]}}"#,
            ),
        ),
        evil(
            "metadata of numbers",
            "header",
            of(r#"{"__metadata__":{"a":1}}"#),
        ),
        evil(
            "a field twice",
            "duplicate",
            w(r#""dtype":"F32","dtype":"F32","shape":[6],"data_offsets":[0,24]"#),
        ),
        evil(
            "an unknown field",
            "unknown field",
            w(r#""dtype":"F32","shape":[6],"data_offsets":[0,24],"exec":"x""#),
        ),
        evil(
            "shape and size disagree",
            "needs 20 bytes",
            w(r#""dtype":"F32","shape":[5],"data_offsets":[0,24]"#),
        ),
        evil(
            "a shape that overflows",
            "impossible shape",
            w(r#""dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,24]"#),
        ),
        evil(
            "a dtype that is not read",
            "F8_E4M3",
            w(r#""dtype":"F8_E4M3","shape":[24],"data_offsets":[0,24]"#),
        ),
        evil(
            "a hundred thousand dimensions",
            "dimensions",
            w(&format!(
                r#""dtype":"F32","shape":[{dims}],"data_offsets":[0,24]"#
            )),
        ),
        evil(
            "40 dimensions",
            "dimensions",
            w(&format!(
                r#""dtype":"F32","shape":[{}6],"data_offsets":[0,24]"#,
                "1,".repeat(39)
            )),
        ),
        evil(
            "a long name",
            "name",
            of(&format!(
                r#"{{"{}":{{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}}}"#,
                "w".repeat(5000)
            )),
        ),
    ]
}

pub fn zip_files() -> Vec<Evil> {
    let whole = torch_zip(&small_dict(), &[("0", floats(6))]);
    let zip = || Zip::checkpoint(&small_dict(), &[("0", floats(6))]);
    let (pkl, data) = ("archive/data.pkl", "archive/data/0");
    let with = |change: fn(&mut Zip)| {
        let mut zip = zip();
        change(&mut zip);
        zip.build()
    };
    let zip64 = |patch: fn(&mut Vec<u8>, usize)| {
        let mut zip = zip();
        zip.zip64 = true;
        let mut bytes = zip.build();
        let end = bytes.len() - 22 - 20 - 56;
        patch(&mut bytes, end);
        bytes
    };
    vec![
        evil(
            "zip cut in the end record",
            "cut short",
            whole[..whole.len() - 3].into(),
        ),
        evil(
            "zip cut in the directory",
            "cut short",
            whole[..whole.len() - 60].into(),
        ),
        evil("zip cut in the data", "cut short", whole[..200].into()),
        evil(
            "only the end of a zip",
            "cut short",
            whole[whole.len() - 22..].into(),
        ),
        evil(
            "directory beyond the file",
            "cut short",
            with(|z| z.directory = Some(u32::MAX - 1)),
        ),
        evil(
            "directory at the wrong place",
            "directory entry",
            with(|z| z.directory = Some(3)),
        ),
        evil(
            "more entries than the directory has",
            "zip archive",
            with(|z| z.entries = Some(9)),
        ),
        evil(
            "the same member twice",
            "occurs twice",
            with(|z| z.members.push(Member::new("archive/data/0", b"x"))),
        ),
        evil(
            "two pickles",
            "several pickles",
            with(|z| z.members.push(Member::new("other/data.pkl", b"."))),
        ),
        evil(
            "another name in the local header",
            "another name",
            zip()
                .with(data, |m| m.local_name = Some("archive/data/1".into()))
                .build(),
        ),
        evil(
            "encrypted",
            "encrypted",
            zip().with(data, |m| m.flags = 1).build(),
        ),
        evil(
            "compressed pickle",
            "compressed",
            zip().with(pkl, |m| m.method = 8).build(),
        ),
        evil(
            "zip bomb",
            "compressed",
            zip()
                .with(data, |m| (m.method, m.plain) = (8, Some(4_000_000_000)))
                .build(),
        ),
        evil(
            "stored with two sizes",
            "two sizes",
            zip().with(data, |m| m.plain = Some(4_000_000_000)).build(),
        ),
        evil(
            "member that reaches into the next",
            "overlap",
            zip()
                .with(data, |m| (m.packed, m.plain) = (Some(40), Some(40)))
                .build(),
        ),
        evil(
            "member beyond the file",
            "cut short",
            zip()
                .with(data, |m| {
                    (m.packed, m.plain) = (Some(1 << 31), Some(1 << 31))
                })
                .build(),
        ),
        evil(
            "pickle with a wrong checksum",
            "CRC-32",
            zip().with(pkl, |m| m.crc = Some(7)).build(),
        ),
        evil(
            "big-endian",
            "big-endian",
            zip()
                .with("archive/byteorder", |m| m.data = b"big".into())
                .build(),
        ),
        evil(
            "a storage missing",
            "missing",
            with(|z| z.members.retain(|m| !m.name.ends_with("/0"))),
        ),
        evil(
            "a storage too short",
            "not the 6 elements",
            zip().with(data, |m| m.data.truncate(20)).build(),
        ),
        evil(
            "zip64 record elsewhere",
            "zip",
            zip64(|b, end| b[end + 56 + 8] ^= 1),
        ),
        evil(
            "zip64 record beyond the file",
            "cut short",
            zip64(|b, end| b[end + 56 + 14] = 1),
        ),
        evil(
            "zip64 directory of 2^60 bytes",
            "cut short",
            zip64(|b, end| b[end + 40 + 7] = 0x10),
        ),
        evil(
            "zip64 with 2^40 entries",
            "limit",
            zip64(|b, end| b[end + 32 + 5] = 1),
        ),
        evil("the two end records disagree", "disagree", {
            let mut zip = zip();
            zip.zip64 = true;
            let mut bytes = zip.build();
            let end = bytes.len() - 22;
            bytes[end + 10] = 1;
            bytes[end + 11] = 0;
            bytes
        }),
    ]
}

fn in_zip(root: &Code) -> Vec<u8> {
    torch_zip(root, &[("0", floats(6))])
}

pub fn pickles() -> Vec<Evil> {
    let raw = |program: &[u8]| {
        Zip::checkpoint(&none(), &[])
            .with("archive/data.pkl", |m| m.data = program.into())
            .build()
    };
    let w = |value: &Code| in_zip(&dict(&[(text("w"), value.clone())]));
    let call = |module: &str, name: &str, args: &[Code]| reduce(&global(module, name), args);
    let system = call("os", "system", &[text("touch /tmp/owned")]);
    let laughs = {
        // Each list holds the one before ten times: 10^30 paths in 300 bytes.
        let mut code = list(&[small_dict()]);
        for i in 0..30u8 {
            code.extend([b'q', i, b'0', b']', b'(']);
            code.extend([b'h', i].repeat(10));
            code.push(b'e');
        }
        code
    };
    let twice = [
        storage("FloatStorage", "0", 6),
        storage("FloatStorage", "0", 7),
    ];
    vec![
        evil("empty pickle", "cut short", raw(b"")),
        evil("pickle without an end", "cut short", raw(b"\x80\x02}")),
        evil("unknown opcode", "not supported", raw(b"\x80\x02\xff.")),
        evil("stack underflow", "stack is empty", raw(b"\x80\x02R.")),
        evil(
            "value from below a mark",
            "stack is empty",
            raw(b"\x80\x02N(\x85."),
        ),
        evil("no mark", "no mark", raw(b"\x80\x02t.")),
        evil("memo of nothing", "memoized", raw(b"\x80\x02h\x05.")),
        evil(
            "text of 2^64 bytes",
            "cut short",
            raw(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffx."),
        ),
        evil(
            "integer of 2^31 bytes",
            "cut short",
            raw(b"\x8b\xff\xff\xff\x7fx."),
        ),
        evil(
            "odd number of dict items",
            "key without a value",
            raw(b"}(Nu."),
        ),
        evil("global without an end", "without an end", raw(b"cos")),
        evil("global named by numbers", "global", raw(b"K\x01K\x02\x93.")),
        evil(
            "a hundred thousand nested lists",
            "depth",
            in_zip(&[b"]".repeat(100_000), b"a".repeat(99_999)].concat()),
        ),
        evil("a thousand million laughs", "limit", in_zip(&laughs)),
        evil(
            "a list in itself",
            "no named tensors",
            in_zip(&b"]q\0h\0a".to_vec()),
        ),
        evil("a program to run", "os.system", in_zip(&system)),
        evil(
            "nothing but numbers",
            "no named tensors",
            in_zip(&dict(&[(text("a"), int(1))])),
        ),
        evil(
            "one tensor without a name",
            "no named tensors",
            in_zip(&small_tensor()),
        ),
        evil(
            "one key twice",
            "occurs twice",
            in_zip(&dict(&[
                (text("w"), small_tensor()),
                (text("w"), small_tensor()),
            ])),
        ),
        evil(
            "a quantised tensor",
            "torch._utils._rebuild_qtensor",
            w(&call("torch._utils", "_rebuild_qtensor", &[none()])),
        ),
        evil(
            "a NumPy array",
            "numpy.core.multiarray._reconstruct",
            w(&call("numpy.core.multiarray", "_reconstruct", &[none()])),
        ),
        evil(
            "complex numbers",
            "complex64",
            w(&tensor(
                &storage("ComplexFloatStorage", "0", 3),
                0,
                &[3],
                &[1],
            )),
        ),
        evil(
            "an unknown storage class",
            "EvilStorage",
            w(&tensor(&storage("EvilStorage", "0", 6), 0, &[6], &[1])),
        ),
        evil(
            "a storage declared in two ways",
            "differently",
            in_zip(&list(&twice)),
        ),
        evil(
            "a persistent id that is no storage",
            "no storage",
            raw(b"\x80\x02X\x01\0\0\0aQ."),
        ),
        evil(
            "a tensor without arguments",
            "without storage",
            w(&call("torch._utils", "_rebuild_tensor_v2", &[])),
        ),
        evil(
            "a long key",
            "key",
            in_zip(&dict(&[(text(&"k".repeat(5000)), small_dict())])),
        ),
        evil(
            "a long name",
            "name",
            in_zip(&dict(&[(text(&"k".repeat(5000)), small_tensor())])),
        ),
        evil(
            "several sets of weights",
            "say which container",
            in_zip(&dict(&[
                (text("a"), small_dict()),
                (text("b"), small_dict()),
            ])),
        ),
    ]
}

pub fn geometries() -> Vec<Evil> {
    let six = || storage("FloatStorage", "0", 6);
    let w = |offset, shape: &[i64], strides: &[i64]| {
        in_zip(&dict(&[(
            text("w"),
            tensor(&six(), offset, shape, strides),
        )]))
    };
    let negated = {
        let metadata = dict(&[(text("neg"), boolean(true))]);
        let args = [
            six(),
            int(0),
            ints(&[6]),
            ints(&[1]),
            boolean(false),
            none(),
            metadata,
        ];
        in_zip(&dict(&[(
            text("w"),
            reduce(&global("torch._utils", "_rebuild_tensor_v2"), &args),
        )]))
    };
    vec![
        evil(
            "offset beyond the storage",
            "leaves its storage",
            w(1, &[2, 3], &[3, 1]),
        ),
        evil(
            "stride beyond the storage",
            "leaves its storage",
            w(0, &[2, 3], &[4, 1]),
        ),
        evil(
            "offset that overflows",
            "leaves its storage",
            w(i64::MAX, &[2, 3], &[3, 1]),
        ),
        evil(
            "stride that overflows",
            "leaves its storage",
            w(0, &[3, 3], &[i64::MAX, 1]),
        ),
        evil(
            "shape that overflows",
            "impossible shape",
            w(0, &[i64::MAX, 8], &[0, 0]),
        ),
        evil("negative shape", "no sizes", w(0, &[-1], &[1])),
        evil("negative stride", "no sizes", w(5, &[6], &[-1])),
        evil("negative offset", "no sizes", w(-1, &[6], &[1])),
        evil(
            "fewer strides than dimensions",
            "strides",
            w(0, &[2, 3], &[3]),
        ),
        evil("forty dimensions", "dimensions", w(0, &[1; 40], &[1; 40])),
        evil(
            "one float expanded to a terabyte",
            "limit",
            w(0, &[1 << 19, 1 << 19], &[0, 0]),
        ),
        evil(
            "one float expanded to a gigabyte",
            "expanded",
            w(0, &[1 << 14, 1 << 14], &[0, 0]),
        ),
        evil("storage that claims 2^40 elements", "elements", {
            in_zip(&dict(&[(
                text("w"),
                tensor(&storage("FloatStorage", "0", 1 << 40), 0, &[6], &[1]),
            )]))
        }),
        evil("lazily negated", "negated", negated),
    ]
}

pub fn legacy_files() -> Vec<Evil> {
    let whole = torch_legacy(&small_dict(), &[("0", 6, floats(6))]);
    let with = |storages: &[(&str, u64, Vec<u8>)]| torch_legacy(&small_dict(), storages);
    let mut big_endian = whole.clone();
    let key = b"little_endian";
    let at = whole
        .windows(key.len())
        .position(|w| w == key)
        .expect("the key")
        + key.len();
    big_endian[at] = 0x89;
    vec![
        evil(
            "legacy cut in the magic number",
            "torch.save did not write",
            whole[..10].into(),
        ),
        evil("legacy cut in a pickle", "cut short", whole[..60].into()),
        evil(
            "legacy cut in a count",
            "cut short",
            whole[..whole.len() - 30].into(),
        ),
        evil(
            "legacy cut in a storage",
            "cut short",
            whole[..whole.len() - 1].into(),
        ),
        evil("legacy from a big-endian machine", "big-endian", big_endian),
        evil(
            "legacy storage with another count",
            "brings 7",
            with(&[("0", 7, floats(7))]),
        ),
        evil(
            "legacy storage of 2^63 elements",
            "brings",
            with(&[("0", 1 << 63, floats(6))]),
        ),
        evil("legacy storage missing", "not in the file", with(&[])),
        evil(
            "legacy storage twice",
            "occurs twice",
            with(&[("0", 6, floats(6)), ("0", 6, floats(6))]),
        ),
        evil(
            "legacy storage of unknown type",
            "no known type",
            with(&[("0", 6, floats(6)), ("1", 6, floats(6))]),
        ),
    ]
}

pub fn foreign_files() -> Vec<Evil> {
    let zip = |names: &[&str]| {
        Zip::new(names.iter().map(|name| Member::new(name, b"x")).collect()).build()
    };
    let tar = [b"sys_info".as_slice(), &[0; 249], b"ustar\0", &[0; 249]].concat();
    vec![
        evil("empty", "empty", Vec::new()),
        evil(
            "Git LFS pointer",
            "git lfs pull",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n".into(),
        ),
        evil(
            "HTML page",
            "HTML",
            b"\n<!DOCTYPE html><html><body>Sign in</body></html>".into(),
        ),
        evil("ONNX", "ONNX", b"\x08\x08\x12\x07pytorch\x1a\x032.0".into()),
        evil(
            "TorchScript",
            "TorchScript",
            zip(&["net/data.pkl", "net/constants.pkl", "net/code/net.py"]),
        ),
        evil("NumPy archive", ".npz", zip(&["a.npy", "b.npy"])),
        evil(
            "Keras archive",
            "Keras",
            zip(&["config.json", "model.weights.h5"]),
        ),
        evil("any zip", "without data.pkl", zip(&["readme.txt"])),
        evil("HDF5", "HDF5", b"\x89HDF\r\n\x1a\n\0\0\0\0".into()),
        evil("NumPy array", "NumPy", b"\x93NUMPY\x01\0".into()),
        evil("gzip", "gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\0".into()),
        evil("tar", "tar archive", tar),
        evil("JSON index", "index.json", b"{\"metadata\": {}}".into()),
        evil(
            "other pickle",
            "torch.save did not write",
            program(&small_dict()),
        ),
        evil("noise", "begins with", vec![0xaa; 64]),
        evil("one byte", "begins with", vec![7]),
    ]
}
