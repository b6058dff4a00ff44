use super::super::proto::EXTERNAL;
use super::super::sample::{Model, changed, channel_means, value};
use super::super::{INPUT_KEY, PREPROCESSING_KEY};
use super::*;
use proptest::prelude::*;

fn parse(model: &Model) -> Result<OnnxFile, OnnxError> {
    OnnxFile::parse(Path::new("a.onnx"), &model.encode_to_vec())
}

fn message(model: &Model) -> String {
    parse(model).unwrap_err().to_string()
}

#[test]
fn a_classifier_is_described() {
    let file = parse(&channel_means(-1)).unwrap();
    assert_eq!(
        (file.input.as_str(), file.output.as_str()),
        ("images", "logits")
    );
    assert_eq!((file.channels(), file.size()), (3, Some((4, 5))));
    assert_eq!(file.shape()[0], Dimension::Any("batch".to_owned()));
    let pools = ("".to_owned(), "GlobalAveragePool".to_owned());
    assert_eq!(file.operators()[&pools], 1);
    assert_eq!(file.preprocessing(), None);
    assert_eq!(file.foreign_operators(), "");
}

#[test]
fn an_input_is_held_to_the_shape() {
    let any = parse(&channel_means(-1)).unwrap();
    assert!(any.check(&[7, 3, 4, 5]).is_ok());
    for wrong in [&[7, 3, 4][..], &[7, 1, 4, 5], &[7, 3, 5, 4], &[0, 3, 4, 5]] {
        let message = any.check(wrong).unwrap_err().to_string();
        assert!(
            message.contains("a.onnx") && message.contains("[batch, 3, 4, 5]"),
            "{message}"
        );
    }
    let message = parse(&channel_means(2))
        .unwrap()
        .check(&[1, 3, 4, 5])
        .unwrap_err()
        .to_string();
    assert!(message.contains("--batch 2"), "{message}");
}

#[test]
fn what_is_no_classifier_is_told_why() {
    let two_inputs = changed(|g| g.input.push(value("mask", &[1])));
    assert!(
        message(&two_inputs).contains("2 inputs (images, mask)"),
        "{}",
        message(&two_inputs)
    );
    let flat = changed(|g| g.input = vec![value("tokens", &[-1, 77])]);
    assert!(
        message(&flat).contains("`tokens` is [batch, 77]"),
        "{}",
        message(&flat)
    );
    let boxes = changed(|g| g.output = vec![value("boxes", &[-1, 4]), value("scores", &[-1, 2])]);
    assert!(
        message(&boxes).contains("boxes, scores"),
        "{}",
        message(&boxes)
    );
    let map = changed(|g| g.output = vec![value("map", &[-1, 2, 4, 5])]);
    assert!(message(&map).contains("4 dimensions"), "{}", message(&map));
    let bytes = changed(|g| {
        let tensor = g.input[0].r#type.as_mut().and_then(|t| t.tensor.as_mut());
        tensor.unwrap().elem_type = 2;
    });
    assert!(
        message(&bytes).contains("element type 2"),
        "{}",
        message(&bytes)
    );
    let empty = changed(|g| g.node.clear());
    assert!(
        message(&empty).contains("no operators"),
        "{}",
        message(&empty)
    );
}

#[test]
fn operators_outside_the_standard_are_named() {
    let custom = changed(|g| g.node[0].domain = "com.example".to_owned());
    let hint = parse(&custom).unwrap().foreign_operators();
    assert!(
        hint.contains("com.example::GlobalAveragePool (1)"),
        "{hint}"
    );
}

