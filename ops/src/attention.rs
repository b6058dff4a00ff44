//! Multi-head self-attention over tokens, dense.

use crate::grouped_attention::{self, Bias, Pattern, Tiles};
use crate::{Derived, LayerNorm, Linear, Regions, gate_heads, gated_attention, onednn, work};
use tch::{Device, Kind, Tensor, nn};

/// softmax(q k^T * scale) v with queries [B, H, M, D], keys and values [B, H, N, D]; gives [B, H, M, D].
///
/// `fused` allows kernels that never hold the M x N map where they apply: ours on the CPU in f32, libtorch's on the CPU in bf16
/// and on CUDA except in f64; without gradients.
pub fn dense_attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64, fused: bool) -> Tensor {
    if fused && streaming_applies(q) {
        let pairs = pairs_of(q, k);
        work::attention(q, v, pairs, pairs);
        if q.kind() == Kind::Float && grouped_attention::applies(&[q, k, v]) {
            return attend_to_all(q, k, v, scale);
        }
        return Tensor::scaled_dot_product_attention::<Tensor>(
            q, k, v, None, 0.0, false, scale, false,
        );
    }
    let scores = work::matmul(&(q * scale), &k.transpose(-2, -1));
    work::matmul(&scores.softmax(-1, None::<Kind>), v)
}

