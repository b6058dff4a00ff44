//! The key map of a real family, over every name of its smallest model, both ways.

use serde_json::Value;
use zoo_weights::{Direction, KeyMap};

/// SHViT: official names to timm's.
const TIMM: [(&str, &str); 5] = [
    ("blocks1.{j:0..}.{rest}", "stages.0.blocks.{j}.{rest}"),
    (
        "blocks{i:2..3}.0.{a:0..1}.{rest}",
        "stages.{i-1}.downsample.{a}.{rest}",
    ),
    (
        "blocks{i:2..3}.1.{rest}",
        "stages.{i-1}.downsample.2.{rest}",
    ),
    (
        "blocks{i:2..3}.2.{a:0..1}.{rest}",
        "stages.{i-1}.downsample.{a+3}.{rest}",
    ),
    (
        "blocks{i:2..3}.{j:3..}.{rest}",
        "stages.{i-1}.blocks.{j-3}.{rest}",
    ),
];

fn official_names() -> Vec<String> {
    let text = include_str!("goldens/shvit_s1.json");
    let golden: Value = serde_json::from_str(text).unwrap();
    let names: Vec<_> = golden["state_dict"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry[0].as_str().unwrap().into())
        .collect();
    assert!(names.len() > 300, "{}", names.len());
    names
}

#[test]
fn every_name_goes_to_timm_and_back() {
    let map = KeyMap::new("timm", &TIMM).unwrap();
    let official = official_names();
    let official: Vec<_> = official.iter().map(String::as_str).collect();
    let timm = map.rename_all(&official, Direction::ToOther).unwrap();
    assert!(timm.iter().all(|name| !name.starts_with("blocks")));
    let timm: Vec<_> = timm.iter().map(String::as_str).collect();
    assert_eq!(
        map.rename_all(&timm, Direction::ToOfficial).unwrap(),
        official
    );
    let maps = [map];
    assert_eq!(
        KeyMap::detect(&maps, &timm, &official).map(KeyMap::name),
        Some("timm")
    );
    assert!(KeyMap::detect(&maps, &official, &official).is_none());
}

#[test]
fn the_names_are_those_that_timm_gives() {
    let map = KeyMap::new("timm", &TIMM).unwrap();
    let official = official_names();
    let official: Vec<_> = official.iter().map(String::as_str).collect();
    let mut mapped = map.rename_all(&official, Direction::ToOther).unwrap();
    mapped.sort_unstable();
    let mut timm: Vec<_> = include_str!("goldens/shvit_s1_timm_names.txt")
        .lines()
        .collect();
    timm.sort_unstable();
    assert_eq!(mapped, timm);
}
