use super::*;

#[test]
fn nothing_is_named_as_nothing() {
    assert_eq!(decode(&[]), Err(DecodeError::Empty));
}

#[test]
fn an_unknown_signature_is_shown() {
    let error = decode(b"<html>Not found").unwrap_err();
    assert!(error.to_string().contains("not a JPEG"), "{error}");
}

#[test]
fn a_bomb_is_refused_from_its_header() {
    // A GIF screen of 65535 x 65535 with a 1 x 1 frame.
    let mut bytes = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    bytes.extend_from_slice(b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;");
    assert!(matches!(
        decode(&bytes),
        Err(DecodeError::TooLarge {
            format: Format::Gif,
            ..
        })
    ));
}
