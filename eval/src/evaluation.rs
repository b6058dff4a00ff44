//! A finished evaluation: all that its journal (or journals) says.

use serde::Serialize;

use crate::journal::{BatchRecord, Header, Row, Shard};
use crate::report::Report;

/// A finished evaluation, from one journal or merged from several.
#[derive(Debug, Clone)]
pub struct Evaluation {
    header: Header,
    places: Vec<Place>,
    batches: Vec<BatchRecord>,
}

/// Where a part of an evaluation ran.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    /// The shard, as `i/n`.
    pub shard: String,
    /// Name of the machine that began its journal.
    pub machine: String,
    /// Threads of the engine.
    pub threads: usize,
}

impl Evaluation {
    /// `batches` are all of the header's shard, in any order.
    pub(crate) fn new(header: Header, mut batches: Vec<BatchRecord>) -> Self {
        batches.sort_by_key(|record| record.batch);
        Evaluation {
            places: vec![Place::of(&header)],
            header,
            batches,
        }
    }

    /// Joins the shards of one evaluation, which must be all of its shards.
    pub(crate) fn join(parts: Vec<Evaluation>) -> Option<Self> {
        let header = Header {
            shard: Shard::WHOLE,
            ..parts.first()?.header.clone()
        };
        let mut places = Vec::new();
        let mut batches = Vec::new();
        for part in parts {
            places.extend(part.places);
            batches.extend(part.batches);
        }
        Some(Evaluation {
            places,
            ..Evaluation::new(header, batches)
        })
    }

    /// What it depends on.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where it ran, shard by shard.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Its batches, by index.
    pub fn batches(&self) -> &[BatchRecord] {
        &self.batches
    }

    /// Its images, by index.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.batches.iter().flat_map(|record| &record.rows)
    }

    /// Its figures.
    pub fn report(&self) -> Report {
        Report::new(self)
    }
}

impl Place {
    fn of(header: &Header) -> Self {
        Place {
            shard: header.shard.to_string(),
            machine: header.machine.clone(),
            threads: header.threads,
        }
    }
}
