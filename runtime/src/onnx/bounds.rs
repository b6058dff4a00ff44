//! How many parts a file may make us keep: a message of two bytes can take a hundred in memory.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Messages that are kept of one file. The largest networks have some ten thousand operators.
const MAX_PARTS: usize = 1 << 20;

/// The fields of a message that are messages themselves, of those in [`super::proto`].
struct Schema(&'static [(u32, &'static Schema)]);

static LEAF: Schema = Schema(&[]);
static SHAPE: Schema = Schema(&[(1, &LEAF)]);
static TENSOR: Schema = Schema(&[(2, &SHAPE)]);
static TYPE: Schema = Schema(&[(1, &TENSOR)]);
static VALUE: Schema = Schema(&[(2, &TYPE)]);
static INITIALIZER: Schema = Schema(&[(13, &LEAF)]);
static GRAPH: Schema = Schema(&[(1, &LEAF), (5, &INITIALIZER), (11, &VALUE), (12, &VALUE)]);
static MODEL: Schema = Schema(&[(7, &GRAPH), (8, &LEAF), (14, &LEAF)]);

/// Checks the nesting of lengths, and that decoding keeps no more than [`MAX_PARTS`] messages.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut parts = 0;
    walk(bytes, &MODEL, &mut parts)
}

fn walk(mut bytes: &[u8], schema: &Schema, parts: &mut usize) -> Result<(), String> {
    let wrong = |e: prost::DecodeError| e.to_string();
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes).map_err(wrong)?;
        let message = schema.0.iter().find(|(known, _)| *known == tag);
        let Some((_, inner)) = message.filter(|_| wire == WireType::LengthDelimited) else {
            skip_field(wire, tag, &mut bytes, DecodeContext::default()).map_err(wrong)?;
            continue;
        };
        let length = decode_varint(&mut bytes).map_err(wrong)?;
        let length = usize::try_from(length).ok().filter(|&n| n <= bytes.len());
        let (field, rest) =
            bytes.split_at(length.ok_or("a part is longer than the file: it is cut short")?);
        *parts += 1;
        if *parts > MAX_PARTS {
            return Err(format!(
                "it has more than {MAX_PARTS} operators, weights and the like"
            ));
        }
        walk(field, inner, parts)?;
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::channel_means;
    use super::*;
    use prost::Message;

    /// Field 7, the graph, around this many empty operators.
    fn operators(n: usize) -> Vec<u8> {
        let mut bytes = vec![7 << 3 | 2];
        prost::encoding::encode_varint(2 * n as u64, &mut bytes);
        bytes.extend([1 << 3 | 2, 0].repeat(n));
        bytes
    }

    #[test]
    fn real_files_pass_and_floods_do_not() {
        assert_eq!(check(&channel_means(-1).encode_to_vec()), Ok(()));
        assert_eq!(check(&operators(MAX_PARTS - 1)), Ok(()));
        assert!(
            check(&operators(MAX_PARTS))
                .unwrap_err()
                .contains("more than")
        );
    }

    #[test]
    fn a_cut_file_is_told() {
        let bytes = operators(10);
        assert!(
            check(&bytes[..bytes.len() - 1])
                .unwrap_err()
                .contains("cut short")
        );
    }
}
