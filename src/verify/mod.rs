//! Parity: a record says what a reference model computed from formula weights; the zoo's model must compute the same.
//!
//! A record is a pair `NAME.json` (salt, gain, input shape, state_dict, outputs) and `NAME.safetensors` (float64 values:
//! `logits` whole, every other output as 512 evenly spaced elements). Anybody can make one from a Python model;
//! `docs/records.md` says how.
//!
//! Records of another `kind` (`neuron`, `encoding`, `events`) keep all their values, and name their own inputs;
//! `energy` counts the work of another record's model.

mod check;
mod encoding;
mod energy;
mod events;
mod neuron;
mod outcome;
mod record;
mod rule;
mod spiking;

pub use check::verify;
pub use outcome::{Failure, Form, Outcome, OutputError};
pub use record::{Record, RecordError, StateEntry, find_records};
pub use rule::Check;
