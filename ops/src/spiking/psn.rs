//! The parallel spiking neuron (<https://arxiv.org/abs/2304.12760>).

use super::neuron::{NeuronTrace, scalar};
use super::{NeuronConfig, Surrogate};
use crate::start;
use tch::{Tensor, nn};

/// h = W x + b over the axis of time, s = (h >= 0). Names: `fc.weight` [T, T], `fc.bias` `[T]`, `act_func.alpha`.
#[derive(Debug)]
pub(super) struct Psn {
    weight: Tensor,
    bias: Tensor,
    alpha: Tensor,
    surrogate: Surrogate,
}

impl Psn {
    pub(super) fn new(p: &nn::Path, config: &NeuronConfig) -> Self {
        let steps = config.steps;
        let fc = p / "fc";
        Psn {
            weight: start::kaiming(&fc, "weight", &[steps, steps]),
            bias: fc.var("bias", &[steps], nn::Init::Const(-1.0)),
            alpha: scalar(&(p / "act_func"), "alpha", config.surrogate.alpha),
            surrogate: config.surrogate,
        }
    }

    pub(super) fn trace(&self, x: &Tensor, steps: i64) -> NeuronTrace {
        let flat = x.reshape([steps, -1]);
        let h = self.bias.unsqueeze(1).addmm(&self.weight, &flat);
        let alpha = if self.surrogate.trained {
            self.alpha.shallow_clone()
        } else {
            self.alpha.detach()
        };
        let mut shape = vec![-1];
        shape.extend(&x.size()[1..]);
        NeuronTrace {
            spikes: self.surrogate.fire(&h, &alpha).reshape(&shape),
            mem_pre: h.reshape(&shape),
            mem_post: None,
            others: Vec::new(),
        }
    }
}
