//! A layer of neurons.

use super::biophysical::{HodgkinHuxley, Izhikevich};
use super::clif::Clif;
use super::glif::Glif;
use super::hdlif::HdLif;
use super::integer::Integer;
use super::leaky::Leaky;
use super::psn::Psn;
use super::{NeuronConfig, NeuronKind};
use crate::work;
use std::fmt::Debug;
use tch::{Tensor, nn};

/// What a layer carries from one time step to the next; [`State::default`] is rest.
#[derive(Debug, Default)]
pub struct State {
    /// The potentials [B, ..] after the reset; none yet at rest.
    pub potential: Option<Tensor>,
    /// Further states by the neuron's own names for them, [B, ..] each.
    pub others: Vec<(&'static str, Tensor)>,
    /// Steps taken.
    pub step: usize,
}

impl State {
    /// A further state by name.
    pub(super) fn other(&self, name: &str) -> Option<&Tensor> {
        let found = self.others.iter().find(|(n, _)| *n == name);
        found.map(|(_, t)| t)
    }

    /// The potential, or `rest` everywhere in the shape of `x`.
    pub(super) fn potential_or(&self, x: &Tensor, rest: f64) -> Tensor {
        match &self.potential {
            Some(v) => v.shallow_clone(),
            None if rest == 0.0 => x.zeros_like(),
            None => x.full_like(rest),
        }
    }

    /// The same values outside of any gradient.
    pub fn detach(&self) -> State {
        State {
            potential: self.potential.as_ref().map(Tensor::detach),
            others: self.others.iter().map(|(n, t)| (*n, t.detach())).collect(),
            step: self.step,
        }
    }
}

/// What one step gives.
pub(super) struct Fired {
    /// Spikes [B, ..].
    pub spikes: Tensor,
    /// Potentials before the spike was taken from them.
    pub charged: Tensor,
}

/// Neurons whose steps follow one from another.
pub(super) trait Dynamics: Debug + Send {
    /// Takes the currents [B, ..] of one step and leaves the state after it.
    fn step(&self, x: &Tensor, state: &mut State) -> Fired;

    /// Every step of `x` [T * B, ..] as one kernel, where that exists and applies.
    fn fused(&self, _x: &Tensor, _steps: i64, _state: &State) -> Option<(Tensor, State)> {
        None
    }
}

#[derive(Debug)]
enum Body {
    Stepwise(Box<dyn Dynamics>),
    Parallel(Psn),
    Mixture(HdLif),
}

/// The values of every step, [T * B, ..] each.
#[derive(Debug)]
pub struct NeuronTrace {
    /// What was fired.
    pub spikes: Tensor,
    /// Potentials before firing.
    pub mem_pre: Tensor,
    /// Potentials carried on, where the neuron has a reset that is a step of its own.
    pub mem_post: Option<Tensor>,
    /// Further values by name, such as Izhikevich's `u`, time first.
    pub others: Vec<(&'static str, Tensor)>,
}

/// A layer of neurons. Names as in STEP's and BrainCog's state_dicts: `threshold`, `act_fun.alpha`, `w`, `k`, ..
///
/// `threshold` and `act_fun.alpha` count as parameters but never get a gradient, unless alpha is asked to learn.
#[derive(Debug)]
pub struct Neuron {
    name: String,
    body: Body,
}

impl Neuron {
    /// The layer at path `p`.
    ///
    /// # Panics
    /// When HD-LIF is not told its channels ([`NeuronConfig::input_dims`]).
    pub fn new(p: nn::Path, config: &NeuronConfig) -> Neuron {
        let name = p.components().collect::<Vec<_>>().join(".");
        let body = match config.kind {
            NeuronKind::Psn => Body::Parallel(Psn::new(&p, config)),
            NeuronKind::HdLif => Body::Mixture(HdLif::new(&p, config)),
            _ => Body::Stepwise(stepwise(&p, config)),
        };
        Neuron { name, body }
    }

    /// The path of the layer, by which its firing rate is reported.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Currents [T * B, ..], time slowest, to spikes of the same shape; the state begins at rest.
    pub fn forward(&self, x: &Tensor, steps: i64) -> Tensor {
        self.forward_from(x, steps, None).0
    }

