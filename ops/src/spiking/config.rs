//! Which neuron, and with which constants: plain data.

use super::{Surrogate, SurrogateShape};
use std::fmt;
use std::str::FromStr;

/// Which dynamics. v is the potential, x the current, th the threshold, s the spike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeuronKind {
    /// Integrate and fire: v += x; hard reset.
    If,
    /// Leaky: v += (x - v) / tau; hard reset. STEP's: fires at v >= th.
    Lif,
    /// The same as BrainCog has it: fires at v > th, th 0.5.
    LifBrainCog,
    /// Leaky with a learnt rate: v += (x - v) * sigmoid(w).
    Plif,
    /// Exponential: v += (x - v + dT exp((v - th_rh) / dT)) / tau; reset to -0.1.
    Eif,
    /// Leaky, integer spikes round(clamp(v / th, 0, D)); soft reset v -= s th.
    Ilif,
    /// Leaky, spikes round(clamp(v / th, 0, D) / D); soft reset. As STEP's code has it: with D = 2 spikes are binary.
    Nilif,
    /// Leaky, then v = relu(k v) with a learnt k; hard reset.
    Klif,
    /// Complementary LIF: a second state strengthens the reset. Has no threshold of its own in a state_dict.
    Clif,
    /// Gated LIF: every constant of every step is learnt.
    Glif,
    /// Parallel: one matrix over time, no reset, no state.
    Psn,
    /// A mixture of IF, LIF, PLIF and EIF, weighed by a learnt gate.
    HdLif,
    /// Izhikevich's two equations.
    Izhikevich,
    /// Hodgkin and Huxley's four.
    HodgkinHuxley,
}

const KINDS: [(&str, NeuronKind); 14] = [
    ("if", NeuronKind::If),
    ("lif", NeuronKind::Lif),
    ("lif-braincog", NeuronKind::LifBrainCog),
    ("plif", NeuronKind::Plif),
    ("eif", NeuronKind::Eif),
    ("ilif", NeuronKind::Ilif),
    ("nilif", NeuronKind::Nilif),
    ("klif", NeuronKind::Klif),
    ("clif", NeuronKind::Clif),
    ("glif", NeuronKind::Glif),
    ("psn", NeuronKind::Psn),
    ("hdlif", NeuronKind::HdLif),
    ("izhikevich", NeuronKind::Izhikevich),
    ("hh", NeuronKind::HodgkinHuxley),
];

impl fmt::Display for NeuronKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(_, kind)| kind == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// A text that names no neuron.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no neuron `{0}`; there are {names}", names = KINDS.map(|(name, _)| name).join(", "))]
pub struct UnknownNeuron(String);

impl FromStr for NeuronKind {
    type Err = UnknownNeuron;

    fn from_str(text: &str) -> Result<Self, UnknownNeuron> {
        let found = KINDS.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, kind)| *kind)
            .ok_or_else(|| UnknownNeuron(text.to_owned()))
    }
}

/// A neuron layer as data: what [`super::Neuron::new`] builds.
#[derive(Debug, Clone, PartialEq)]
pub struct NeuronConfig {
    /// The dynamics.
    pub kind: NeuronKind,
    /// th, before any weights are loaded.
    pub threshold: f64,
    /// Membrane time constant, in time steps.
    pub tau: f64,
    /// How gradients pass the spike, and whether v = th fires.
    pub surrogate: Surrogate,
    /// Time steps, for the neurons that have parameters of each (GLIF, PSN, HD-LIF).
    pub steps: i64,
    /// Channels, for HD-LIF's gate.
    pub input_dims: Option<i64>,
    /// Largest spike D of I-LIF and NI-LIF.
    pub levels: f64,
    /// Potential that a hard reset leaves: 0, EIF -0.1; CLIF resets softly where there is none.
    pub reset: Option<f64>,
    /// Whether no gradient passes from one step to the next through the potential (BrainCog's `mem_detach`): STEP's IF
    /// has it so, the others not.
    pub detach: bool,
    /// EIF's sharpness dT and rheobase threshold th_rh.
    pub exponential: [f64; 2],
    /// Whether CLIF divides its current by tau.
    pub decay_input: bool,
    /// GLIF's gates.
    pub glif: GlifConfig,
    /// Izhikevich's constants.
    pub izhikevich: IzhikevichConfig,
    /// Hodgkin's and Huxley's constants.
    pub hodgkin_huxley: HodgkinHuxleyConfig,
}

/// GLIF's start values, before their logit is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct GlifConfig {
    /// Of alpha (exponential or linear leak), beta (gated current) and gamma (hard or soft reset).
    pub gates: [f64; 3],
    /// tau, Vth and conduct; leak begins at Vth / 2T.
    pub values: [f64; 3],
    /// Gates are 0 or 1 by the sign of what is stored, else its sigmoid.
    pub static_gate: bool,
}

/// Izhikevich, "Simple model of spiking neurons", 2003; constants as in BrainCog's `IzhNode`.
#[derive(Debug, Clone, PartialEq)]
pub struct IzhikevichConfig {
    /// a, b, c, d. BrainCog's d is -2 where the paper's tonic bursting has 2.
    pub abcd: [f64; 4],
    /// Length of a step.
    pub dt: f64,
}

