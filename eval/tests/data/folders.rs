//! Folders that are not as they should be: each is an error that names the place and the remedy, or is reported.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use zoo_eval::data::OpenOptions;
use zoo_eval::data::{DataError, DataSet, FolderRule, Labels, SkipReason};

use crate::{images, labelled, open, skipped, tree, with};

#[test]
fn folders_that_are_no_wnids_count_by_sorted_position() {
    let folder = images(&["b/2.png", "a/x/deep.JPG", "a/1.jpeg", "B/1.webp", "b/1.png"]);
    fs::create_dir(folder.path().join("aa")).unwrap();
    let set = open(&folder).unwrap();
    assert_eq!(
        labelled(&set),
        [
            ("B/1.webp", 0),
            ("a/1.jpeg", 1),
            ("a/x/deep.JPG", 1),
            ("b/1.png", 3),
            ("b/2.png", 3)
        ]
    );
    assert_eq!(set.labels, Labels::FolderOrder);
    assert_eq!(skipped(&set), [("aa", SkipReason::EmptyClass)]);
    let names: Vec<_> = set.classes.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["B", "a", "aa", "b"]);
}

#[test]
fn a_subset_of_wnids_keeps_the_standard_indices() {
    let folder = images(&["n15075141/a.JPEG", "n02119022/b.JPEG"]);
    let set = open(&folder).unwrap();
    assert_eq!(
        labelled(&set),
        [("n02119022/b.JPEG", 277), ("n15075141/a.JPEG", 999)]
    );
    let lone = images(&["n15075141/a.JPEG"]);
    assert_eq!(labelled(&open(&lone).unwrap()), [("n15075141/a.JPEG", 999)]);
    let by_position = with(|o| o.folders = FolderRule::Position);
    let set = DataSet::open(folder.path(), &by_position).unwrap();
    assert_eq!(
        labelled(&set),
        [("n02119022/b.JPEG", 0), ("n15075141/a.JPEG", 1)]
    );
}

#[test]
fn wnids_and_other_folders_together_need_a_rule() {
    let folder = images(&["n15075141/a.JPEG", "n02119022/b.JPEG", "n99999999/c.JPEG"]);
    let error = open(&folder).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::MixedFolders {
                standard: 2,
                other: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("n99999999"), "{error}");
    let by_wnid = with(|o| o.folders = FolderRule::Wnid);
    let set = DataSet::open(folder.path(), &by_wnid).unwrap();
    assert_eq!(
        labelled(&set),
        [("n02119022/b.JPEG", 277), ("n15075141/a.JPEG", 999)]
    );
    assert_eq!(
        skipped(&set),
        [("n99999999/c.JPEG", SkipReason::OtherFolder)]
    );
}

