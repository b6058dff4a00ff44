//! Tars that users have, and tars that lie.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use zoo_eval::data::{DataError, DataSet, Labels, Layout, OpenOptions, SkipReason};

use crate::{labelled, open};

fn tar_bytes(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// The message for a lone tar of these bytes.
fn refused(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "x.tar", bytes);
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("x.tar"), "{error}");
    error
}

const LONG: &str = "n02119022/a_name_that_is_much_longer_than_the_hundred_bytes_which_the_old_header_of_a_tar_has_for_it_so_that_an_extension_is_used.JPEG";

#[test]
fn class_folders_in_a_tar_with_long_and_hidden_names() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("val/{LONG}");
    let bytes = tar_bytes(&[
        ("val/n15075141/b.JPEG", b"bb"),
        (&long, b"long"),
        ("val/n15075141/._b.JPEG", b"mac"),
        ("val/readme.txt", b"hello"),
    ]);
    let set = open(&write(&folder, "mine.tar", &bytes)).unwrap();
    assert_eq!(set.layout, Layout::ClassTar);
    assert_eq!(labelled(&set), [(LONG, 277), ("n15075141/b.JPEG", 999)]);
    assert_eq!(&*set.samples[0].source.read().unwrap(), b"long");
    assert_eq!(&*set.samples[1].source.read().unwrap(), b"bb");
    let reasons: Vec<_> = set.skipped.iter().map(|s| s.reason).collect();
    assert_eq!(reasons, [SkipReason::Hidden, SkipReason::NotAnImage]);
}

#[test]
fn pax_headers_name_members_too() {
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([("path", LONG.as_bytes())])
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_path("short").unwrap();
    header.set_cksum();
    builder.append(&header, &b"pax"[..]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let set = open(&write(&folder, "pax.tar", &builder.into_inner().unwrap())).unwrap();
    assert_eq!(labelled(&set), [(LONG, 277)]);
    assert_eq!(&*set.samples[0].source.read().unwrap(), b"pax");
}

#[test]
fn links_and_folders_in_a_tar_are_no_images() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    builder
        .append_link(&mut header, "n02119022/l.JPEG", "/etc/passwd")
        .unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    builder
        .append_data(&mut header, "n02119022/a.JPEG", &b"a"[..])
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let set = open(&write(&folder, "x.tar", &builder.into_inner().unwrap())).unwrap();
    assert_eq!(labelled(&set), [("n02119022/a.JPEG", 277)]);
    assert_eq!(set.skipped[0].reason, SkipReason::NotAFile);
}

#[test]
fn damaged_tars_name_the_member() {
    let image = [7; 2000];
    let good = tar_bytes(&[("n02119022/a.JPEG", &image), ("n02119022/b.JPEG", &image)]);
    let second = 512 + 2048;
    for cut in [second + 512 + 1000, second + 512 + 1999] {
        let error = refused(&good[..cut]);
        assert!(
            error.contains("n02119022/b.JPEG: its header says 2000 bytes"),
            "{error}"
        );
    }
    for cut in [second, second + 512 + 2000, second + 512 + 2048] {
        let error = refused(&good[..cut]);
        assert!(error.contains("without its end mark"), "{error}");
    }
    let error = refused(&good[..second + 100]);
    assert!(error.contains("after n02119022/a.JPEG"), "{error}");
    let mut flipped = good.clone();
    flipped[second + 3] ^= 1;
    assert!(refused(&flipped).contains("checksum"));
    assert!(refused(b"this is no tar").contains("at its start"));
    assert!(refused(b"").contains("end mark"));
    assert!(refused(&[0; 1024]).contains("a tar without images"));
}

#[test]
fn sizes_that_lie_are_errors() {
    for size in [u64::MAX, u64::MAX - 511, i64::MAX as u64, 1 << 40] {
        let mut header = tar::Header::new_gnu();
        header.set_path("n02119022/a.JPEG").unwrap();
        header.set_size(size);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(4096, 0);
        let error = refused(&bytes);
        assert!(
            error.contains("past the archive's end") || error.contains("overflow"),
            "{error}"
        );
    }
}