/// Hodgkin and Huxley, 1952, potentials relative to rest as in BrainCog's `HHNode`.
#[derive(Debug, Clone, PartialEq)]
pub struct HodgkinHuxleyConfig {
    /// Conductances gNa, gK and gl, mS/cm^2.
    pub conductances: [f64; 3],
    /// Reversal potentials VNa, VK and Vl, mV.
    pub potentials: [f64; 3],
    /// Capacity of the membrane, uF/cm^2.
    pub capacity: f64,
    /// Length of an integration step, ms.
    pub dt: f64,
    /// Integration steps for each row of currents.
    pub substeps: usize,
}

impl Default for GlifConfig {
    fn default() -> Self {
        GlifConfig {
            gates: [0.6, 0.8, 0.6],
            values: [0.25, 0.5, 0.5],
            static_gate: true,
        }
    }
}

impl Default for IzhikevichConfig {
    fn default() -> Self {
        IzhikevichConfig {
            abcd: [0.02, 0.2, -55.0, -2.0],
            dt: 1.0,
        }
    }
}

impl Default for HodgkinHuxleyConfig {
    /// The squid axon of the paper.
    fn default() -> Self {
        HodgkinHuxleyConfig {
            conductances: [120.0, 36.0, 0.3],
            potentials: [115.0, -12.0, 10.613],
            capacity: 1.0,
            dt: 0.05,
            substeps: 1,
        }
    }
}

impl NeuronConfig {
    /// This kind with the constants of its class.
    pub fn new(kind: NeuronKind) -> Self {
        use NeuronKind::*;
        let surrogate = match kind {
            If | Izhikevich | HodgkinHuxley => SurrogateShape::Atan,
            LifBrainCog => SurrogateShape::QuadraticGate,
            Clif => SurrogateShape::Rectangle,
            Glif => SurrogateShape::Window,
            _ => SurrogateShape::Sigmoid,
        };
        let alpha = if kind == Psn {
            2.0
        } else {
            Surrogate::new(surrogate).alpha
        };
        NeuronConfig {
            kind,
            threshold: match kind {
                If | LifBrainCog | HdLif => 0.5,
                HodgkinHuxley => 20.0,
                _ => 1.0,
            },
            tau: 2.0,
            surrogate: Surrogate::new(surrogate).with_alpha(alpha),
            steps: 4,
            input_dims: None,
            levels: 2.0,
            reset: match kind {
                Eif => Some(-0.1),
                Clif => None,
                _ => Some(0.0),
            },
            detach: kind == If,
            exponential: [1.0, 0.8],
            decay_input: false,
            glif: GlifConfig::default(),
            izhikevich: IzhikevichConfig::default(),
            hodgkin_huxley: HodgkinHuxleyConfig::default(),
        }
    }

    /// STEP's LIF: v >= 1, tau 2.
    pub fn lif() -> Self {
        NeuronConfig::new(NeuronKind::Lif)
    }

    /// BrainCog's LIF: v > 0.5, tau 2.
    pub fn lif_braincog() -> Self {
        NeuronConfig::new(NeuronKind::LifBrainCog)
    }

    /// By name: `lif`, `plif`, `eif`, ..
    pub fn named(name: &str) -> Result<Self, UnknownNeuron> {
        Ok(NeuronConfig::new(name.parse()?))
    }

    /// The same with another threshold. PSN, GLIF and CLIF have none to set and stay as they are.
    pub fn threshold(self, threshold: f64) -> Self {
        match self.kind {
            NeuronKind::Psn | NeuronKind::Glif | NeuronKind::Clif => self,
            _ => NeuronConfig { threshold, ..self },
        }
    }

    /// The same with another time constant, in steps. Neurons without one ignore it.
    pub fn tau(self, tau: f64) -> Self {
        NeuronConfig { tau, ..self }
    }

    /// The same with another surrogate.
    pub fn surrogate(self, surrogate: Surrogate) -> Self {
        NeuronConfig { surrogate, ..self }
    }

    /// The same for this many time steps: what GLIF, PSN and HD-LIF must know.
    pub fn steps(self, steps: i64) -> Self {
        NeuronConfig { steps, ..self }
    }

    /// The same for this many channels: what HD-LIF must know.
    pub fn input_dims(self, channels: i64) -> Self {
        NeuronConfig {
            input_dims: Some(channels),
            ..self
        }
    }

    /// Whether steps can be taken one at a time: PSN and HD-LIF look at the whole time at once.
    pub fn stepwise(&self) -> bool {
        !matches!(self.kind, NeuronKind::Psn | NeuronKind::HdLif)
    }
}

impl FromStr for NeuronConfig {
    type Err = UnknownNeuron;

    fn from_str(text: &str) -> Result<Self, UnknownNeuron> {
        NeuronConfig::named(text)
    }
}

impl fmt::Display for NeuronConfig {
    /// The name of its kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}
