//! Lists of labels that do not fit the images, or are damaged.

use std::fs;

use zoo_eval::data::{DataError, DataSet, Labels, Layout, OpenOptions, SkipReason};

use crate::{images, labelled, open, skipped, tree, with};

/// Two flat images with a list of this content; the error of opening them.
fn list_error(list: &str, content: &str) -> String {
    let folder = tree(&[("v1.JPEG", "x"), ("v2.JPEG", "x"), (list, content)]);
    open(&folder).unwrap_err().to_string()
}

#[test]
fn a_malformed_list_is_named_with_its_line() {
    let csv = |rows: &str| {
        list_error(
            "LOC_val_solution.csv",
            &format!("ImageId,PredictionString\r\n{rows}"),
        )
    };
    let good = "v1,n02119022 1 1 2 2 \r\n";
    for (rows, line, part) in [
        (format!("{good}v2 n02119022 1 1 2 2\r\n"), 3, "no comma"),
        (format!("{good}v2,n02119022 1 1 2\r\n"), 3, "4 fields"),
        (format!("{good}v2,\r\n"), 3, "0 fields"),
        (
            format!("{good}\r\nv2,n00000001 1 1 2 2\r\n"),
            4,
            "not a wnid of the 1000",
        ),
        (
            format!("{good}v2,n02119022 1 1 2 2 n15075141 1 1 2 2\r\n"),
            3,
            "two classes",
        ),
        (format!("{good}{good}"), 3, "already in line 2"),
        (
            format!("{good}v1.JPEG,n02119022 1 1 2 2\r\n"),
            3,
            "second line for v1.JPEG",
        ),
    ] {
        let error = csv(&rows);
        assert!(
            error.contains(&format!("LOC_val_solution.csv:{line}: ")),
            "{error}"
        );
        assert!(error.contains(part), "{error}");
    }
    for (rows, line, part) in [
        ("v1.JPEG 1\nv2.JPEG 1000\n", 2, "outside 0..1000"),
        (
            "v1.JPEG 1\nv2.JPEG 99999999999999999999999\n",
            2,
            "outside 0..1000",
        ),
        ("v1.JPEG 1\nv2.JPEG\n", 2, "two fields"),
        ("v1.JPEG 1\nv2.JPEG -1\n", 2, "-1 is not a wnid"),
    ] {
        let error = list_error("val.txt", rows);
        assert!(error.contains(&format!("val.txt:{line}: ")), "{error}");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn lists_may_have_crlf_a_byte_order_mark_prefixes_and_wnids() {
    let folder = tree(&[
        ("a b.JPEG", "x"),
        ("c.JPEG", "x"),
        (
            "val.txt",
            "\u{feff}val/a b.JPEG n02119022\r\n\r\n./c.JPEG\t999\r\n",
        ),
    ]);
    let set = open(&folder).unwrap();
    assert_eq!(labelled(&set), [("a b.JPEG", 277), ("c.JPEG", 999)]);
    assert!(
        set.skipped.is_empty(),
        "the list itself is not left out: {:?}",
        set.skipped
    );
}

#[test]
fn a_name_that_fits_two_images_is_refused() {
    let folder = tree(&[("a.png", "x"), ("a.jpg", "x"), ("val.txt", "a 1\n")]);
    let error = open(&folder).unwrap_err().to_string();
    assert!(
        error.contains("val.txt:1: a fits more than one image"),
        "{error}"
    );
}

#[test]
fn images_and_rows_must_match_unless_that_is_allowed() {
    let list = "v1.JPEG 1\nv2.JPEG 2\nv3.JPEG 3\nv4.JPEG 4\nv5.JPEG 5\n";
    let folder = tree(&[("v1.JPEG", "x"), ("val.txt", list)]);
    let error = open(&folder).unwrap_err();
    assert!(
        matches!(error, DataError::MissingFiles { count: 4, .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("v2.JPEG, v3.JPEG, v4.JPEG, ..."),
        "{error}"
    );

    let folder = tree(&[
        ("v1.JPEG", "x"),
        ("v9.JPEG", "x"),
        ("val.txt", "v1.JPEG 1\n"),
    ]);
    let error = open(&folder).unwrap_err();
    assert!(
        matches!(error, DataError::UnlistedFiles { count: 1, .. }),
        "{error}"
    );

    let folder = tree(&[("v1.JPEG", "x"), ("v9.JPEG", "x"), ("val.txt", list)]);
    let set = DataSet::open(folder.path(), &with(|o| o.allow_missing = true)).unwrap();
    assert_eq!(labelled(&set), [("v1.JPEG", 1)]);
    let reasons = |reason| set.skipped.iter().filter(|s| s.reason == reason).count();
    assert_eq!(reasons(SkipReason::Missing), 4);
    assert_eq!(reasons(SkipReason::Unlisted), 1);
}

#[test]
fn a_list_that_names_nothing_here_is_not_taken() {
    let folder = tree(&[
        ("mine/v1.JPEG", "x"),
        ("mine/v2.JPEG", "x"),
        ("val.txt", "other.JPEG 1\n"),
    ]);
    let error = open(&folder).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("val.txt names none of the images"),
        "{error}"
    );
    let set = DataSet::open(folder.path(), &with(|o| o.need_labels = false)).unwrap();
    assert_eq!(set.describe(), "flat folder, 2 images, no labels");
}

#[test]
fn kaggle_comes_before_caffe_and_class_folders_before_lists() {
    let csv = "v1,n02119022 1 1 2 2\n";
    let folder = tree(&[
        ("v1.JPEG", "x"),
        ("val.txt", "v1.JPEG 3\n"),
        ("LOC_val_solution.csv", csv),
    ]);
    let set = open(&folder).unwrap();
    assert_eq!(labelled(&set), [("v1.JPEG", 277)]);
    assert_eq!(skipped(&set), [("val.txt", SkipReason::NotAnImage)]);

    let folder = tree(&[
        ("a/1.png", "x"),
        ("b/2.png", "x"),
        ("val.txt", "a/1.png 3\nb/2.png 4\n"),
    ]);
    assert_eq!(open(&folder).unwrap().layout, Layout::ClassFolders);
    let list = folder.path().join("val.txt");
    let set = DataSet::open(folder.path(), &with(|o| o.labels = Some(list))).unwrap();
    assert_eq!(labelled(&set), [("a/1.png", 3), ("b/2.png", 4)]);
}

#[test]
fn the_devkits_numbers_are_refused() {
    let truth = "ILSVRC2012_validation_ground_truth.txt";
    let folder = tree(&[("ILSVRC2012_val_00000001.JPEG", "x"), (truth, "490\n")]);
    let given = with(|o| o.labels = Some(folder.path().join(truth)));
    for options in [OpenOptions::default(), given] {
        let error = DataSet::open(folder.path(), &options).unwrap_err();
        assert!(
            matches!(error, DataError::NoLabels { images: 1, .. }),
            "{error}"
        );
        let text = error.to_string();
        for part in [truth, "not the standard one", "LOC_val_solution.csv"] {
            assert!(text.contains(part), "{text}");
        }
    }
    let set = DataSet::open(folder.path(), &with(|o| o.need_labels = false)).unwrap();
    assert!(matches!(&set.labels, Labels::None { missing } if missing.contains(truth)));
}

#[test]
fn wnids_in_file_names_are_labels_if_all_have_one() {
    let folder = images(&[
        "ILSVRC2012_val_00000001_n02119022.JPEG",
        "n15075141_18.JPEG",
    ]);
    let set = open(&folder).unwrap();
    assert_eq!(set.labels, Labels::FileNames);
    assert_eq!(
        labelled(&set),
        [
            ("ILSVRC2012_val_00000001_n02119022.JPEG", 277),
            ("n15075141_18.JPEG", 999)
        ]
    );
    fs::write(folder.path().join("other.JPEG"), "x").unwrap();
    assert!(matches!(
        open(&folder),
        Err(DataError::NoLabels { images: 3, .. })
    ));
}

#[test]
fn a_list_of_other_classes_is_refused() {
    let csv = "v1,n02119022 1 1 2 2\n";
    let mapping = "n01440764 tench\nn01484850 great white shark\n";
    let files = [
        ("v1.JPEG", "x"),
        ("LOC_val_solution.csv", csv),
        ("LOC_synset_mapping.txt", mapping),
    ];
    let error = open(&tree(&files)).unwrap_err().to_string();
    assert!(
        error.contains("LOC_synset_mapping.txt:2: class 1 is n01484850"),
        "{error}"
    );
    let files = [
        ("v1.JPEG", "x"),
        ("LOC_val_solution.csv", csv),
        ("LOC_synset_mapping.txt", "n01440764 tench\n"),
    ];
    let error = open(&tree(&files)).unwrap_err().to_string();
    assert!(
        error.contains("LOC_synset_mapping.txt:2: the list ends"),
        "{error}"
    );
}
