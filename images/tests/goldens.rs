//! Against Pillow's results for formula images, recorded in `goldens/` by the scripts beside them; needs no data.

use serde_json::Value;
use sha2::{Digest, Sha256};
use zoo_images::{Interpolation, Rgb, decode, resize};

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cases(json: &str) -> Vec<Value> {
    let goldens: Value = serde_json::from_str(json).unwrap();
    goldens["cases"].as_array().unwrap().clone()
}

fn pair(value: &Value) -> (usize, usize) {
    let number = |index: usize| value[index].as_u64().unwrap() as usize;
    (number(0), number(1))
}

/// The picture of `make_resize.py`.
fn picture((width, height): (usize, usize)) -> Rgb {
    let pixel = |index: usize| {
        let hash = (index as u32)
            .wrapping_mul(2_654_435_761)
            .wrapping_add(12345);
        let noise = (hash >> 13) as u8;
        if index & 512 != 0 {
            noise
        } else {
            255 * (noise >> 7)
        }
    };
    Rgb {
        width,
        height,
        pixels: (0..width * height * 3).map(pixel).collect(),
    }
}

#[test]
fn every_filter_resizes_as_pillow_does() {
    for case in cases(include_str!("goldens/resize.json")) {
        let interpolation = match case["filter"].as_str().unwrap() {
            "BOX" => Interpolation::Box,
            "BILINEAR" => Interpolation::Bilinear,
            "BICUBIC" => Interpolation::Bicubic,
            "LANCZOS" => Interpolation::Lanczos,
            other => panic!("the goldens have a new filter {other}"),
        };
        let (width, height) = pair(&case["to"]);
        let resized = resize(&picture(pair(&case["from"])), width, height, interpolation);
        assert_eq!(sha256(&resized.pixels), case["sha256"], "{case}");
    }
}

#[test]
fn every_kind_of_jpeg_decodes_as_pillow_does() {
    for case in cases(include_str!("goldens/jpeg.json")) {
        let image = decode(&bytes(&case)).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!((image.width, image.height), pair(&case["size"]), "{case}");
        assert_eq!(sha256(&image.pixels), case["sha256"], "{case}");
    }
}

#[test]
fn a_jpeg_cut_anywhere_is_refused() {
    for case in cases(include_str!("goldens/jpeg.json")) {
        let bytes = bytes(&case);
        for length in 0..bytes.len() - 1 {
            assert!(
                decode(&bytes[..length]).is_err(),
                "{length} bytes of {case}"
            );
        }
    }
}

/// Pillow fills the rest with gray and only warns; to be told is worth more than gray pixels in an evaluation.
#[test]
fn a_sequential_jpeg_whose_data_ends_early_is_refused() {
    let mut refused = 0;
    for case in cases(include_str!("goldens/jpeg.json")) {
        let bytes = bytes(&case);
        let kind = case["kind"].as_str().unwrap();
        // A small gray file needs so few bits that the zeros after its data finish it.
        if pair(&case["size"]) != (35, 21) || kind.contains("progressive") || kind == "gray" {
            continue;
        }
        let cut = [&bytes[..bytes.len() - 60], b"\xff\xd9"].concat();
        assert!(decode(&cut).is_err(), "{case}");
        refused += 1;
    }
    assert_eq!(refused, 8);
}

fn bytes(case: &Value) -> Vec<u8> {
    let hex = case["jpeg"].as_str().unwrap().as_bytes();
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.chunks_exact(2).map(digits).collect()
}
