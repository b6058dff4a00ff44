//! Head routing: which heads of an attention are on for a token, and how much each counts (mixture-of-head attention).
//!
//! Source: "MoH: Multi-Head Attention as Mixture-of-Head Attention", arXiv 2410.11842; official code SkyworkAI/MoH. Where
//! they differ the code is followed: the gates of the heads that are on are renormalised, and scaled by their number.
//!
//! Any attention can take it: make its heads, multiply them by the gates ([`gate_heads`]), project. That form computes
//! every head for every token, as the official code does: which token is on in which head is data, so that skipping needs
//! ragged groups, which tensor algebra has not. The kernels behind [`crate::gated_attention`] and
//! [`crate::AggregatedAttention`] have them: they skip every pair of a token and a head that is off.

use crate::Linear;
use crate::taps::{self, Tap};
use crate::work::{self, Site};
use tch::{Kind, Tensor, nn};

/// Heads of a [`HeadRouter`]. The shared ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRouting {
    /// All heads.
    pub heads: i64,
    /// Heads that are on for every token.
    pub shared: i64,
    /// Heads among the others that are on for a token: those with the greatest scores.
    pub active: i64,
}

impl HeadRouting {
    /// Heads that tokens choose from; none where none are active.
    fn routed(&self) -> i64 {
        match self.active {
            0 => 0,
            _ => self.heads - self.shared,
        }
    }
}

/// The gates of heads, from the tokens that the attention reads.
///
/// Names, linear layers without bias, each only where it says something: `wg` [routed, C], `wg_0` [2, C] for the balance
/// of shared and routed heads, `wg_1` [shared, C].
#[derive(Debug)]
pub struct HeadRouter {
    routed: Option<Linear>,
    balance: Option<Linear>,
    shared: Option<Linear>,
    routing: HeadRouting,
    gates: Tap,
    mask: Tap,
    site: Site,
}

impl HeadRouter {
    /// A router of tokens of `width` at path `p`.
    pub fn new(p: &nn::Path, width: i64, routing: HeadRouting) -> Self {
        let HeadRouting { shared, .. } = routing;
        let routed = routing.routed();
        let layer = |name: &str, out| Linear::new(p / name, width, out, false);
        HeadRouter {
            routed: (routed > 0).then(|| layer("wg", routed)),
            balance: (routed > 0 && shared > 0).then(|| layer("wg_0", 2)),
            shared: (shared > 1).then(|| layer("wg_1", shared)),
            routing,
            site: Site::at(p),
            gates: Tap::new(p, "gates"),
            mask: Tap::new(p, "route_mask"),
        }
    }

    /// Tokens [.., C] to gates [.., heads].
    pub fn gates(&self, x: &Tensor) -> Tensor {
        let logits: Vec<Tensor> = self.layers().map(|layer| layer.forward(x)).collect();
        if logits.is_empty() {
            return x.narrow(-1, 0, 1).ones_like();
        }
        self.gates_of(&Tensor::cat(&logits, -1))
    }

    /// The same from the outputs of [`HeadRouter::layers`] side by side, for callers who make them with other projections.
    pub fn gates_of(&self, logits: &Tensor) -> Tensor {
        let mut at = 0;
        let mut take = |width: i64| {
            at += width;
            logits.narrow(-1, at - width, width)
        };
        let HeadRouting { shared, active, .. } = self.routing;
        let routed = self
            .routed
            .as_ref()
            .map(|_| self.routed_gates(&take(self.routing.routed()), active));
        let balance = self.balance.as_ref().map(|_| softmax(&take(2)) * 2.0);
        let shared_gates = match (&self.shared, shared) {
            (Some(_), _) => Some(softmax(&take(shared)) * shared as f64),
            (None, 1) => Some(logits.narrow(-1, 0, 1).ones_like()),
            (None, _) => None,
        };
        let gates = match (shared_gates, routed, balance) {
            (Some(s), Some(r), Some(a)) => {
                Tensor::cat(&[s * a.narrow(-1, 0, 1), r * a.narrow(-1, 1, 1)], -1)
            }
            (Some(gates), ..) | (_, Some(gates), _) => gates,
            _ => logits.shallow_clone(),
        };
        self.gates.see(&gates);
        work::heads(&self.site, &gates);
        gates
    }

    /// softmax, the greatest `active` kept and brought to the sum `active`, the others zero.
    fn routed_gates(&self, logits: &Tensor, active: i64) -> Tensor {
        let (kept, index) = softmax(logits).topk(active, -1, true, false);
        let sum = kept.sum_dim_intlist(-1, true, None::<Kind>);
        let gates = kept / sum.clamp_min(epsilon(logits.kind())) * active as f64;
        let off = logits.zeros_like();
        if taps::recording() {
            self.mask.see(&off.scatter(-1, &index, &gates.ones_like()));
        }
        off.scatter(-1, &index, &gates)
    }

    /// The layers that read the tokens: routed, balance, shared; those that exist.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        [&self.routed, &self.balance, &self.shared]
            .into_iter()
            .flatten()
    }
}

