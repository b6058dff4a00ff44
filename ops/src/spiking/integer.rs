//! I-LIF and NI-LIF: spikes that count.

use super::neuron::{Dynamics, Fired, State, scalar};
use super::surrogate::zero;
use super::{NeuronConfig, NeuronKind};
use tch::{Tensor, nn};

/// Leaky, with s = round(clamp(v / th, 0, D)) (I-LIF) or round(clamp(v / th, 0, D) / D) (NI-LIF), half to even, and the
/// soft reset v -= s th. Straight through inside the clamp. Names: `threshold`, `act_fun.alpha` (which nothing reads).
#[derive(Debug)]
pub(super) struct Integer {
    tau: f64,
    levels: f64,
    normalised: bool,
    threshold: Tensor,
}

impl Integer {
    pub(super) fn new(p: &nn::Path, config: &NeuronConfig) -> Self {
        let _unread = scalar(&(p / "act_fun"), "alpha", config.surrogate.alpha);
        Integer {
            tau: config.tau,
            levels: config.levels,
            normalised: config.kind == NeuronKind::Nilif,
            threshold: scalar(p, "threshold", config.threshold),
        }
    }
}

impl Dynamics for Integer {
    fn step(&self, x: &Tensor, state: &mut State) -> Fired {
        let v = state.potential_or(x, 0.0);
        let charged = &v + (x - &v) / self.tau;
        let threshold = self.threshold.detach();
        let level = (&charged / &threshold).clamp(0.0, self.levels);
        let level = if self.normalised {
            level / self.levels
        } else {
            level
        };
        let whole = level.detach().round();
        let spikes = if level.requires_grad() {
            &whole + zero(&level)
        } else {
            whole.shallow_clone()
        };
        state.potential = Some(&charged - whole * threshold);
        state.step += 1;
        Fired { spikes, charged }
    }
}