    /// The same, going on from `state`, and the state after the last step.
    pub fn forward_from(&self, x: &Tensor, steps: i64, state: Option<State>) -> (Tensor, State) {
        let state = state.unwrap_or_default();
        let (spikes, state) = match &self.body {
            Body::Stepwise(dynamics) => match dynamics.fused(x, steps, &state) {
                Some(done) => done,
                None => {
                    let mut state = state;
                    let spikes = over_time(x, steps, |x_t| dynamics.step(x_t, &mut state).spikes);
                    (spikes, state)
                }
            },
            Body::Parallel(psn) => (psn.trace(x, steps).spikes, state),
            Body::Mixture(mixture) => {
                let seen = mixture.trace(x, steps, state.detach());
                (seen.spikes, state)
            }
        };
        work::neuron(&self.name, &spikes, steps);
        (spikes, state)
    }

    /// One step: currents [B, ..] to spikes. Steps one by one give what [`Neuron::forward`] gives at once.
    ///
    /// # Panics
    /// For PSN and HD-LIF, which have no single steps: ask [`NeuronConfig::stepwise`] before.
    pub fn step(&self, x: &Tensor, state: &mut State) -> Tensor {
        let Body::Stepwise(dynamics) = &self.body else {
            panic!("{}: this neuron looks at all time steps at once", self.name);
        };
        let spikes = match dynamics.fused(x, 1, state) {
            Some((spikes, after)) => {
                *state = after;
                spikes
            }
            None => dynamics.step(x, state).spikes,
        };
        work::neuron(&self.name, &spikes, 1);
        spikes
    }

    /// Every value of every step, from `state` on.
    pub fn trace(&self, x: &Tensor, steps: i64, state: State) -> NeuronTrace {
        match &self.body {
            Body::Stepwise(dynamics) => trace(dynamics.as_ref(), x, steps, state),
            Body::Parallel(psn) => psn.trace(x, steps),
            Body::Mixture(mixture) => mixture.trace(x, steps, state),
        }
    }
}

fn stepwise(p: &nn::Path, config: &NeuronConfig) -> Box<dyn Dynamics> {
    match config.kind {
        NeuronKind::Ilif | NeuronKind::Nilif => Box::new(Integer::new(p, config)),
        NeuronKind::Clif => Box::new(Clif::new(config)),
        NeuronKind::Glif => Box::new(Glif::new(p, config)),
        NeuronKind::Izhikevich => Box::new(Izhikevich::new(p, config)),
        NeuronKind::HodgkinHuxley => Box::new(HodgkinHuxley::new(p, config)),
        _ => Box::new(Leaky::new(p, config)),
    }
}

/// A 0-dim parameter at `p`.
pub(super) fn scalar(p: &nn::Path, name: &str, value: f64) -> Tensor {
    p.var(name, &[], nn::Init::Const(value))
}

/// [T * B, ..] as [T, B, ..].
pub(super) fn unfold(x: &Tensor, steps: i64) -> Tensor {
    let mut shape = vec![steps, -1];
    shape.extend(&x.size()[1..]);
    x.reshape(shape)
}

fn over_time(x: &Tensor, steps: i64, mut step: impl FnMut(&Tensor) -> Tensor) -> Tensor {
    let x = unfold(x, steps);
    let spikes: Vec<Tensor> = (0..steps).map(|t| step(&x.select(0, t))).collect();
    Tensor::cat(&spikes, 0)
}

pub(super) fn trace(
    dynamics: &dyn Dynamics,
    x: &Tensor,
    steps: i64,
    mut state: State,
) -> NeuronTrace {
    let (mut charged, mut kept) = (Vec::new(), Vec::new());
    let mut others: Vec<(&'static str, Vec<Tensor>)> = Vec::new();
    let spikes = over_time(x, steps, |x_t| {
        let fired = dynamics.step(x_t, &mut state);
        charged.push(fired.charged);
        kept.extend(state.potential.as_ref().map(Tensor::shallow_clone));
        for (name, t) in &state.others {
            match others.iter_mut().find(|(n, _)| n == name) {
                Some((_, seen)) => seen.push(t.shallow_clone()),
                None => others.push((name, vec![t.shallow_clone()])),
            }
        }
        fired.spikes
    });
    NeuronTrace {
        spikes,
        mem_pre: Tensor::cat(&charged, 0),
        mem_post: (kept.len() == charged.len()).then(|| Tensor::cat(&kept, 0)),
        others: others
            .into_iter()
            .map(|(name, seen)| (name, Tensor::cat(&seen, 0)))
            .collect(),
    }
}
