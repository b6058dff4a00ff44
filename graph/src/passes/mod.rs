//! Rewriting: each pass leaves what the graph computes alone.

mod dead;

pub use dead::remove_dead;
