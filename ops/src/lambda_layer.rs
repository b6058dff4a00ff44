//! Lambda layer with local positions (LambdaNetworks, Bello, 2021), as timm's `LambdaLayer` defines it.

use crate::start;
use crate::{BatchNorm, Conv2d, ConvConfig, work};
use tch::{Kind, Tensor, nn};

/// Sizes of a [`LambdaLayer`].
#[derive(Debug, Clone, Copy)]
pub struct LambdaConfig {
    /// Heads; they share keys and values.
    pub heads: i64,
    /// Width of queries and keys.
    pub qk_dim: i64,
    /// Side of the neighbourhood in which positions count; odd.
    pub receptive: i64,
}

/// Every position's query is multiplied by a small matrix made of values: `y_p = q_p (content + position_p)`.
///
/// content = sum over positions of softmax(k) v^T, shared by all queries; position_p = the values around p under
/// one `receptive` x `receptive` filter for each key channel. No attention map is made.
/// Names: `qkv` (1x1 convolution without bias: the heads' queries, keys, values), `norm_q`, `norm_v`,
/// `conv_lambda` (`weight` [qk_dim, 1, r, r, 1] as of a 3-d convolution, `bias`).
#[derive(Debug)]
pub struct LambdaLayer {
    qkv: Conv2d,
    norms: Option<[BatchNorm; 2]>,
    filters: Tensor,
    filter_bias: Tensor,
    config: LambdaConfig,
    v_dim: i64,
}

impl LambdaLayer {
    /// `channels` to as many at path `p`.
    pub fn new(p: nn::Path, channels: i64, config: LambdaConfig) -> Self {
        let LambdaConfig {
            heads,
            qk_dim,
            receptive,
        } = config;
        let v_dim = channels / heads;
        let out = heads * qk_dim + qk_dim + v_dim;
        let position = &p / "conv_lambda";
        let shape = [qk_dim, 1, receptive, receptive, 1];
        LambdaLayer {
            qkv: Conv2d::new(&p / "qkv", channels, out, ConvConfig::pointwise()),
            norms: Some([
                BatchNorm::new(&p / "norm_q", heads * qk_dim, 1e-5),
                BatchNorm::new(&p / "norm_v", v_dim, 1e-5),
            ]),
            filters: start::kaiming(&position, "weight", &shape),
            filter_bias: position.zeros("bias", &[qk_dim]),
            config,
            v_dim,
        }
    }

    /// [B, C, H, W] to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let LambdaConfig { heads, qk_dim, .. } = self.config;
        let (height, width) = (x.size()[2], x.size()[3]);
        let parts = [heads * qk_dim, qk_dim, self.v_dim];
        let mut qkv = self.qkv.forward(x).split_with_sizes(parts, 1).into_iter();
        let mut next = || qkv.next().expect("three parts");
        let (mut q, k, mut v) = (next(), next(), next());
        if let Some([norm_q, norm_v]) = &self.norms {
            (q, v) = (norm_q.forward(&q), norm_v.forward(&v));
        }
        let k = k.flatten(2, 3).softmax(-1, None::<Kind>);
        let content = work::matmul(&k, &v.flatten(2, 3).transpose(1, 2));
        let lambdas = self.position_lambdas(&v) + content.unsqueeze(1);
        let q = q
            .flatten(2, 3)
            .transpose(1, 2)
            .unflatten(2, [heads, qk_dim]);
        work::matmul(&q, &lambdas)
            .flatten(2, 3)
            .transpose(1, 2)
            .unflatten(2, [height, width])
    }

    /// [B, v, H, W] to [B, H W, qk_dim, v]: every channel of the values under the same filters.
    fn position_lambdas(&self, v: &Tensor) -> Tensor {
        let padding = self.config.receptive / 2;
        let filters = self.filters.squeeze_dim(-1);
        let planes = v.flatten(0, 1).unsqueeze(1);
        let filtered = planes.conv2d(&filters, Some(&self.filter_bias), 1, padding, 1, 1);
        work::convolution(&planes, &filters, true, &filtered);
        filtered
            .flatten(2, 3)
            .unflatten(0, [-1, self.v_dim])
            .permute([0, 3, 2, 1])
    }

    /// Folds both norms into the projection and declares the weights final.
    pub fn fuse(&mut self) {
        if let Some([norm_q, norm_v]) = self.norms.take() {
            let ((q_scale, q_shift), (v_scale, v_shift)) =
                (norm_q.scale_shift(), norm_v.scale_shift());
            let keys = Tensor::ones([self.config.qk_dim], (Kind::Double, q_scale.device()));
            let scale = Tensor::cat(&[&q_scale, &keys, &v_scale], 0);
            let shift = Tensor::cat(&[&q_shift, &keys.zeros_like(), &v_shift], 0);
            self.qkv.fold_output(&scale, &shift);
        }
        self.qkv.fuse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn both_forms_are_the_definition() {
        let _no_grad = tch::no_grad_guard();
        let config = LambdaConfig {
            heads: 2,
            qk_dim: 3,
            receptive: 5,
        };
        let mut store = nn::VarStore::new(Device::Cpu);
        let mut layer = LambdaLayer::new(store.root(), 8, config);
        store.double();
        for (name, t) in store.variables().iter_mut() {
            let spread = if name.ends_with("running_var") {
                1.0
            } else {
                -1.0
            };
            let _ = t.uniform_(spread * 0.5, 1.5);
        }
        let vars = store.variables();
        let x = Tensor::randn([2, 8, 4, 3], (Kind::Double, Device::Cpu));
        let norm = |t: Tensor, name: &str| {
            let of = |part: &str| vars[&format!("{name}.{part}")].reshape([1, -1, 1, 1]);
            (t - of("running_mean")) / (of("running_var") + 1e-5).sqrt() * of("weight") + of("bias")
        };
        let qkv = x.conv2d(&vars["qkv.weight"], None::<&Tensor>, 1, 0, 1, 1);
        let q = norm(qkv.narrow(1, 0, 6), "norm_q");
        let k = qkv.narrow(1, 6, 3).flatten(2, 3).softmax(-1, None::<Kind>);
        let v = norm(qkv.narrow(1, 9, 4), "norm_v");
        let (filters, bias) = (&vars["conv_lambda.weight"], &vars["conv_lambda.bias"]);
        let expected = x.zeros_like();
        for (b, c) in (0..2).flat_map(|b| (0..8).map(move |c| (b, c))) {
            let (head, channel) = (c / 4, c % 4);
            let v = v.get(b).get(channel);
            for (y, x) in (0..4).flat_map(|y| (0..3).map(move |x| (y, x))) {
                let mut sum = 0.0;
                for d in 0..3 {
                    let content = k.get(b).get(d).dot(&v.flatten(0, 1)).double_value(&[]);
                    let mut position = bias.double_value(&[d]);
                    for (i, j) in (0..5).flat_map(|i| (0..5).map(move |j| (i, j))) {
                        let (row, column) = (y + i - 2, x + j - 2);
                        if (0..4).contains(&row) && (0..3).contains(&column) {
                            position += filters.double_value(&[d, 0, i, j, 0])
                                * v.double_value(&[row, column]);
                        }
                    }
                    sum += q.double_value(&[b, head * 3 + d, y, x]) * (content + position);
                }
                let _ = expected.get(b).get(c).get(y).get(x).fill_(sum);
            }
        }
        for form in ["composed", "fused"] {
            let error = (layer.forward(&x) - &expected).abs().max();
            assert!(error.double_value(&[]) < 1e-12, "{form}");
            layer.fuse();
        }
    }
}
