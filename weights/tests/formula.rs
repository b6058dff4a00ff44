//! Formula weights of a whole model, against an independent computation in NumPy (float64, rounded to float32).

use serde_json::Value;
use zoo_weights::bytes_sha256;
use zoo_weights::formula::{Formula, Kind, Spread};

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn every_tensor_of_shvit_s1_has_the_bits_that_numpy_gives() {
    let golden: Value = serde_json::from_str(include_str!("goldens/shvit_s1.json")).unwrap();
    let formula = Formula {
        salt: "zoo".into(),
        gain: golden["gain"].as_f64().unwrap(),
    };
    let mut all = Vec::new();
    let mut filled = 0;
    for entry in golden["state_dict"].as_array().unwrap() {
        let (name, shape, kind): (String, Vec<usize>, Kind) =
            serde_json::from_value(entry.clone()).unwrap();
        if let Some(values) = formula.fill(&name, &shape, kind) {
            all.extend(bytes(&values));
            filled += 1;
        }
    }
    assert_eq!(filled, 397);
    assert_eq!(
        bytes_sha256(&all),
        "6cdc6d5efad02e60f06fa2cceed14ac640285b0ad8f07dc98dd76056c1484e0a"
    );
}

#[test]
fn inputs_have_the_bits_that_numpy_gives() {
    let formula = Formula::default();
    let input = formula.fill_input(&[2, 3, 224, 224]);
    assert_eq!(
        bytes_sha256(&bytes(&input)),
        "8f2297181a52b4e7a6c232a16e335dc817a92cad57e21a72f47719ba2810b110"
    );
    let spread = Spread {
        lo: -3.0,
        hi: 10.0,
        pow: 3.0,
        floor: false,
    };
    let cubed = formula.fill_spread("x", &[1000], spread);
    assert_eq!(
        bytes_sha256(&bytes(&cubed)),
        "f70b88c62faec1da2c73c84716d29166e2e5e8a5539fe33aa94b0c6bb9c64e73"
    );
}
