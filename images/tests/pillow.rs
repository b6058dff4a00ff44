//! Against what Pillow, timm and torchvision gave for real files; needs the folder in ZOO_TEST_DATA.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};
use zoo_images::{Interpolation, Rgb, Transform, decode, resize};

fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("ZOO_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED: ZOO_TEST_DATA not set");
    }
    folder
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn three(value: &Value) -> [f32; 3] {
    [0, 1, 2].map(|channel| value[channel].as_f64().unwrap() as f32)
}

fn transform(recipe: &Value) -> Transform {
    let size = number(&recipe["size"]);
    Transform {
        size: (size, size),
        crop_pct: recipe["crop_pct"].as_f64().unwrap(),
        interpolation: match recipe["interp"].as_str().unwrap() {
            "bicubic" => Interpolation::Bicubic,
            "bilinear" => Interpolation::Bilinear,
            other => panic!("the goldens have a new interpolation {other}"),
        },
        mean: three(&recipe["mean"]),
        std: three(&recipe["std"]),
    }
}

/// The pixels of an image of `preprocess.json` by each way to get them: its JPEG bytes, and Pillow's own decode
/// where the data has it.
fn sources(data: &Path, entry: &Value) -> Vec<Rgb> {
    let stem = entry["stem"].as_str().unwrap();
    let decoded = data.join(format!("preprocess/decoded/{stem}.png"));
    let jpeg = data.join(entry["file"].as_str().unwrap());
    let mut paths = vec![jpeg];
    paths.extend(decoded.exists().then_some(decoded));
    let read = |path: &PathBuf| decode(&std::fs::read(path).unwrap()).unwrap();
    paths.iter().map(read).collect()
}

#[test]
fn every_recipe_gives_pillows_pixels_and_torchs_floats() {
    let Some(data) = data() else { return };
    let goldens = json(&data.join("preprocess/preprocess.json"));
    let samples = std::fs::read(data.join("preprocess/samples.safetensors")).unwrap();
    let samples = SafeTensors::deserialize(&samples).unwrap();
    let mut compared = 0;
    for entry in goldens["images"].as_array().unwrap() {
        for image in sources(&data, entry) {
            let stem = entry["stem"].as_str().unwrap();
            assert_eq!(sha256(&image.pixels), entry["decoded_rgb_sha256"], "{stem}");
            for (name, expected) in entry["recipes"].as_object().unwrap() {
                let transform = transform(&goldens["recipes"][name]);
                check_pixels(&image, &transform, expected);
                let tensor = samples.tensor(&format!("{stem}/{name}/samples")).unwrap();
                check_floats(&image, &transform, tensor.data());
                compared += 1;
            }
        }
    }
    assert!(compared >= 12 * 4, "{compared} comparisons");
}

fn check_pixels(image: &Rgb, transform: &Transform, expected: &Value) {
    let wanted = [0, 1].map(|axis| number(&expected["resized_wh"][axis]));
    let size = transform.resized(image.width, image.height);
    assert_eq!(size, wanted.into());
    let whole = resize(image, size.0, size.1, transform.interpolation);
    assert_eq!(sha256(&whole.pixels), expected["resized_u8_hwc_sha256"]);
    let crop = transform.crop(image);
    assert_eq!(sha256(&crop.pixels), expected["crop_u8_hwc_sha256"]);
}

fn check_floats(image: &Rgb, transform: &Transform, expected: &[u8]) {
    let length = 3 * transform.size.0 * transform.size.1;
    let mut found = vec![f32::NAN; length];
    transform.write(image, &mut found);
    assert!(found.iter().all(|value| value.is_finite()));
    let expected = expected.chunks_exact(4);
    assert_eq!(expected.len(), 256);
    for (index, bytes) in expected.enumerate() {
        let value = f32::from_le_bytes(bytes.try_into().unwrap());
        let at = (2 * index + 1) * length / 514;
        assert_eq!(found[at].to_bits(), value.to_bits(), "sample {index}");
    }
}

#[test]
fn odd_files_are_read_as_pillow_reads_them_or_refused_by_name() {
    let Some(data) = data() else { return };
    let folder = data.join("imagenet-sample/odd");
    let goldens = json(&folder.join("odd.json"));
    let files = goldens["files"].as_object().unwrap();
    assert!(files.len() >= 27);
    for (name, expected) in files {
        let found = decode(&std::fs::read(folder.join(name)).unwrap());
        if expected.get("pillow_error").is_some() {
            assert!(found.is_err(), "{name}: Pillow refuses it");
            continue;
        }
        let image = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        let size = [0, 1].map(|axis| number(&expected["size_wh"][axis]));
        assert_eq!([image.width, image.height], size, "{name}");
        assert_eq!(sha256(&image.pixels), expected["rgb_sha256"], "{name}");
    }
}
