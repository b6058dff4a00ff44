//! The JSON header, with names seen twice refused and counts bounded while it is read.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::{Problem, within};
use crate::limits::Limits;

/// A parsed header.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) metadata: Vec<(String, String)>,
    pub(super) records: Vec<Record>,
}

/// One tensor as the header describes it; nothing is checked yet but the counts.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    pub(super) begin: u64,
    pub(super) end: u64,
    /// Order in the header.
    pub(super) position: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

pub(super) fn parse(text: &[u8], limits: &Limits) -> Result<Header, Problem> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let mut seen = Seen {
        limits,
        problem: None,
    };
    let header = seen
        .deserialize(&mut json)
        .and_then(|header| json.end().map(|()| header));
    match (header, seen.problem) {
        (_, Some(problem)) => Err(problem),
        (header, None) => header.map_err(|e| Problem::Header(e.to_string())),
    }
}

/// Reads the outermost object; a problem that JSON's own errors cannot carry is left in `problem`.
struct Seen<'l> {
    limits: &'l Limits,
    problem: Option<Problem>,
}

impl<'de> DeserializeSeed<'de> for &mut Seen<'_> {
    type Value = Header;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Header, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Seen<'_> {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if let Err(problem) = check_name(&name, &names, self.limits) {
                self.problem = Some(problem);
                return Err(A::Error::custom("refused"));
            }
            if name == "__metadata__" {
                header.metadata = map.next_value::<Metadata>()?.0;
            } else {
                let Fields {
                    dtype,
                    shape,
                    data_offsets: (begin, end),
                } = map.next_value()?;
                let position = header.records.len();
                header.records.push(Record {
                    name: name.clone(),
                    dtype,
                    shape: shape.0,
                    begin,
                    end,
                    position,
                });
            }
            names.insert(name);
        }
        Ok(header)
    }
}

fn check_name(name: &str, names: &HashSet<String>, limits: &Limits) -> Result<(), Problem> {
    within(
        "bytes of a tensor's name",
        name.len() as u64,
        limits.name_bytes,
    )?;
    within("tensors", names.len() as u64 + 1, limits.tensors)?;
    if names.contains(name) {
        return Err(Problem::Duplicate {
            what: "tensor",
            name: name.into(),
        });
    }
    Ok(())
}

/// Dimensions, bounded so that a header of zeros does not grow eightfold in memory.
struct Shape(Vec<usize>);

impl Shape {
    const MOST: usize = 64;
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = seq.next_element()? {
                    if dims.len() == Shape::MOST {
                        return Err(A::Error::custom(format!(
                            "a shape of more than {} dimensions",
                            Shape::MOST
                        )));
                    }
                    dims.push(dim);
                }
                Ok(Shape(dims))
            }
        }
        json.deserialize_seq(Dims)
    }
}

/// Text to text, keys once each, in order.
struct Metadata(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut pairs = Vec::new();
                let mut keys = HashSet::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if !keys.insert(key.clone()) {
                        return Err(A::Error::custom(format!(
                            "metadata key {key:?} occurs twice"
                        )));
                    }
                    pairs.push((key, value));
                }
                Ok(Metadata(pairs))
            }
        }
        json.deserialize_map(Pairs)
    }
}
