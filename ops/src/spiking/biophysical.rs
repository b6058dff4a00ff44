//! Izhikevich's and Hodgkin's and Huxley's neurons, as BrainCog has them.

use super::firing::Firing;
use super::neuron::{Dynamics, Fired, State};
use super::{HodgkinHuxleyConfig, IzhikevichConfig, NeuronConfig};
use tch::{Tensor, nn};

/// v += dt (0.04 v^2 + 5 v - u + 140 + x); u += dt (a b v - a u) with the new v; s = (v > th); v = c and u += d where it
/// fires. Names: `threshold`, `act_fun.alpha`.
#[derive(Debug)]
pub(super) struct Izhikevich {
    config: IzhikevichConfig,
    firing: Firing,
}

impl Izhikevich {
    pub(super) fn new(p: &nn::Path, config: &NeuronConfig) -> Self {
        Izhikevich {
            config: config.izhikevich.clone(),
            firing: Firing::new(p, config),
        }
    }
}

impl Dynamics for Izhikevich {
    fn step(&self, x: &Tensor, state: &mut State) -> Fired {
        let IzhikevichConfig {
            abcd: [a, b, c, d],
            dt,
        } = self.config;
        let v = state.potential_or(x, 0.0);
        let u = state
            .other("u")
            .map_or_else(|| x.zeros_like(), Tensor::shallow_clone);
        let charged = &v + (&v * 0.04 * &v + &v * 5.0 - &u + 140.0 + x) * dt;
        let u = &u + (&charged * (a * b) - &u * a) * dt;
        let spikes = self.firing.fire(&charged);
        let fired = spikes.detach();
        state.potential = Some(&charged * (-&fired + 1) + &fired * c);
        state.others = vec![("u", u + fired * d)];
        state.step += 1;
        Fired { spikes, charged }
    }
}

/// The four equations; fires where the potential crosses the threshold upwards; no reset. Each row of currents is held
/// for `substeps` integration steps, and fires if any of them does. Names: `threshold`, `act_fun.alpha` (which nothing
/// reads: no gradient passes the spike).
#[derive(Debug)]
pub(super) struct HodgkinHuxley {
    config: HodgkinHuxleyConfig,
    firing: Firing,
}

/// Potential and gates.
struct Membrane {
    v: Tensor,
    m: Tensor,
    n: Tensor,
    h: Tensor,
}

impl HodgkinHuxley {
    pub(super) fn new(p: &nn::Path, config: &NeuronConfig) -> Self {
        HodgkinHuxley {
            config: config.hodgkin_huxley.clone(),
            firing: Firing::new(p, config),
        }
    }

    fn integrate(&self, membrane: &Membrane, x: &Tensor) -> Membrane {
        let Membrane { v, m, n, h } = membrane;
        let [g_na, g_k, g_l] = self.config.conductances;
        let [v_na, v_k, v_l] = self.config.potentials;
        let dt = self.config.dt;
        // (shift - scale v) / (exp(exponent - v / 10) - 1)
        let rate = |shift: f64, scale: f64, exponent: f64| {
            (v * -scale + shift) / ((v * -0.1 + exponent).exp() - 1.0)
        };
        let decay = |amplitude: f64, length: f64| (v / -length).exp() * amplitude;
        let advance = |gate: &Tensor, opens: Tensor, closes: Tensor| {
            gate + (opens * (-gate + 1.0) - closes * gate) * dt
        };
        let n = advance(n, rate(0.1, 0.01, 1.0), decay(0.125, 80.0));
        let m = advance(m, rate(2.5, 0.1, 2.5), decay(4.0, 18.0));
        let closes = ((v * -0.1 + 3.0).exp() + 1.0).reciprocal();
        let h = advance(h, decay(0.07, 20.0), closes);
        let sodium = m.pow_tensor_scalar(3) * g_na * &h * (v - v_na);
        let potassium = n.pow_tensor_scalar(4) * g_k * (v - v_k);
        let leak = (v - v_l) * g_l;
        let v = v + (x - sodium - potassium - leak) * dt / self.config.capacity;
        Membrane { v, m, n, h }
    }
}

impl Dynamics for HodgkinHuxley {
    fn step(&self, x: &Tensor, state: &mut State) -> Fired {
        let gate = |name, rest: f64| match state.other(name) {
            Some(t) => t.shallow_clone(),
            None => x.full_like(rest),
        };
        let mut membrane = Membrane {
            v: state.potential_or(x, 0.0),
            m: gate("m", 0.05),
            n: gate("n", 0.31),
            h: gate("h", 0.59),
        };
        let threshold = self.firing.threshold.detach();
        let mut spikes = x.zeros_like();
        for _ in 0..self.config.substeps {
            let next = self.integrate(&membrane, x);
            let below = membrane.v.lt_tensor(&threshold);
            let crossed = below.logical_and(&next.v.gt_tensor(&threshold));
            spikes = spikes.maximum(&crossed.to_kind(x.kind()));
            membrane = next;
        }
        let Membrane { v, m, n, h } = membrane;
        state.potential = Some(v.shallow_clone());
        state.others = vec![("m", m), ("n", n), ("h", h)];
        state.step += 1;
        Fired { spikes, charged: v }
    }
}
