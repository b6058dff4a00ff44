//! Gated LIF (<https://arxiv.org/abs/2210.13768>): every constant of every step is a parameter.

use super::neuron::{Dynamics, Fired, State, scalar};
use super::{NeuronConfig, Surrogate};
use tch::{Tensor, nn};

/// u = (1 - al (1 - tau_t)) u (1 - ga o) - (1 - al) leak_t + x (1 - be (1 - conduct_t)) - (1 - ga) reVth_t o; o = (u > Vth_t).
///
/// Names, all stored as logits: `alpha`, `beta`, `gamma` (0-dim), `tau`, `Vth`, `leak`, `conduct`, `reVth` (`[T]`).
#[derive(Debug)]
pub(super) struct Glif {
    gates: [Tensor; 3],
    static_gate: bool,
    tau: Tensor,
    vth: Tensor,
    leak: Tensor,
    conduct: Tensor,
    revth: Tensor,
    surrogate: Surrogate,
}

fn logit(p: f64) -> f64 {
    -(1.0 / p - 1.0).ln()
}

impl Glif {
    pub(super) fn new(p: &nn::Path, config: &NeuronConfig) -> Self {
        let [tau, vth, conduct] = config.glif.values;
        let steps = config.steps;
        let each =
            |name: &str, value: f64| p.var(name, &[steps], nn::init::Init::Const(logit(value)));
        // The official code stores the negated logit, so that gates above one half begin closed.
        let gate = |name: &str, g: f64| scalar(p, name, -logit((g - 0.5) * 0.5 + 0.5));
        let [alpha, beta, gamma] = config.glif.gates;
        Glif {
            gates: [
                gate("alpha", alpha),
                gate("beta", beta),
                gate("gamma", gamma),
            ],
            static_gate: config.glif.static_gate,
            tau: each("tau", tau),
            vth: each("Vth", vth),
            leak: each("leak", vth / (steps as f64 * 2.0)),
            conduct: each("conduct", conduct),
            revth: each("reVth", vth),
            surrogate: config.surrogate,
        }
    }

    fn gate(&self, which: usize) -> Tensor {
        let stored = &self.gates[which];
        if self.static_gate {
            stored.detach().gt(0.0).to_kind(stored.kind())
        } else {
            stored.sigmoid()
        }
    }
}

impl Dynamics for Glif {
    fn step(&self, x: &Tensor, state: &mut State) -> Fired {
        let at = |t: &Tensor| t.select(0, state.step as i64).sigmoid();
        let [al, be, ga] = [0, 1, 2].map(|i| self.gate(i));
        let inverse = |t: &Tensor| -t + 1;
        let current = x * inverse(&(&be * inverse(&at(&self.conduct))));
        let leak = inverse(&al) * at(&self.leak);
        let charged = match (&state.potential, state.other("o")) {
            (Some(u), Some(o)) => {
                let decay = inverse(&(&al * inverse(&at(&self.tau))));
                let kept = decay * u * inverse(&(&ga * o)) - leak;
                kept + current - inverse(&ga) * at(&self.revth) * o
            }
            _ => current - leak,
        };
        let z = &charged - at(&self.vth);
        let spikes = self.surrogate.fire(&z, &self.surrogate.alpha_beside(&z));
        state.potential = Some(charged.shallow_clone());
        state.others = vec![("o", spikes.shallow_clone())];
        state.step += 1;
        Fired { spikes, charged }
    }
}