/// The sample with a weight that lies at these places; the sample's messages have no weights, so that one is appended to the
/// graph's bytes by merging a second model message.
fn with_weight(places: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| Entry {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    let weight = super::super::proto::Initializer {
        name: "w".to_owned(),
        external_data: places.iter().map(entry).collect(),
        data_location: EXTERNAL,
    };
    let graph = Graph {
        initializer: vec![weight],
        ..Graph::default()
    };
    let extra = super::super::proto::Model {
        graph: Some(graph),
        ..Default::default()
    };
    let mut bytes = channel_means(-1).encode_to_vec();
    bytes.extend(extra.encode_to_vec());
    bytes
}

#[test]
fn weights_beside_the_file_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.onnx");
    let read = |places: &[(&str, &str)]| OnnxFile::parse(&path, &with_weight(places));
    let beside = ("location", "a.onnx.data");
    let missing = read(&[beside]).unwrap_err().to_string();
    assert!(
        missing.contains("a.onnx.data") && missing.contains("not there"),
        "{missing}"
    );
    std::fs::write(folder.path().join("a.onnx.data"), [0; 4]).unwrap();
    assert!(read(&[beside, ("offset", "0"), ("length", "4")]).is_ok());
    for (places, named) in [
        (
            &[beside, ("offset", "2"), ("length", "4")][..],
            "`w` has 4 bytes from byte 2",
        ),
        (
            &[beside, ("length", "18446744073709551615"), ("offset", "9")],
            "cut short",
        ),
        (&[beside, ("length", "many")], "`many` as its length"),
        (
            &[("location", "../a.onnx.data")],
            "outside the model's folder",
        ),
        (&[("location", "/etc/passwd")], "outside the model's folder"),
        (&[], "nothing says where"),
    ] {
        let message = read(places).unwrap_err().to_string();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn the_form_that_a_file_states_is_read() {
    let mut model = changed(|g| g.input = vec![value("frames", &[-1, 16, 2, 4, 5])]);
    assert!(message(&model).contains("not [batch, channels, height, width]"));
    model.metadata_props.push(Entry {
        key: INPUT_KEY.to_owned(),
        value: r#"{"form":"frames","steps":16}"#.to_owned(),
    });
    let file = parse(&model).unwrap();
    assert_eq!(file.form(), InputForm::Frames { steps: 16 });
    assert_eq!((file.channels(), file.size()), (2, Some((4, 5))));
    assert!(file.check(&[3, 16, 2, 4, 5]).is_ok() && file.check(&[3, 2, 4, 5]).is_err());
    model.metadata_props[0].value = r#"{"form":"points"}"#.to_owned();
    assert!(message(&model).contains("not [batch, points, channels]"));
    model.metadata_props[0].value = "16".to_owned();
    assert!(message(&model).contains(INPUT_KEY));
}

#[test]
fn stated_preprocessing_is_read() {
    let mut model = channel_means(-1);
    model.metadata_props.push(Entry {
        key: PREPROCESSING_KEY.to_owned(),
        value:
            r#"{"size":[4,5],"crop_pct":1,"interpolation":"bilinear","mean":[0,0,0],"std":[1,1,1]}"#
                .to_owned(),
    });
    let stated = parse(&model).unwrap().preprocessing().unwrap();
    assert_eq!(stated.size, (4, 5));
    model.metadata_props[0].value = "{".to_owned();
    assert!(message(&model).contains(PREPROCESSING_KEY));
}

#[test]
fn files_that_are_no_model_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cat.onnx");
    let read = || OnnxFile::read(&path).unwrap_err().to_string();
    assert!(read().contains("cat.onnx"));
    for bytes in [
        &b""[..],
        b"\xff\xd8\xff\xe0 a JPEG",
        b"PK\x03\x04",
        &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f],
    ] {
        std::fs::write(&path, bytes).unwrap();
        let message = read();
        assert!(
            message.contains("cat.onnx is not an ONNX model"),
            "{message}"
        );
    }
}

proptest! {
    /// Damaged files are refused or read, and never end the process.
    #[test]
    fn damage_never_panics(at in 0usize..200, byte: u8, cut in 0usize..200) {
        let mut bytes = channel_means(-1).encode_to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut % bytes.len());
        let _ = OnnxFile::parse(Path::new("a.onnx"), &bytes);
    }
}
