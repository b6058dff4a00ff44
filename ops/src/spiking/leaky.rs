//! IF, LIF, PLIF, KLIF and EIF: one potential, one threshold, a hard reset.

use super::firing::Firing;
use super::fused::{self, Charge};
use super::neuron::{Dynamics, Fired, State, scalar};
use super::{NeuronConfig, NeuronKind};
use tch::{Tensor, nn};

/// How a current moves the potential.
#[derive(Debug)]
enum Integration {
    /// v += x.
    Sum,
    /// v += (x - v) / tau.
    Leak(f64),
    /// v += (x - v) sigmoid(w).
    LearntLeak(Tensor),
    /// v += (x - v) / tau; v = relu(k v).
    Rectified { tau: f64, k: Tensor },
    /// v += (x - v + dT exp((v - th_rh) / dT)) / tau.
    Exponential {
        tau: f64,
        sharpness: f64,
        rheobase: f64,
    },
}

/// Names: `threshold`, `act_fun.alpha`, and `w` (PLIF) or `k` (KLIF). EIF's constant buffers are not kept.
#[derive(Debug)]
pub(super) struct Leaky {
    integration: Integration,
    firing: Firing,
    reset: f64,
    detach: bool,
}

impl Leaky {
    pub(super) fn new(p: &nn::Path, config: &NeuronConfig) -> Self {
        let tau = config.tau;
        let integration = match config.kind {
            NeuronKind::If => Integration::Sum,
            NeuronKind::Plif => Integration::LearntLeak(scalar(p, "w", -(tau - 1.0).ln())),
            NeuronKind::Klif => Integration::Rectified {
                tau,
                k: scalar(p, "k", 1.0),
            },
            NeuronKind::Eif => Integration::Exponential {
                tau,
                // The official buffers are single precision.
                sharpness: f64::from(config.exponential[0] as f32),
                rheobase: f64::from(config.exponential[1] as f32),
            },
            _ => Integration::Leak(tau),
        };
        Leaky {
            integration,
            firing: Firing::new(p, config),
            reset: config.reset.unwrap_or(0.0),
            detach: config.detach,
        }
    }

    fn charge(&self, v: &Tensor, x: &Tensor) -> Tensor {
        match &self.integration {
            Integration::Sum => v + x,
            Integration::Leak(tau) => v + (x - v) / *tau,
            Integration::LearntLeak(w) => v + (x - v) * w.sigmoid(),
            Integration::Rectified { tau, k } => ((v + (x - v) / *tau) * k).relu(),
            Integration::Exponential {
                tau,
                sharpness,
                rheobase,
            } => {
                let rise = ((v - *rheobase) / *sharpness).exp() * *sharpness;
                v + (x - v + rise) / *tau
            }
        }
    }

    /// The kernel's form of this integration, and what it must read from the weights.
    fn kernel(&self) -> Option<Charge> {
        match &self.integration {
            Integration::Sum => Some(Charge::Sum),
            Integration::Leak(tau) => Some(Charge::Leak { tau: *tau as f32 }),
            Integration::LearntLeak(w) => Some(Charge::Rate {
                rate: fused::number(&w.sigmoid()),
            }),
            Integration::Rectified { .. } | Integration::Exponential { .. } => None,
        }
    }
}

impl Dynamics for Leaky {
    fn step(&self, x: &Tensor, state: &mut State) -> Fired {
        let v = state.potential_or(x, self.reset);
        let v = if self.detach { v.detach() } else { v };
        let charged = self.charge(&v, x);
        let spikes = self.firing.fire(&charged);
        let silenced = &charged * (-spikes.detach() + 1);
        let kept = if self.reset == 0.0 {
            silenced
        } else {
            silenced + spikes.detach() * self.reset
        };
        state.potential = Some(kept);
        state.step += 1;
        Fired { spikes, charged }
    }

    fn fused(&self, x: &Tensor, steps: i64, state: &State) -> Option<(Tensor, State)> {
        let v = state.potential.as_ref();
        if self.reset != 0.0 || !self.firing.surrogate.binary() || !fused::applies(x, steps, v) {
            return None;
        }
        let layer = fused::Layer {
            charge: self.kernel()?,
            threshold: fused::number(&self.firing.threshold),
            inclusive: self.firing.surrogate.fires_at_threshold(),
        };
        let (spikes, potential) = fused::fire(x, steps, v, layer);
        let state = State {
            potential: Some(potential),
            others: Vec::new(),
            step: state.step + steps as usize,
        };
        Some((spikes, state))
    }
}