#[test]
fn a_name_of_megabytes_is_not_read() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(3 << 20);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(512 + (3 << 20), b'a');
    bytes.extend(tar_bytes(&[("n02119022/a.JPEG", b"1")]));
    let error = refused(&bytes);
    assert!(
        error.contains("headers of more than 1048576 bytes"),
        "{error}"
    );
}

#[test]
fn many_empty_members_are_no_long_header() {
    let names: Vec<String> = (0..5000).map(|i| format!("n02119022/{i}.JPEG")).collect();
    let members: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b""[..])).collect();
    let folder = tempfile::tempdir().unwrap();
    let set = open(&write(&folder, "x.tar", &tar_bytes(&members))).unwrap();
    assert_eq!(set.samples.len(), 5000);
}

#[test]
fn one_name_twice_is_refused() {
    let error = refused(&tar_bytes(&[
        ("n02119022/a.JPEG", b"1"),
        ("n02119022/a.JPEG", b"2"),
    ]));
    assert!(
        error.contains("two images are called n02119022/a.JPEG"),
        "{error}"
    );
}

#[test]
fn inner_tars_are_held_to_their_own_bounds() {
    let inner = tar_bytes(&[("n02119022_1.JPEG", &[1; 600])]);
    let folder = tempfile::tempdir().unwrap();
    let good = tar_bytes(&[("n02119022.tar", &inner), ("n15075141.tar", &inner)]);
    let set = open(&write(&folder, "good.tar", &good)).unwrap();
    assert_eq!(set.layout, Layout::TarOfTars);
    assert_eq!(
        labelled(&set),
        [
            ("n02119022/n02119022_1.JPEG", 277),
            ("n15075141/n02119022_1.JPEG", 999)
        ]
    );
    assert!(
        set.samples
            .iter()
            .all(|s| *s.source.read().unwrap() == [1; 600])
    );
    let error = refused(&tar_bytes(&[
        ("n02119022.tar", &inner[..1000]),
        ("n15075141.tar", &inner),
    ]));
    assert!(
        error.contains("n02119022.tar: n02119022_1.JPEG: its header says 600"),
        "{error}"
    );
}

#[test]
fn webdataset_shards_are_checked() {
    let error = refused(&tar_bytes(&[("1.jpg", b"x"), ("1.cls", b"1000")]));
    assert!(error.contains("class 1000 is outside 0..1000"), "{error}");
    for text in [&b"cat"[..], b"", b"-1", b"1 2", b"\xff"] {
        let error = refused(&tar_bytes(&[("1.jpg", b"x"), ("1.cls", text)]));
        assert!(error.contains("1.cls"), "{error}");
    }
    let error = refused(&tar_bytes(&[("1.jpg", b"x"), ("1.cls", &[b'1'; 33])]));
    assert!(error.contains("33 bytes are no class index"), "{error}");
    let error = refused(&tar_bytes(&[
        ("1.jpg", b"x"),
        ("1.cls", b"1"),
        ("2.jpg", b"x"),
    ]));
    assert!(error.contains("2.jpg: no .cls with this key"), "{error}");
    let error = refused(&tar_bytes(&[
        ("1.jpg", b"x"),
        ("2.jpg", b"x"),
        ("1.cls", b"1"),
        ("2.cls", b"1"),
    ]));
    assert!(error.contains("no .cls with this key"), "{error}");
    let twice = [
        ("1.jpg", &b"x"[..]),
        ("1.cls", b"1"),
        ("2.jpg", b"x"),
        ("2.cls", b"1"),
        ("1.jpg", b"x"),
        ("1.cls", b"1"),
    ];
    assert!(refused(&tar_bytes(&twice)).contains("the key is there twice"));
    let error = refused(&tar_bytes(&[
        ("1.jpg", b"x"),
        ("1.png", b"x"),
        ("1.cls", b"1"),
    ]));
    assert!(error.contains("two images with one key"), "{error}");
}

