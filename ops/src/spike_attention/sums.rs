//! Attention that only sums spikes: gates of one number for each token, or for each channel.

use tch::{Kind, Tensor};

/// Sums of the queries over each head's channels, the currents of QKFormer's token gate: [B, N, C] to [B, N, heads].
///
/// "QKFormer: Hierarchical Spiking Transformer using Q-K Attention", NeurIPS 2024, arXiv 2403.16552.
pub fn token_gate(q: &Tensor, heads: i64) -> Tensor {
    let size = q.size();
    q.unflatten(2, [heads, size[2] / heads]).sum_dim_intlist(
        [-1i64].as_slice(),
        false,
        None::<Kind>,
    )
}

/// Keys that meet values, summed over the tokens: the currents of the spike-driven transformer's channel gate.
/// [B, N, C] twice to [B, C].
///
/// "Spike-driven Transformer", NeurIPS 2023, arXiv 2307.01694.
pub fn channel_gate(k: &Tensor, v: &Tensor) -> Tensor {
    (k * v).sum_dim_intlist([1i64].as_slice(), false, None::<Kind>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_plain_sums() {
        let q = Tensor::from_slice(&[1f32, 0., 1., 1., 0., 0., 1., 0.]).reshape([1, 2, 4]);
        let by_token = Tensor::from_slice(&[1f32, 2., 0., 1.]).reshape([1, 2, 2]);
        assert!(token_gate(&q, 2).equal(&by_token));
        let v = Tensor::from_slice(&[1f32, 1., 0., 1., 1., 1., 1., 1.]).reshape([1, 2, 4]);
        let by_channel = Tensor::from_slice(&[1f32, 0., 1., 1.]).reshape([1, 4]);
        assert!(channel_gate(&q, &v).equal(&by_channel));
    }
}