/// [`dense_attention`] by the kernel of grouped attention, with one group.
fn attend_to_all(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Tensor {
    let on_map = |t: &Tensor| match t.stride().last() {
        Some(1) => t.transpose(1, 2).unsqueeze(1),
        _ => t.contiguous().transpose(1, 2).unsqueeze(1),
    };
    let tiles = |t: &Tensor| Tiles::from(Regions::whole([1, t.size()[2]]));
    let pattern = Pattern {
        queries: tiles(q),
        keys: tiles(k),
        index: None,
        scale,
        bias: Bias::None,
        gates: None,
    };
    grouped_attention::attend(&on_map(q), &on_map(k), &on_map(v), &pattern)
        .squeeze_dim(1)
        .unflatten(2, [q.size()[1], v.size()[3]])
        .transpose(1, 2)
}

/// Pairs of a query and a key, queries [.., M, D] and keys [.., N, D].
pub(crate) fn pairs_of(q: &Tensor, k: &Tensor) -> u64 {
    let (width, keys) = match k.size().as_slice() {
        [.., keys, width] => (*width, *keys),
        _ => (1, 1),
    };
    q.numel() as u64 / width.max(1) as u64 * keys as u64
}

pub(crate) fn streaming_applies(q: &Tensor) -> bool {
    match q.device() {
        Device::Cuda(_) => q.kind() != Kind::Double && !q.requires_grad(),
        _ => onednn::applies(q),
    }
}

/// [B, H, N, D] to [B, N, H * D].
pub fn merge_heads(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(2, 3)
}

/// The projections of multi-head self-attention and its dense form. Names: `qkv` [3C, C], `proj` [C, C].
///
/// `qkv` gives queries, keys, values in this order, each with heads outermost: timm's layout.
#[derive(Debug)]
pub struct SelfAttention {
    qkv: Linear,
    proj: Linear,
    heads: i64,
    width: i64,
    fused: bool,
    first: Option<FirstRow>,
}

impl SelfAttention {
    /// `heads` heads over `width` channels at path `p`; `proj` has a bias always, `qkv` if `qkv_bias`.
    pub fn new(p: &nn::Path, width: i64, heads: i64, qkv_bias: bool) -> Self {
        SelfAttention {
            qkv: Linear::new(p / "qkv", width, 3 * width, qkv_bias),
            proj: Linear::new(p / "proj", width, width, true),
            heads,
            width,
            fused: false,
            first: None,
        }
    }

    /// D^-1/2, the scale of the scores.
    pub fn scale(&self) -> f64 {
        ((self.width / self.heads) as f64).powf(-0.5)
    }

    /// Queries, keys and values of tokens [B, N, C], each [B, H, N, D]: views of one tensor.
    pub fn heads_of(&self, x: &Tensor) -> [Tensor; 3] {
        let qkv = self
            .qkv
            .forward(x)
            .unflatten(2, [3, self.heads, self.width / self.heads])
            .permute([2, 0, 3, 1, 4]);
        [qkv.get(0), qkv.get(1), qkv.get(2)]
    }

    /// What every token gathers, before the output projection: [B, N, C] to the same shape.
    pub fn mix(&self, x: &Tensor) -> Tensor {
        let [q, k, v] = self.heads_of(x);
        merge_heads(&dense_attention(&q, &k, &v, self.scale(), self.fused))
    }

    /// The same with the heads of every token gated, gates [B, N, H]: see [`crate::HeadRouter`]. Once fused, heads that
    /// are off are skipped where [`gated_attention`] applies.
    pub fn mix_gated(&self, x: &Tensor, gates: &Tensor) -> Tensor {
        let [q, k, v] = self.heads_of(x);
        let skipping = match self.fused {
            true => gated_attention([&q, &k, &v], gates, self.scale(), None),
            false => None,
        };
        skipping.unwrap_or_else(|| {
            let dense = dense_attention(&q, &k, &v, self.scale(), self.fused);
            gate_heads(&dense, gates)
        })
    }

    /// The first row of [`SelfAttention::mix`], [B, 1, C], where `absent` more tokens have key and value zero.
    ///
    /// After [`SelfAttention::fuse_first_row`] keys and values are never made: 2HNC + 3C^2 multiply-adds instead of
    /// 3NC^2 + 2N^2C.
    pub fn mix_first(&self, x: &Tensor, absent: i64) -> Tensor {
        self.mix_first_with(x, |scores| softmax_with_absent(scores, absent))
    }

    /// The first row of attention whose weights are `weigh` of the scaled scores, both [B, H, 1, N]: gives [B, 1, C].
    ///
    /// As cheap as [`SelfAttention::mix_first`] after [`SelfAttention::fuse_first_row`]; weights need not sum to 1.
    pub fn mix_first_with(&self, x: &Tensor, weigh: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let Some(first) = &self.first else {
            let [q, k, v] = self.heads_of(x);
            let weights = weigh(&self.scores(&q.narrow(2, 0, 1), &k));
            return merge_heads(&work::matmul(&weights, &v));
        };
        first.mix(x, weigh)
    }

    /// Scaled scores [B, H, M, N] of queries [B, H, M, D] and keys [B, H, N, D].
    pub fn scores(&self, q: &Tensor, k: &Tensor) -> Tensor {
        work::matmul(&(q * self.scale()), &k.transpose(-2, -1))
    }

    /// The first query's attention weights [B, H, 1, N], where `absent` more keys have score zero.
    pub fn first_weights(&self, q: &Tensor, k: &Tensor, absent: i64) -> Tensor {
        softmax_with_absent(&self.scores(&q.narrow(2, 0, 1), k), absent)
    }

    /// The output projection, [B, N, C] to the same shape.
    pub fn project(&self, mixed: &Tensor) -> Tensor {
        self.proj.forward(mixed)
    }

    /// `residual + project(mixed)`.
    pub fn project_add(&self, mixed: &Tensor, residual: &Tensor) -> Tensor {
        self.proj.forward_add(mixed, residual)
    }

    /// Absorbs the weight and bias of the norm in front, which nothing else reads.
    pub fn fold_norm(&mut self, norm: &mut LayerNorm) {
        norm.fold_into(&mut self.qkv);
    }

    /// Absorbs a scale of the output (`[width]`, float64).
    pub fn fold_output(&mut self, scale: &Tensor) {
        self.proj.fold_output(scale);
    }

    /// Declares the weights final.
    pub fn fuse(&mut self) {
        self.qkv.fuse();
        self.proj.fuse();
        self.fused = true;
    }

    /// Prepares [`SelfAttention::mix_first`]; call it after all folding.
    pub fn fuse_first_row(&mut self) {
        self.first = Some(FirstRow::new(
            &self.qkv,
            self.heads,
            self.width,
            self.scale(),
        ));
    }
}

/// softmax over the last axis together with `absent` further scores of zero, whose weights are dropped.
fn softmax_with_absent(scores: &Tensor, absent: i64) -> Tensor {
    if absent == 0 {
        return scores.softmax(-1, None::<Kind>);
    }
    let keys = scores.size().last().copied().unwrap_or(0);
    let zeros = scores.narrow(-1, 0, 1).zeros_like() + (absent as f64).ln();
    Tensor::cat(&[scores, &zeros], -1)
        .softmax(-1, None::<Kind>)
        .narrow(-1, 0, keys)
}

/// Attention of the first token only, with the key and value projections moved to its side of the products.
///
/// q . (W_k x + b_k) = (W_k^T q) . x + q . b_k, and sum_n a_n (W_v x_n + b_v) = W_v (sum_n a_n x_n) + (sum_n a_n) b_v.
#[derive(Debug)]
struct FirstRow {
    /// [C, C] and [1, 1, C], scaled.
    query: [Derived; 2],
    /// [H, D, C] and [H, D, 1].
    key: [Derived; 2],
    /// [H, C, D] and [H, 1, D].
    value: [Derived; 2],
    heads: i64,
}

impl FirstRow {
    fn new(qkv: &Linear, heads: i64, width: i64, scale: f64) -> Self {
        let (weight, bias) = qkv.exact();
        let bias = bias.unwrap_or_else(|| weight.narrow(1, 0, 1).flatten(0, 1).zeros_like());
        let part = |t: &Tensor, i: i64| t.narrow(0, i * width, width).copy();
        let per_head = |t: Tensor| t.unflatten(0, [heads, -1]);
        let value = per_head(part(&weight, 2)).transpose(1, 2).contiguous();
        FirstRow {
            query: [
                Derived::new(part(&weight, 0) * scale),
                Derived::new(part(&bias, 0).reshape([1, 1, -1]) * scale),
            ],
            key: [
                Derived::new(per_head(part(&weight, 1))),
                Derived::new(per_head(part(&bias, 1)).unsqueeze(2)),
            ],
            value: [
                Derived::new(value),
                Derived::new(per_head(part(&bias, 2)).unsqueeze(1)),
            ],
            heads,
        }
    }

    /// Tokens [B, N, C] to [B, 1, C].
    fn mix(&self, x: &Tensor, weigh: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let first = x.narrow(1, 0, 1);
        let q = work::matmul(&first, &self.query[0].like(x).tr()) + self.query[1].like(x);
        let q = q.unflatten(2, [self.heads, -1]).transpose(1, 2);
        let over_channels = work::matmul(&q, &self.key[0].like(x)).squeeze_dim(2);
        let offset = q.matmul(&self.key[1].like(x)).squeeze_dim(2);
        let scores = work::matmul(&over_channels, &x.transpose(1, 2)) + offset;
        let weights = weigh(&scores.unsqueeze(2)).squeeze_dim(2);
        let mass = weights.sum_dim_intlist(-1, true, None::<Kind>);
        let gathered = work::matmul(&weights, x).unsqueeze(2);
        let values = work::matmul(&gathered, &self.value[0].like(x));
        merge_heads(&(values + mass.unsqueeze(3) * self.value[1].like(x)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn attention(bias: bool) -> (nn::VarStore, SelfAttention) {
        tch::manual_seed(3);
        let mut vs = nn::VarStore::new(Device::Cpu);
        let attention = SelfAttention::new(&vs.root(), 12, 3, bias);
        vs.double();
        tch::no_grad(|| {
            vs.variables()
                .values_mut()
                .for_each(|t| drop(t.normal_(0.0, 0.5)))
        });
        (vs, attention)
    }

    fn error(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn dense_attention_is_its_definition() {
        tch::manual_seed(1);
        let [q, k, v] = [4i64, 7, 7].map(|n| Tensor::randn([2, 3, n, 5], F64));
        let ours = dense_attention(&q, &k, &v, 0.3, true);
        for (b, h, m) in [(0, 0, 0), (1, 2, 3), (0, 1, 2)] {
            let scores = k.get(b).get(h).mv(&q.get(b).get(h).get(m)) * 0.3;
            let weights = scores.exp() / scores.exp().sum(Kind::Double);
            let expected = v.get(b).get(h).tr().mv(&weights);
            assert!(error(&ours.get(b).get(h).get(m), &expected) < 1e-12);
        }
    }

    #[test]
    fn the_streaming_form_equals_the_composed_one() {
        tch::manual_seed(2);
        let [q, k, v] =
            [9i64, 20, 20].map(|n| Tensor::randn([2, 3, n, 16], (Kind::Float, Device::Cpu)));
        let composed = dense_attention(&q, &k, &v, 0.25, false);
        let streaming = dense_attention(&q, &k, &v, 0.25, true);
        assert!(error(&composed, &streaming) < 1e-5);
    }

    #[test]
    fn the_first_row_alone_equals_the_first_row_of_all() {
        for bias in [true, false] {
            let (_vs, mut attention) = attention(bias);
            let x = Tensor::randn([2, 6, 12], F64);
            let all = attention.mix(&x).narrow(1, 0, 1);
            assert!(error(&all, &attention.mix_first(&x, 0)) < 1e-12);
            attention.fuse();
            attention.fuse_first_row();
            assert!(error(&all, &attention.mix_first(&x, 0)) < 1e-12);
        }
    }

    #[test]
    fn absent_tokens_weigh_as_zero_keys_and_values_do() {
        let (_vs, mut attention) = attention(true);
        let x = Tensor::randn([2, 6, 12], F64);
        let [q, k, v] = attention.heads_of(&x);
        let padded = |t: &Tensor| {
            let zeros = Tensor::zeros([2, 3, 4, 4], F64);
            Tensor::cat(&[t, &zeros], 2)
        };
        let (k, v) = (padded(&k), padded(&v));
        let row = q.narrow(2, 0, 1);
        let expected = merge_heads(&dense_attention(&row, &k, &v, attention.scale(), false));
        assert!(error(&expected, &attention.mix_first(&x, 4)) < 1e-12);
        attention.fuse_first_row();
        assert!(error(&expected, &attention.mix_first(&x, 4)) < 1e-12);
    }
}