#[test]
fn a_rule_that_leaves_no_image_is_an_error() {
    let folder = images(&["a/1.png", "b/2.png"]);
    let by_wnid = with(|o| o.folders = FolderRule::Wnid);
    let error = DataSet::open(folder.path(), &by_wnid).unwrap_err();
    assert!(matches!(error, DataError::NothingFound { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("2 image in a folder that is no wnid"),
        "{error}"
    );
}

#[test]
fn what_is_no_image_is_counted_and_named() {
    let folder = images(&[
        "a/1.png",
        "b/1.png",
        "b/2.png",
        ".DS_Store",
        "a/._1.png",
        ".git/x.png",
        "a/notes.txt",
        "loose.png",
        "a/noext",
    ]);
    let set = open(&folder).unwrap();
    assert_eq!(set.samples.len(), 3);
    assert_eq!(
        skipped(&set),
        [
            (".DS_Store", SkipReason::Hidden),
            (".git", SkipReason::Hidden),
            ("a/._1.png", SkipReason::Hidden),
            ("a/noext", SkipReason::NotAnImage),
            ("a/notes.txt", SkipReason::NotAnImage),
            ("loose.png", SkipReason::BesideClasses),
        ]
    );
    let text = set.describe_skipped().unwrap();
    assert!(
        text.starts_with("3 hidden (.DS_Store, .git, a/._1.png); 2 not an image"),
        "{text}"
    );
}

#[test]
fn splits_are_gone_into_and_a_class_called_train_is_not() {
    let folder = images(&["train/a/1.png", "val/a/2.png", "val/b/3.png", "test/4.png"]);
    assert_eq!(
        labelled(&open(&folder).unwrap()),
        [("a/2.png", 0), ("b/3.png", 1)]
    );
    let folder = images(&["train/a/1.png", "train/b/2.png"]);
    assert_eq!(
        labelled(&open(&folder).unwrap()),
        [("a/1.png", 0), ("b/2.png", 1)]
    );
    let folder = images(&["bus/1.png", "car/2.png", "train/3.png"]);
    let set = open(&folder).unwrap();
    assert_eq!(
        labelled(&set),
        [("bus/1.png", 0), ("car/2.png", 1), ("train/3.png", 2)]
    );
    let folder = images(&["pictures/mine/a/1.png", "pictures/mine/b/2.png"]);
    let set = open(&folder).unwrap();
    assert_eq!(labelled(&set), [("a/1.png", 0), ("b/2.png", 1)]);
    assert!(set.root.ends_with("pictures/mine"), "{}", set.root);
}

#[test]
fn links_are_followed_once() {
    let folder = images(&["a/1.png", "b/2.png"]);
    let at = |name: &str| folder.path().join(name);
    symlink(folder.path(), at("a/up")).unwrap();
    symlink("../b", at("a/x")).unwrap();
    symlink("../a", at("b/y")).unwrap();
    symlink("nowhere.txt", at("b/gone.txt")).unwrap();
    let set = open(&folder).unwrap();
    let ids: Vec<_> = set.samples.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["a/1.png", "a/x/2.png", "b/2.png", "b/y/1.png"]);
    let loops = set
        .skipped
        .iter()
        .filter(|s| s.reason == SkipReason::LinkLoop);
    assert_eq!(loops.count(), 4, "{:?}", set.skipped);
    assert!(skipped(&set).contains(&("b/gone.txt", SkipReason::BrokenLink)));

    symlink("nowhere.png", at("b/gone.png")).unwrap();
    let error = open(&folder).unwrap_err();
    assert!(
        matches!(error, DataError::Unreachable { count: 2, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("b/gone.png"), "{error}");
    let set = DataSet::open(folder.path(), &with(|o| o.allow_missing = true)).unwrap();
    assert_eq!(set.samples.len(), 4);
}

#[test]
fn folders_and_names_that_cannot_be_read_are_errors() {
    let folder = images(&["a/1.png", "b/2.png"]);
    let locked = folder.path().join("b");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&locked).is_ok() {
        eprintln!("SKIPPED: this user may read everything");
    } else {
        let error = open(&folder).unwrap_err();
        assert!(
            matches!(&error, DataError::Io { path, .. } if *path == locked),
            "{error}"
        );
    }
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"\xff.png");
    fs::write(locked.join(name), "x").unwrap();
    let error = open(&folder).unwrap_err();
    assert!(matches!(error, DataError::NotUtf8 { .. }), "{error}");
}

#[test]
fn nothing_to_find_says_what_was_there() {
    let message = |path: &Path| {
        DataSet::open(path, &OpenOptions::default())
            .unwrap_err()
            .to_string()
    };
    let folder = tree(&[("readme.md", ""), ("x.tgz", "")]);
    assert!(message(folder.path()).contains("compressed archive"));
    fs::remove_file(folder.path().join("x.tgz")).unwrap();
    assert!(message(folder.path()).contains("readme.md"));
    assert!(message(&folder.path().join("missing")).contains("missing"));
    let folder = tree(&[("a.png", ""), ("val.txt", ""), ("v.tar.gz", "")]);
    assert!(message(&folder.path().join("a.png")).contains("give the folder"));
    assert!(message(&folder.path().join("val.txt")).contains("give the folder"));
    assert!(message(&folder.path().join("v.tar.gz")).contains("Unpack"));
    assert!(message(tempfile::tempdir().unwrap().path()).contains("no files"));
}

#[test]
fn mostly_flat_images_leave_a_stray_folder_out() {
    let folder = tree(&[
        ("v1.JPEG", "x"),
        ("v2.JPEG", "x"),
        ("old/v1.JPEG", "x"),
        ("val.txt", "v1.JPEG 1\nv2.JPEG 2\n"),
    ]);
    let set = open(&folder).unwrap();
    assert_eq!(labelled(&set), [("v1.JPEG", 1), ("v2.JPEG", 2)]);
    assert_eq!(skipped(&set), [("old/v1.JPEG", SkipReason::BesideFlat)]);
}

#[test]
fn the_fingerprint_follows_ids_labels_and_sizes_but_not_the_place() {
    let of = |files: &[(&str, &str)]| open(&tree(files)).unwrap().fingerprint().unwrap();
    let one = of(&[("a/1.png", "x"), ("b/2.png", "y")]);
    assert_eq!(one.len(), 64);
    assert_eq!(
        one,
        of(&[("a/1.png", "x"), ("b/2.png", "z")]),
        "another place and other pixels"
    );
    assert_eq!(one, of(&[("val/a/1.png", "x"), ("val/b/2.png", "y")]));
    for other in [
        of(&[("a/1.png", "xx"), ("b/2.png", "y")]),
        of(&[("a/1.png", "x"), ("b/3.png", "y")]),
        of(&[("a/1.png", "x"), ("b/2.png", "y"), ("b/3.png", "")]),
    ] {
        assert_ne!(one, other);
    }
    let labels = |list: &str| of(&[("v1.JPEG", "x"), ("val.txt", list)]);
    assert_ne!(labels("v1.JPEG 1"), labels("v1.JPEG 2"));

    let folder = tree(&[("a/1.png", "x"), ("b/2.png", "y")]);
    let set = open(&folder).unwrap();
    let gone: PathBuf = folder.path().join("b/2.png");
    fs::remove_file(&gone).unwrap();
    assert!(matches!(set.fingerprint(), Err(DataError::Io { path, .. }) if path == gone));
}

#[test]
fn cifar_files_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test_batch.bin");
    let message = || {
        DataSet::open(&path, &OpenOptions::default())
            .unwrap_err()
            .to_string()
    };
    for size in [0, 3072, 3074] {
        fs::write(&path, vec![0; size]).unwrap();
        assert!(
            message().contains("not a whole number of records"),
            "{}",
            message()
        );
    }
    let mut records = vec![0; 2 * 3073];
    records[3073] = 10;
    fs::write(&path, &records).unwrap();
    assert!(message().contains("record 1 has class 10"), "{}", message());
    records[3073] = 9;
    fs::write(&path, &records).unwrap();
    fs::write(folder.path().join("data_batch_1.bin"), &records).unwrap();
    let set = DataSet::open(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!(
        labelled(&set),
        [("test_batch.bin/0000000", 0), ("test_batch.bin/0000001", 9)]
    );
    fs::rename(&path, folder.path().join("data_batch_2.bin")).unwrap();
    let error = DataSet::open(folder.path(), &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::Ambiguous { .. }), "{error}");
}
