//! Spiking neurons: elementwise dynamics over time, with surrogate gradients.
//!
//! A neuron layer takes currents [T * B, ..], time slowest (row t * B + b), and gives spikes of the same shape. For each
//! step it integrates, fires and resets; its state begins at rest in every call, unless it is carried along.
//! Definitions follow STEP (<https://github.com/Fancyssc/STEP>, `cls/models/utils/node.py`) and BrainCog
//! (<https://github.com/BrainCog-X/Brain-Cog>, `braincog/base/node/node.py`), whose state_dict names are kept.

mod biophysical;
mod clif;
mod config;
mod encoding;
mod firing;
mod fused;
mod glif;
mod hdlif;
mod integer;
mod leaky;
mod neuron;
mod psn;
mod surrogate;
#[cfg(test)]
mod tests;

pub use config::{
    GlifConfig, HodgkinHuxleyConfig, IzhikevichConfig, NeuronConfig, NeuronKind, UnknownNeuron,
};
pub use encoding::{Encoding, UnknownEncoding, rate_from, time_major};
pub use neuron::{Neuron, NeuronTrace, State};
pub use surrogate::{Surrogate, SurrogateShape, UnknownSurrogate};
