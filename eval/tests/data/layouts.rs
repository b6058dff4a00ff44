//! Every layout of the shared sample gives the same images with the same labels.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use zoo_eval::data::{Classes, DataError, DataSet, Labels, Layout, OpenOptions, Source};

fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("ZOO_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED: ZOO_TEST_DATA not set");
    }
    folder
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn open(path: &Path) -> DataSet {
    DataSet::open(path, &OpenOptions::default()).unwrap()
}

/// sha256 of the bytes -> label, for what was opened.
fn contents(set: &DataSet) -> BTreeMap<String, usize> {
    let entry = |s: &zoo_eval::data::Sample| {
        let bytes = s.source.read().unwrap();
        assert_eq!(bytes.len() as u64, s.source.size().unwrap());
        (hex(&Sha256::digest(&bytes)), s.label.unwrap())
    };
    let map: BTreeMap<_, _> = set.samples.iter().map(entry).collect();
    assert_eq!(map.len(), set.samples.len());
    map
}

/// The same from expected.json, which we did not write; only the first `n` images.
fn expected(layouts: &Path, n: usize) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(layouts.join("expected.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let images = json["images"].as_array().unwrap();
    assert_eq!(images.len(), 10);
    let entry = |i: &Value| {
        let label = i["index"].as_u64().unwrap() as usize;
        let class = Classes::imagenet().get(label).unwrap();
        assert_eq!(class.wnid.as_deref(), i["wnid"].as_str());
        (i["sha256"].as_str().unwrap().to_owned(), label)
    };
    images.iter().take(n).map(entry).collect()
}

/// A folder of links to some of the shared files, as a user would have them.
fn folder_of(links: &[(&Path, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (target, name) in links {
        let link = folder.path().join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, link).unwrap();
    }
    folder
}

#[test]
fn class_folders_take_their_labels_from_wnids() {
    let Some(data) = data() else { return };
    let sample = data.join("imagenet-sample");
    let set = open(&sample.join("val"));
    assert_eq!(
        set.describe(),
        "class folders (torchvision), 200 images in 200 classes, labels from wnids"
    );
    let csv = fs::read_to_string(sample.join("labels.csv")).unwrap();
    let mut rows: Vec<(String, usize, String)> = Vec::new();
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let id = fields[0].strip_prefix("val/").unwrap().to_owned();
        let sha = fields.last().unwrap().to_string();
        rows.push((id, fields[2].parse().unwrap(), sha));
    }
    rows.sort();
    assert_eq!(rows.len(), set.samples.len());
    for ((id, label, sha), sample) in rows.iter().zip(&set.samples) {
        assert_eq!((id, Some(*label)), (&sample.id, sample.label));
        let bytes = sample.source.read().unwrap();
        assert_eq!(*sha, hex(&Sha256::digest(&bytes)), "{id}");
    }
    let parent = open(&sample);
    assert_eq!(parent.root, sample.join("val").display().to_string());
    assert_eq!(parent.fingerprint().unwrap(), set.fingerprint().unwrap());
}

#[test]
fn flat_folder_with_either_list() {
    let Some(data) = data() else { return };
    let layouts = data.join("imagenet-sample/layouts");
    let flat = open(&layouts.join("flat"));
    assert_eq!(
        flat.describe(),
        "flat folder, 10 images in 10 classes, labels from LOC_val_solution.csv"
    );
    assert_eq!(contents(&flat), expected(&layouts, 10));
    assert_eq!(flat.samples[0].id, "ILSVRC2012_val_00000001.JPEG");

    let parent = open(&layouts);
    assert_eq!(parent.fingerprint().unwrap(), flat.fingerprint().unwrap());

    let folder = folder_of(&[
        (&layouts.join("flat"), "images"),
        (&layouts.join("val.txt"), "val.txt"),
    ]);
    let caffe = open(folder.path());
    assert_eq!(caffe.labels, Labels::List("val.txt".to_owned()));
    assert_eq!(caffe.fingerprint().unwrap(), flat.fingerprint().unwrap());
}

#[test]
fn kaggle_tree_from_its_root_and_from_within() {
    let Some(data) = data() else { return };
    let sample = data.join("imagenet-sample");
    let layouts = sample.join("layouts");
    let folder = folder_of(&[
        (&layouts.join("flat"), "ILSVRC/Data/CLS-LOC/val"),
        (&sample.join("val"), "ILSVRC/Data/CLS-LOC/train"),
        (&layouts.join("flat"), "ILSVRC/Data/CLS-LOC/test"),
        (
            &layouts.join("LOC_val_solution.csv"),
            "LOC_val_solution.csv",
        ),
        (
            &sample.join("LOC_synset_mapping.txt"),
            "LOC_synset_mapping.txt",
        ),
    ]);
    for below in [
        "",
        "ILSVRC",
        "ILSVRC/Data",
        "ILSVRC/Data/CLS-LOC",
        "ILSVRC/Data/CLS-LOC/val",
    ] {
        let set = open(&folder.path().join(below));
        assert_eq!(set.layout, Layout::Kaggle, "{below}");
        assert_eq!(contents(&set), expected(&layouts, 10), "{below}");
    }
}

#[test]
fn val_tar_with_a_list_beside_it_and_without() {
    let Some(data) = data() else { return };
    let layouts = data.join("imagenet-sample/layouts");
    let tar = layouts.join("ILSVRC2012_img_val.tar");
    let set = open(&tar);
    assert_eq!(
        set.describe(),
        "tar of flat files, 10 images in 10 classes, labels from LOC_val_solution.csv"
    );
    assert_eq!(contents(&set), expected(&layouts, 10));
    let flat = open(&layouts.join("flat"));
    assert_eq!(set.fingerprint().unwrap(), flat.fingerprint().unwrap());

    let folder = folder_of(&[(&tar, "ILSVRC2012_img_val.tar")]);
    let error = DataSet::open(folder.path(), &OpenOptions::default()).unwrap_err();
    assert!(
        matches!(error, DataError::NoLabels { images: 10, .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("LOC_val_solution.csv"),
        "{error}"
    );
    let predict = OpenOptions {
        need_labels: false,
        ..OpenOptions::default()
    };
    let set = DataSet::open(folder.path(), &predict).unwrap();
    assert_eq!(set.describe(), "tar of flat files, 10 images, no labels");
    assert!(set.classes.is_empty());
    assert!(set.samples.iter().all(|s| s.label.is_none()));

    let given = OpenOptions {
        labels: Some(layouts.join("val.txt")),
        ..OpenOptions::default()
    };
    let set = DataSet::open(folder.path(), &given).unwrap();
    assert_eq!(contents(&set), expected(&layouts, 10));
}

#[test]
fn train_tar_of_class_tars() {
    let Some(data) = data() else { return };
    let layouts = data.join("imagenet-sample/layouts");
    let set = open(&layouts.join("ILSVRC2012_img_train.tar"));
    assert_eq!(set.layout, Layout::TarOfTars);
    assert_eq!(set.labels, Labels::Wnids);
    assert_eq!(contents(&set), expected(&layouts, 3));
    assert!(
        set.samples[0].id.starts_with("n01753488/"),
        "{}",
        set.samples[0].id
    );
}

#[test]
fn webdataset_shards() {
    let Some(data) = data() else { return };
    let layouts = data.join("imagenet-sample/layouts");
    let [first, second] = [
        "imagenet1k-validation-0000.tar",
        "imagenet1k-validation-0001.tar",
    ];
    let one = open(&layouts.join(first));
    assert_eq!(contents(&one), expected(&layouts, 5));
    let folder = folder_of(&[
        (&layouts.join(first), first),
        (&layouts.join(second), second),
        (&layouts.join(second), "imagenet1k-train-0000.tar"),
    ]);
    let both = open(folder.path());
    assert_eq!(
        both.describe(),
        "WebDataset, 2 shards, 10 images in 10 classes, labels from .cls members"
    );
    assert_eq!(contents(&both), expected(&layouts, 10));
    assert_eq!(both.samples[9].id, format!("{second}/00000009.jpg"));
}

#[test]
fn parquet_is_refused_by_name() {
    let Some(data) = data() else { return };
    let file = data.join("imagenet-sample/layouts/validation-00000-of-00002.parquet");
    let folder = folder_of(&[(&file, "validation.parquet")]);
    for path in [file.as_path(), folder.path()] {
        let error = DataSet::open(path, &OpenOptions::default()).unwrap_err();
        assert!(error.to_string().contains("Parquet"), "{error}");
    }
}

#[test]
fn cifar10_records() {
    let Some(data) = data() else { return };
    let text = fs::read_to_string(data.join("cifar10/cifar10.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    for file in ["test_2000.bin", "train_3000.bin"] {
        let facts = &json["files"][file];
        let set = open(&data.join("cifar10").join(file));
        assert_eq!(set.samples.len() as u64, facts["records"].as_u64().unwrap());
        let mut per_class = [0_u64; 10];
        for sample in &set.samples {
            per_class[sample.label.unwrap()] += 1;
        }
        assert_eq!(serde_json::json!(per_class), facts["per_class"]);
        let first: Vec<usize> = set
            .samples
            .iter()
            .take(20)
            .map(|s| s.label.unwrap())
            .collect();
        assert_eq!(serde_json::json!(first), facts["first_20_labels"]);
        let record = &set.samples[7];
        let bytes = record.source.read().unwrap();
        assert_eq!(bytes.len(), 3072);
        assert!(matches!(
            record.source,
            Source::Raw {
                width: 32,
                height: 32,
                ..
            }
        ));
        let start: Vec<u64> = facts["record_7_first_8_bytes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_u64().unwrap())
            .collect();
        assert_eq!(record.label.unwrap() as u64, start[0]);
        let pixels: Vec<u64> = bytes[..7].iter().map(|b| u64::from(*b)).collect();
        assert_eq!(pixels, start[1..]);
        let red: f64 = set
            .samples
            .iter()
            .map(|s| {
                s.source.read().unwrap()[..1024]
                    .iter()
                    .map(|b| f64::from(*b))
                    .sum::<f64>()
            })
            .sum();
        let mean = red / (1024.0 * 255.0 * set.samples.len() as f64);
        assert!((mean - facts["channel_mean"][0].as_f64().unwrap()).abs() < 1e-12);
    }
    let set = open(&data.join("cifar10"));
    assert!(set.root.ends_with("test_2000.bin"));
    let names: Vec<&str> = set.classes.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(serde_json::json!(names), json["classes"]);
}

#[test]
fn the_class_list_agrees_with_the_usual_index() {
    let Some(data) = data() else { return };
    let text = fs::read_to_string(data.join("imagenet-sample/imagenet_class_index.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let mut renamed = Vec::new();
    for (i, class) in Classes::imagenet().iter().enumerate() {
        let usual = &json[i.to_string()];
        assert_eq!(class.wnid.as_deref(), usual[0].as_str());
        if class.name.replace(' ', "_") != usual[1].as_str().unwrap() {
            renamed.push(i);
        }
    }
    assert_eq!(renamed, [134, 517, 639], "the names that would repeat");
}