/// Heads [B, n, N, D] and gates [B, N, n] to the gated heads side by side, [B, N, n * D].
pub fn gate_heads(heads: &Tensor, gates: &Tensor) -> Tensor {
    (heads.transpose(1, 2) * gates.unsqueeze(-1)).flatten(2, 3)
}

fn softmax(x: &Tensor) -> Tensor {
    x.softmax(-1, None::<Kind>)
}

/// The spacing of numbers above 1.
fn epsilon(kind: Kind) -> f64 {
    match kind {
        Kind::Double => f64::EPSILON,
        Kind::BFloat16 => 2f64.powi(-7),
        Kind::Half => 2f64.powi(-10),
        _ => f32::EPSILON.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SelfAttention;
    use tch::Device;

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn router(routing: HeadRouting, deviation: f64) -> (nn::VarStore, HeadRouter) {
        tch::manual_seed(7);
        let mut vs = nn::VarStore::new(Device::Cpu);
        let router = HeadRouter::new(&vs.root(), 12, routing);
        vs.double();
        tch::no_grad(|| {
            vs.variables()
                .values_mut()
                .for_each(|t| drop(t.normal_(0.0, deviation)))
        });
        (vs, router)
    }

    fn routings() -> [HeadRouting; 5] {
        [(3, 3, 0), (4, 2, 2), (8, 1, 3), (6, 0, 2), (12, 4, 5)].map(|(heads, shared, active)| {
            HeadRouting {
                heads,
                shared,
                active,
            }
        })
    }

    fn values(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t).unwrap()
    }

    /// The definition for one token, from the logits of its three layers.
    fn naive(routing: HeadRouting, [routed, balance, shared]: [Vec<f64>; 3]) -> Vec<f64> {
        let softmax = |x: &[f64]| {
            let sum: f64 = x.iter().map(|v| v.exp()).sum();
            x.iter().map(|v| v.exp() / sum).collect::<Vec<_>>()
        };
        let (hs, k) = (routing.shared as usize, routing.active as usize);
        let mut gates = match hs {
            1 => vec![1.0],
            _ => softmax(&shared).iter().map(|s| s * hs as f64).collect(),
        };
        let scores = softmax(&routed);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let on = &order[..k.min(order.len())];
        let sum: f64 = on.iter().map(|i| scores[*i]).sum();
        let routed: Vec<f64> = (0..scores.len())
            .map(|i| {
                if on.contains(&i) {
                    scores[i] / sum * k as f64
                } else {
                    0.0
                }
            })
            .collect();
        if !balance.is_empty() {
            let a = softmax(&balance);
            gates.iter_mut().for_each(|g| *g *= 2.0 * a[0]);
            gates.extend(routed.iter().map(|r| r * 2.0 * a[1]));
        } else {
            gates.extend(routed);
        }
        gates
    }

    #[test]
    fn gates_are_those_of_the_definition() {
        for routing in routings() {
            let (_vs, router) = router(routing, 1.0);
            let x = Tensor::randn([2, 3, 12], F64);
            let gates = router.gates(&x);
            assert_eq!(gates.size(), [2, 3, routing.heads]);
            for (b, n) in [(0, 0), (1, 2), (0, 1)] {
                let token = x.get(b).get(n);
                let logits = [&router.routed, &router.balance, &router.shared].map(|layer| {
                    layer
                        .as_ref()
                        .map_or_else(Vec::new, |l| values(&l.forward(&token)))
                });
                let ours = values(&gates.get(b).get(n));
                for (a, b) in ours.iter().zip(naive(routing, logits)) {
                    assert!((a - b).abs() < 1e-12, "{routing:?}: {ours:?}");
                }
            }
        }
    }

    #[test]
    fn without_preferences_active_heads_count_as_one() {
        for routing in routings() {
            let (_vs, router) = router(routing, 0.0);
            let x = Tensor::randn([1, 2, 12], F64);
            let gates = values(&router.gates(&x).flatten(0, -1));
            let on = gates.iter().filter(|g| (**g - 1.0).abs() < 1e-12).count();
            let off = gates.iter().filter(|g| **g == 0.0).count();
            assert_eq!(on as i64, 2 * (routing.shared + routing.active));
            assert_eq!(on + off, gates.len());
        }
    }

    #[test]
    fn a_vision_transformer_takes_it() {
        let all = HeadRouting {
            heads: 3,
            shared: 3,
            active: 0,
        };
        let (mut vs, router) = router(all, 0.0);
        let attention = SelfAttention::new(&vs.root(), 12, 3, true);
        vs.double();
        let x = Tensor::randn([2, 5, 12], F64);
        let plain = attention.mix(&x);
        let error = (attention.mix_gated(&x, &router.gates(&x)) - &plain).abs();
        assert!(error.max().double_value(&[]) < 1e-12);
        let first = Tensor::from_slice(&[1.0, 0.0, 0.0]).expand([2, 5, 3], false);
        let gated = attention.mix_gated(&x, &first);
        assert!(gated.narrow(2, 0, 4).equal(&plain.narrow(2, 0, 4)));
        assert_eq!(gated.narrow(2, 4, 8).abs().max().double_value(&[]), 0.0);
    }
}
