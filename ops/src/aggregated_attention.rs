//! Aggregated attention (TransNeXt, Shi, 2024; arXiv 2311.17132): over a token's neighbours and a pooled map, one softmax for both.

mod fused;
mod problem;
mod rows;
#[cfg(test)]
mod tests;

use crate::gated_attention::on;
use crate::grouped_attention::applies;
use crate::{Border, Neighborhood, work};
use tch::{Device, Kind, Tensor};

/// What is attended: `n` heads of width D over N tokens of a map, and P pooled tokens. Nothing is normalised yet.
#[derive(Debug, Clone, Copy)]
pub struct AggregatedTokens<'a> {
    /// Queries, keys and values of the tokens, [B, n, N, D].
    pub own: [&'a Tensor; 3],
    /// Keys and values of the pooled tokens, [B, n, P, D].
    pub pooled: [&'a Tensor; 2],
    /// Height and width, whose product is N.
    pub map: [i64; 2],
}

/// Learnt terms, and what follows from the map's size. The slots are those of a [`Neighborhood`].
#[derive(Debug, Clone, Copy)]
pub struct AggregatedTerms<'a> {
    /// Added to unit queries before they meet keys, [n, 1, D].
    pub embedding: &'a Tensor,
    /// Factor of the queries, [n, N, 1].
    pub sharpness: &'a Tensor,
    /// Added to the neighbours' logits, [n, H, W, slots]; minus infinity outside of the map.
    pub local_bias: &'a Tensor,
    /// Added to the pooled keys' logits, [n, N, P].
    pub pooled_bias: &'a Tensor,
    /// From unit queries to what is added to the neighbours' weights behind the softmax, [n, D, slots].
    pub local_tokens: &'a Tensor,
    /// Added there too, [n, 1, slots].
    pub local_offset: &'a Tensor,
}

impl AggregatedTerms<'_> {
    fn all(&self) -> [&Tensor; 6] {
        [
            self.embedding,
            self.sharpness,
            self.local_bias,
            self.pooled_bias,
            self.local_tokens,
            self.local_offset,
        ]
    }
}

/// Heads and their weights before the learnt part.
#[derive(Debug)]
pub struct Aggregated {
    /// [B, n, N, D].
    pub heads: Tensor,
    /// [B, n, N, slots + P], rows summing to 1.
    pub attn: Tensor,
}

/// The operator for windows of one size.
#[derive(Debug)]
pub struct AggregatedAttention {
    window: Neighborhood,
    side: i64,
}

impl AggregatedAttention {
    /// Windows of `side` x `side` keys, an odd number.
    pub fn new(side: i64) -> Self {
        AggregatedAttention {
            window: Neighborhood::new([side; 2], Border::Cut),
            side,
        }
    }

    /// Neighbours of a query, itself included.
    pub fn slots(&self) -> i64 {
        self.window.slots()
    }

    /// Whether a slot's key is inside of the map, Bool [H, W, slots].
    pub fn inside(&self, map: [i64; 2], device: Device) -> Tensor {
        self.window.inside(map, device)
    }

    /// The definition.
    pub fn forward(&self, tokens: &AggregatedTokens, terms: &AggregatedTerms) -> Aggregated {
        let [q, k, v] = tokens.own;
        let [pooled_k, pooled_v] = tokens.pooled;
        let unit_q = unit(q);
        let q = (&unit_q + terms.embedding) * terms.sharpness;
        let on_map = |t: &Tensor| t.unflatten(2, tokens.map);
        let near = self.window.scores(&on_map(&q), &on_map(&unit(k))) + terms.local_bias;
        let far = work::matmul(&q, &unit(pooled_k).transpose(-2, -1)) + terms.pooled_bias;
        let attn = Tensor::cat(&[near.flatten(2, 3), far], -1).softmax(-1, None::<Kind>);
        let parts = attn.split_with_sizes([self.slots(), pooled_k.size()[2]], -1);
        let learnt = work::matmul(&unit_q, terms.local_tokens) + terms.local_offset;
        let near = self
            .window
            .mix(&on_map(&(&parts[0] + learnt)), &on_map(v))
            .flatten(2, 3);
        Aggregated {
            heads: near + work::matmul(&parts[1], pooled_v),
            attn,
        }
    }

    /// The heads times `gates` [B, N, n], side by side, [B, N, n * D], by a kernel that computes a token only in those
    /// heads that are on for it (whose gate is not 0), and holds no map of weights. `terms` are f32.
    ///
    /// `None` where it does not apply: elsewhere than on the CPU, kinds other than f32 and bf16, gradients, traces.
    pub fn forward_gated(
        &self,
        tokens: &AggregatedTokens,
        terms: &AggregatedTerms,
        gates: &Tensor,
    ) -> Option<Tensor> {
        let [q, k, v] = tokens.own;
        let [pooled_k, pooled_v] = tokens.pooled;
        let trained = |t: &&Tensor| t.requires_grad();
        if !applies(&[q, k, v, pooled_k, pooled_v])
            || gates.requires_grad()
            || terms.all().iter().any(trained)
        {
            return None;
        }
        let gates = gates.to_kind(Kind::Float);
        if work::recording() {
            self.report(tokens, &gates);
        }
        Some(fused::attend(self.side, tokens, terms, &gates))
    }

    /// The work of the kernel beside that of all heads, slots outside of the map included.
    fn report(&self, tokens: &AggregatedTokens, gates: &Tensor) {
        let [q, _, v] = tokens.own;
        let (all, slots) = (q.numel() as i64 / q.size()[3], self.slots());
        let pooled = tokens.pooled[0].size()[2];
        let neighbours = self
            .inside(tokens.map, gates.device())
            .sum_dim_intlist(-1, false, Kind::Int64)
            .flatten(0, 1)
            .unsqueeze(1);
        let near = (gates.ne(0.0) * neighbours).sum(Kind::Int64);
        let on = on(gates);
        let pairs = near.int64_value(&[]) as u64 + on * pooled as u64;
        work::attention(q, v, pairs, (all * (pooled + slots)) as u64);
        let learnt = (slots * q.size()[3]) as u64;
        work::products(q, q, [on * learnt, all as u64 * learnt], all * slots);
    }
}

/// x / max(|x|, 1e-12) over the last axis.
pub fn unit(x: &Tensor) -> Tensor {
    x / x
        .norm_scalaropt_dim(2, [-1i64].as_slice(), true)
        .clamp_min(1e-12)
}
