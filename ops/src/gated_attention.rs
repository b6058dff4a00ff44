//! Attention over all tokens whose heads are gated for every token, as one kernel that skips what is off.

use crate::grouped_attention::{Bias, Pattern, Tiles, applies, attend};
use crate::{Regions, work};
use tch::{Kind, Tensor};

/// Gates [B, N, heads] times the heads of softmax(scale q k^T + bias) v, side by side: [B, N, heads * E]; queries and
/// keys [B, heads, N, D], values [B, heads, N, E], bias [heads, N, N].
///
/// A query is computed in those heads only whose gate for it is not 0: the work is the share of (token, head) pairs
/// that are on. `None` where the kernel does not apply (elsewhere than on the CPU, kinds other than f32 and bf16,
/// gradients, traces); then [`crate::gate_heads`] of the dense attention is the definition.
pub fn gated_attention(
    [q, k, v]: [&Tensor; 3],
    gates: &Tensor,
    scale: f64,
    bias: Option<&Tensor>,
) -> Option<Tensor> {
    if !applies(&[q, k, v]) || gates.requires_grad() || bias.is_some_and(Tensor::requires_grad) {
        return None;
    }
    let (heads, tokens) = (q.size()[1], q.size()[2]);
    let on_map = |t: &Tensor| t.transpose(1, 2).unsqueeze(1);
    let gates = gates.to_kind(Kind::Float).unsqueeze(1);
    let bias = bias.map(|t| {
        let t = t.to_kind(Kind::Float).unsqueeze(0).unsqueeze(0);
        t.expand([q.size()[0], 1, -1, -1, -1], false)
    });
    let tiles = Tiles::from(Regions::whole([1, tokens]));
    let pattern = Pattern {
        queries: tiles,
        keys: tiles,
        index: None,
        scale,
        bias: bias.as_ref().map_or(Bias::None, Bias::Pairs),
        gates: Some(&gates),
    };
    if work::recording() {
        let pairs = on(&gates) * tokens as u64;
        work::attention(q, v, pairs, (q.size()[0] * heads * tokens * tokens) as u64);
    }
    Some(attend(&on_map(q), &on_map(k), &on_map(v), &pattern).squeeze_dim(1))
}

/// Pairs of a token and a head that are on.
pub(crate) fn on(gates: &Tensor) -> u64 {
    gates.count_nonzero(None::<i64>).int64_value(&[]) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gate_heads, softmax_attention};
    use proptest::prelude::*;
    use tch::Device;

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Gates of which about `share` are not 0.
    fn gates(shape: [i64; 3], share: f64) -> Tensor {
        let kept = Tensor::rand(shape, F32).lt(share).to_kind(Kind::Float);
        (Tensor::rand(shape, F32) + 0.5) * kept
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn heads_that_are_off_are_zero_and_the_others_as_defined(
            batch in 1i64..3, heads in 1i64..5, tokens in 1i64..70, dim in 1i64..40, value_dim in 1i64..40,
            share in 0.0f64..1.0, biased: bool,
        ) {
            tch::manual_seed(tokens * 64 + dim);
            let part = |width| Tensor::randn([batch, tokens, heads, width], F32).transpose(1, 2);
            let (q, k, v) = (part(dim), part(dim), part(value_dim));
            let gates = gates([batch, tokens, heads], share);
            let bias = Tensor::randn([heads, tokens, tokens], F32);
            let bias = biased.then_some(&bias);
            let composed = |kind: Kind| {
                let [q, k, v, gates] = [&q, &k, &v, &gates].map(|t| t.to_kind(kind).to_kind(Kind::Double));
                let bias = bias.map(|t| t.to_kind(Kind::Double));
                gate_heads(&softmax_attention(&q, &k, &v, 0.3, bias.as_ref()), &gates)
            };
            for (kind, allowed) in [(Kind::Float, 1e-5), (Kind::BFloat16, 3e-2)] {
                let [q, k, v, gates] = [&q, &k, &v, &gates].map(|t| t.to_kind(kind));
                let ours = gated_attention([&q, &k, &v], &gates, 0.3, bias).unwrap();
                prop_assert_eq!(ours.kind(), kind);
                let error = (ours.to_kind(Kind::Double) - composed(kind)).abs().max();
                prop_assert!(error.double_value(&[]) < allowed, "{:?}: {:?}", kind, error);
            }
        }
    }

    #[test]
    fn many_tokens_span_several_tiles_of_queries() {
        tch::manual_seed(5);
        let [q, k, v] = [0, 1, 2].map(|_| Tensor::randn([1, 2, 600, 8], F32));
        let gates = gates([1, 600, 2], 0.4);
        let ours = gated_attention([&q, &k, &v], &gates, 0.5, None).unwrap();
        let composed = gate_heads(&softmax_attention(&q, &k, &v, 0.5, None), &gates);
        assert!((ours - composed).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn the_work_is_the_share_that_is_on() {
        let [q, k, v] = [0, 1, 2].map(|_| Tensor::randn([2, 4, 10, 8], F32));
        let gates = Tensor::zeros([2, 10, 4], F32);
        let _ = gates.narrow(2, 1, 1).fill_(1.0);
        let (_, done) = work::record(|| gated_attention([&q, &k, &v], &gates, 0.5, None));
        let macs: u64 = done.contractions.iter().map(|c| c.macs).sum();
        let dense: u64 = done.contractions.iter().map(|c| c.dense).sum();
        assert_eq!(dense, 2 * 2 * 4 * 10 * 10 * 8);
        assert_eq!(macs * 4, dense);
    }

    #[test]
    fn gradients_and_double_precision_are_not_for_it() {
        let q = Tensor::randn([1, 1, 3, 4], F32);
        let gates = Tensor::ones([1, 3, 1], F32);
        let trained = q.shallow_clone().set_requires_grad(true);
        assert!(gated_attention([&trained, &q, &q], &gates, 0.5, None).is_none());
        let d = q.to_kind(Kind::Double);
        assert!(gated_attention([&d, &d, &d], &gates, 0.5, None).is_none());
    }
}