#[test]
fn webdataset_keys_end_at_the_first_dot_of_the_file_name() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = tar_bytes(&[
        ("a.b/1.cls", b" 65\n"),
        ("a.b/1.seg.png", b"mask"),
        ("a.b/1.JPG", b"image"),
        ("a.b/1.json", b"{}"),
        ("lonely.json", b"{}"),
    ]);
    let set = open(&write(&folder, "s.tar", &bytes)).unwrap();
    assert_eq!(labelled(&set), [("s.tar/a.b/1.JPG", 65)]);
    assert_eq!(set.labels, Labels::Cls);
    assert_eq!(&*set.samples[0].source.read().unwrap(), b"image");
    assert_eq!(set.skipped.len(), 1);
    assert_eq!(set.skipped[0].path, "s.tar/lonely");
}

#[test]
fn a_shard_missing_between_others_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (number, key) in [(0, "1"), (2, "2")] {
        let bytes = tar_bytes(&[(&format!("{key}.jpg"), b"x"), (&format!("{key}.cls"), b"1")]);
        write(&folder, &format!("val-{number:04}.tar"), &bytes);
    }
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("val-1: this shard is missing"), "{error}");
    let allow = OpenOptions {
        allow_missing: true,
        ..OpenOptions::default()
    };
    assert_eq!(
        DataSet::open(folder.path(), &allow).unwrap().samples.len(),
        2
    );
}

#[test]
fn several_unrelated_tars_are_ambiguous() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = tar_bytes(&[("n02119022/a.JPEG", b"x")]);
    write(&folder, "one.tar", &bytes);
    write(&folder, "other.tar", &bytes);
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, DataError::Ambiguous { .. }), "{error}");
    assert!(error.to_string().contains("one.tar, other.tar"), "{error}");
    write(&folder, "x1.tar", &bytes);
    write(&folder, "ILSVRC2012_img_val.tar", &bytes);
    assert_eq!(open(folder.path()).unwrap().samples.len(), 1);
}

#[test]
fn a_tar_that_shrank_after_it_was_opened_is_a_read_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        &folder,
        "x.tar",
        &tar_bytes(&[("n02119022/a.JPEG", &[1; 600])]),
    );
    let set = open(&path).unwrap();
    fs::write(&path, vec![0; 700]).unwrap();
    let error = set.samples[0].source.read().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn damaged_bytes_are_an_error_or_a_set_that_can_be_read() {
    let inner = tar_bytes(&[("n02119022_1.JPEG", &[1; 600])]);
    let long = LONG.replace("JPEG", "jpg");
    let seeds = [
        tar_bytes(&[("n02119022.tar", &inner), ("n15075141.tar", &inner)]),
        tar_bytes(&[
            ("1.jpg", b"x"),
            ("1.cls", b"7"),
            ("2.jpg", b"y"),
            ("2.cls", b"8"),
        ]),
        tar_bytes(&[(&long, b"x"), ("n15075141/b.JPEG", b"y")]),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut state = 1_u64;
    let mut lot = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    let (mut opened, mut refused) = (0, 0);
    for round in 0..900 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=lot(3) {
            let at = lot(bytes.len());
            bytes[at] = lot(256) as u8;
            let header = at / 512 * 512;
            mend_checksum(&mut bytes[header..header + 512]);
        }
        let place = tempfile::tempdir_in(folder.path()).unwrap();
        match open(&write(&place, "x.tar", &bytes)) {
            Ok(set) => {
                opened += 1;
                assert!(set.samples.iter().all(|s| s.source.read().is_ok()));
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("x.tar"), "{error}");
            }
        }
    }
    assert!(
        opened > 100 && refused > 100,
        "{opened} opened, {refused} refused"
    );
}

/// Makes the checksum right again, so that damage gets past it, wherever this is a header.
fn mend_checksum(block: &mut [u8]) {
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    if block[257..262] == *b"ustar" {
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
}
