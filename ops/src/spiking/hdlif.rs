//! HD-LIF of the Spiking Point Transformer: a gated mixture of four neurons.

use super::leaky::Leaky;
use super::neuron::{NeuronTrace, State, scalar, trace, unfold};
use super::{NeuronConfig, NeuronKind, Surrogate, SurrogateShape};
use crate::start;
use tch::{Tensor, nn};

/// Experts, in the order of their paths.
const EXPERTS: [NeuronKind; 4] = [
    NeuronKind::If,
    NeuronKind::Lif,
    NeuronKind::Plif,
    NeuronKind::Eif,
];

/// The mixed potential that fires, and the slope of its surrogate.
const FIRES_AT: f64 = 0.2;
const SLOPE: f64 = 4.0;

/// s = (sum over experts of gate_e v_e >= 0.2), where v_e are the experts' potentials after their resets, zeros replaced
/// by the threshold, and the gate weighs them from all steps of the input at once.
///
/// The gate reads the time-major rows of a batch as if they were image-major, as the official code does: right for one
/// image, a mixture of images otherwise. While gradients are recorded it is a softmax over all experts (training),
/// otherwise over the two best.
///
/// Names: `act_fun.alpha`, `experts.N.*`, `gate_MoE.weight` [4, T C, 1], `gate_MoE.bias` `[4]`.
#[derive(Debug)]
pub(super) struct HdLif {
    experts: Vec<Leaky>,
    weight: Tensor,
    bias: Tensor,
    threshold: f64,
    channels: i64,
    steps: i64,
}

/// [T * B, C, N] for the gate, and how to undo it.
struct Channelled {
    x: Tensor,
    swapped: bool,
}

impl HdLif {
    pub(super) fn new(p: &nn::Path, config: &NeuronConfig) -> Self {
        let channels = config.input_dims;
        let channels = channels.expect("HD-LIF needs NeuronConfig::input_dims, its channels");
        let _unread = scalar(&(p / "act_fun"), "alpha", config.surrogate.alpha);
        let sigmoid = Surrogate::new(SurrogateShape::Sigmoid);
        let expert = |(i, kind): (usize, &NeuronKind)| {
            let surrogate = match kind {
                NeuronKind::If => sigmoid.with_alpha(2.0),
                _ => sigmoid,
            };
            let of = NeuronConfig {
                detach: config.detach,
                ..NeuronConfig::new(*kind)
                    .threshold(config.threshold)
                    .tau(config.tau)
                    .surrogate(surrogate)
            };
            Leaky::new(&(p / "experts" / i), &of)
        };
        let gate = p / "gate_MoE";
        let shape = [EXPERTS.len() as i64, channels * config.steps, 1];
        HdLif {
            experts: EXPERTS.iter().enumerate().map(expert).collect(),
            weight: start::kaiming(&gate, "weight", &shape),
            bias: gate.zeros("bias", &shape[..1]),
            threshold: config.threshold,
            channels,
            steps: config.steps,
        }
    }

    fn channelled(&self, x: &Tensor) -> Channelled {
        let x = match x.dim() {
            2 => x.unsqueeze(-1),
            3 => x.shallow_clone(),
            _ => x.flatten(2, -1),
        };
        let swapped = x.size()[1] != self.channels;
        let x = if swapped { x.transpose(-2, -1) } else { x };
        assert_eq!(
            x.size()[1],
            self.channels,
            "the gate of these HD-LIF neurons is made for that many channels; choose another neuron for this model"
        );
        Channelled { x, swapped }
    }

    /// [B, 4, N].
    fn gate_logits(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let z = x.reshape([-1, self.steps * size[1], size[2]]);
        z.conv1d(&self.weight, Some(&self.bias), 1, 0, 1, 1)
    }

    fn gate(&self, logits: &Tensor) -> Tensor {
        if logits.requires_grad() {
            return logits.softmax(-2, None);
        }
        let (values, indices) = logits.topk(2, -2, true, true);
        let best = logits.zeros_like().scatter(-2, &indices, &values);
        let open = best.masked_fill(&best.eq(0.0), f64::NEG_INFINITY);
        open.softmax(-2, None)
    }

    /// Potentials of the experts are `expert_mem_post` [T, B, 4, C, N], the gate's `gate_logits` [B, 4, N].
    pub(super) fn trace(&self, input: &Tensor, steps: i64, start: State) -> NeuronTrace {
        let Channelled { x, swapped } = self.channelled(input);
        let logits = self.gate_logits(&x);
        let potentials: Vec<Tensor> = self
            .experts
            .iter()
            .map(|expert| {
                let seen = trace(expert, &x, steps, start.detach());
                let potential = seen.mem_post.unwrap_or(seen.mem_pre);
                unfold(&potential, steps)
            })
            .collect();
        let potentials = Tensor::stack(&potentials, 2);
        let held = potentials.masked_fill(&potentials.eq(0.0), self.threshold);
        let gate = self.gate(&logits).unsqueeze(2).unsqueeze(0);
        let mixed = (gate * held).sum_dim_intlist([2i64].as_slice(), false, None);
        let surrogate = Surrogate::new(SurrogateShape::Sigmoid).with_alpha(SLOPE);
        let z = &mixed - FIRES_AT;
        let spikes = surrogate.fire(&z, &surrogate.alpha_beside(&z));
        let restored = |t: Tensor| {
            let t = t.flatten(0, 1);
            let t = if swapped { t.transpose(-2, -1) } else { t };
            let mut shape = vec![-1];
            shape.extend(&input.size()[1..]);
            t.reshape(shape)
        };
        NeuronTrace {
            spikes: restored(spikes),
            mem_pre: restored(mixed),
            mem_post: None,
            others: vec![("expert_mem_post", potentials), ("gate_logits", logits)],
        }
    }
}
