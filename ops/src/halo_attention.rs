//! Blocked local self-attention with halos (HaloNet, Vaswani et al., 2021), as timm's `HaloAttn` defines it.

use crate::attention::pairs_of;
use crate::grouped_attention::{Bias, Pattern, Tiles, applies, attend};
use crate::partition::{HaloSide, Inside, from_blocks, halo_windows, to_blocks};
use crate::relative_position::{PositionLogits, RelativePosition2d};
use crate::taps::{self, Tap};
use crate::{Conv2d, ConvConfig, channels_last, work};
use tch::{Kind, Tensor, nn};

/// Sizes of a [`HaloAttention`].
#[derive(Debug, Clone, Copy)]
pub struct HaloConfig {
    /// Side of a block of queries, in pixels of the input map.
    pub block: i64,
    /// Pixels that a block sees beyond its border, on every side.
    pub halo: i64,
    /// Heads.
    pub heads: i64,
    /// Width of a head's queries and keys.
    pub qk_dim: i64,
    /// Width of a head's values.
    pub v_dim: i64,
    /// 1 or 2.
    pub stride: i64,
}

impl HaloConfig {
    /// Odd blocks can not be strided: then every query is computed, and the results are averaged 2 x 2.
    fn pooled(&self) -> bool {
        self.stride == 2 && self.block % 2 == 1
    }

    fn query_stride(&self) -> i64 {
        if self.pooled() { 1 } else { self.stride }
    }

    fn window(&self) -> i64 {
        self.block + 2 * self.halo
    }

    fn scale(&self) -> f64 {
        (self.qk_dim as f64).powf(-0.5)
    }
}

/// softmax(q k^T / sqrt(d) + position) v, where the queries of a block see the keys of the block and its halo.
///
/// Pixels outside of the map are keys too: their keys and values are zero, their logit is the position term, and they
/// take part in the softmax. There is no output projection. Names: `q`, `kv` (1x1 convolutions without bias; per
/// head its keys, then its values), `pos_embed`.
#[derive(Debug)]
pub struct HaloAttention {
    q: Conv2d,
    kv: Conv2d,
    position: RelativePosition2d,
    config: HaloConfig,
    fused: bool,
    pos_logits: Tap,
    attn: Tap,
}

/// Queries, keys and values of all blocks of all heads: N = B nh nw heads.
struct Parts {
    /// [N, bq, bq, qk_dim].
    q: Tensor,
    /// [N, keys, qk_dim].
    k: Tensor,
    /// [N, keys, v_dim].
    v: Tensor,
}

impl HaloAttention {
    /// From `channels` to heads * v_dim channels, at path `p`.
    pub fn new(p: nn::Path, channels: i64, config: HaloConfig) -> Self {
        let HaloConfig {
            heads,
            qk_dim,
            v_dim,
            ..
        } = config;
        let stride = config.query_stride();
        let strided = ConvConfig::pointwise().with_stride(stride);
        let pointwise = ConvConfig::pointwise();
        HaloAttention {
            q: Conv2d::new(&p / "q", channels, heads * qk_dim, strided),
            kv: Conv2d::new(&p / "kv", channels, heads * (qk_dim + v_dim), pointwise),
            position: RelativePosition2d::new(
                &p / "pos_embed",
                [config.window(); 2],
                [config.block / stride; 2],
                qk_dim,
            ),
            config,
            fused: false,
            pos_logits: Tap::new(&p, "pos_logits"),
            attn: Tap::new(&p, "attn"),
        }
    }

    /// [B, C, H, W] to [B, heads * v_dim, H / stride, W / stride]; H and W must be multiples of the block.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let fused = self.fused && !taps::recording();
        if fused && applies(&[x]) && !self.position.requires_grad() {
            return self.pool(self.attend_in_place(x));
        }
        let sides = self.sides(x).map(|s| if fused { s.merged() } else { s });
        let parts = self.parts(x, sides);
        let position = self.position(&parts, sides);
        let attended = if fused && self.config.qk_dim == self.config.v_dim {
            self.attend_fused(&parts, &position)
        } else {
            self.attend(&parts, &position, sides)
        };
        let block = self.config.block / self.config.query_stride();
        let blocks = self
            .by_block(&attended, sides)
            .permute([0, 1, 2, 4, 3, 5])
            .unflatten(3, [block, block]);
        self.pool(from_blocks(&blocks))
    }

    /// How the map falls into blocks and windows.
    fn sides(&self, x: &Tensor) -> [HaloSide; 2] {
        let side = |length| HaloSide::new(length, self.config.block, self.config.halo);
        [side(x.size()[2]), side(x.size()[3])]
    }

    /// Averages 2 x 2 where every query of a strided layer was computed.
    fn pool(&self, y: Tensor) -> Tensor {
        match self.config.pooled() {
            true => y.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
            false => y,
        }
    }

    /// The same by a kernel that reads keys and values where they are: no window of them is copied, no map is kept.
    /// Position logits are made for a query's rows and columns, not for its pairs, and stay in the cache.
    fn attend_in_place(&self, x: &Tensor) -> Tensor {
        let HaloConfig {
            heads,
            qk_dim,
            v_dim,
            block,
            halo,
            ..
        } = self.config;
        let side = block / self.config.query_stride();
        let sides = self.sides(x);
        let blocks = sides.map(|s| s.blocks());
        let tiles = |side: i64| Tiles {
            count: blocks,
            size: [side; 2],
            origin: [0; 2],
            step: [side; 2],
            dilation: [1; 2],
        };
        let q = channels_last(&self.q.forward(x));
        let by_head = |map: &Tensor, width| map.permute([0, 2, 3, 1]).unflatten(3, [heads, width]);
        let kv = by_head(&channels_last(&self.kv.forward(x)), qk_dim + v_dim);
        let q = by_head(&q, qk_dim);
        let [rows, columns] = self.position.relative();
        let (k, v) = (kv.narrow(4, 0, qk_dim), kv.narrow(4, qk_dim, v_dim));
        let pattern = Pattern {
            queries: tiles(side),
            keys: tiles(block).with_halo(halo),
            index: None,
            scale: self.config.scale(),
            bias: Bias::Relative(rows, columns),
            gates: None,
        };
        let queries = q.numel() as u64 / qk_dim as u64;
        let dense = queries * self.config.window().pow(2) as u64;
        let inside: i64 = sides.iter().map(HaloSide::lines_inside).product();
        let pairs = inside * side.pow(2) * heads * x.size()[0];
        work::attention(&q, &v, pairs as u64, dense);
        self.position.report_whole(&q, queries);
        attend(&q, &k, &v, &pattern).permute([0, 3, 1, 2])
    }

    fn parts(&self, x: &Tensor, sides: [HaloSide; 2]) -> Parts {
        let HaloConfig {
            heads,
            qk_dim,
            v_dim,
            block,
            ..
        } = self.config;
        let q = to_blocks(&self.q.forward(x), block / self.config.query_stride())
            .unflatten(5, [heads, qk_dim])
            .permute([0, 1, 2, 5, 3, 4, 6])
            .flatten(0, 3);
        let kv = halo_windows(&self.kv.forward(x), sides)
            .unflatten(3, [heads, qk_dim + v_dim])
            .permute([0, 1, 2, 3, 5, 6, 4])
            .flatten(4, 5)
            .flatten(0, 3);
        Parts {
            q,
            k: kv.narrow(2, 0, qk_dim),
            v: kv.narrow(2, qk_dim, v_dim),
        }
    }

    /// [N, ..] as [B, nh, nw, heads, ..].
    fn by_block(&self, t: &Tensor, sides: [HaloSide; 2]) -> Tensor {
        let [nh, nw] = sides.map(|s| s.blocks());
        t.unflatten(0, [-1, nh, nw, self.config.heads])
    }

    /// Position logits; a merged line's is log(sum(exp)) of those of the lines that it stands for.
    fn position(&self, parts: &Parts, sides: [HaloSide; 2]) -> PositionLogits {
        let position = self.position.logits(&parts.q);
        let merged = |logits: Tensor, axis: usize| match sides[axis].is_merged() {
            true => merge_outside(&self.by_block(&logits, sides), axis as i64 + 1, sides[axis])
                .flatten(0, 3),
            false => logits,
        };
        PositionLogits {
            rows: merged(position.rows, 0),
            columns: merged(position.columns, 1),
        }
    }

    /// The definition: [N, bq bq, v_dim].
    fn attend(&self, parts: &Parts, position: &PositionLogits, sides: [HaloSide; 2]) -> Tensor {
        let q = parts.q.flatten(1, 2) * self.config.scale();
        let scores = work::matmul(&q, &parts.k.transpose(1, 2));
        let attn = position.add_to(&scores).softmax(-1, None::<Kind>);
        if taps::recording() {
            self.pos_logits.see(&self.by_head(&position.sum(), sides));
            self.attn.see(&self.by_head(&attn, sides));
        }
        work::matmul(&attn, &parts.v)
    }

    /// The same as one kernel that keeps no attention map.
    fn attend_fused(&self, parts: &Parts, position: &PositionLogits) -> Tensor {
        let one_head = |t: &Tensor| t.unsqueeze(1);
        let pairs = pairs_of(&parts.q, &parts.k);
        work::attention(&parts.q, &parts.v, pairs, pairs);
        Tensor::scaled_dot_product_attention(
            &one_head(&parts.q.flatten(1, 2)),
            &one_head(&parts.k),
            &one_head(&parts.v),
            Some(one_head(&position.sum())),
            0.0,
            false,
            self.config.scale(),
            false,
        )
        .squeeze_dim(1)
    }

    /// [N, queries, keys] as records have it: [B heads, blocks, queries, keys].
    fn by_head(&self, t: &Tensor, sides: [HaloSide; 2]) -> Tensor {
        self.by_block(t, sides)
            .permute([0, 3, 1, 2, 4, 5])
            .flatten(2, 3)
            .flatten(0, 1)
    }

    /// Absorbs a scale of the output channels ([heads * v_dim], float64) into the values; call before `fuse`.
    ///
    /// Attention is linear in the values and the zero keys' are zero; a shift could not be absorbed.
    pub fn fold_output_scale(&mut self, scale: &Tensor) {
        let HaloConfig { heads, qk_dim, .. } = self.config;
        let ones = Tensor::ones([heads, qk_dim], (Kind::Double, scale.device()));
        let scale = Tensor::cat(&[ones, scale.reshape([heads, -1])], 1).flatten(0, 1);
        self.kv.fold_output(&scale, &scale.zeros_like());
    }

    /// Declares the weights final: packed kernels, and hardly any work on keys outside of the map (on a GPU: where a map
    /// has at most two blocks along a side).
    pub fn fuse(&mut self) {
        self.q.fuse();
        self.kv.fuse();
        self.position.fuse();
        self.fused = true;
    }
}

/// Logits [.., window] of each block along `axis`, those of lines outside of the map merged into one line.
///
/// The keys there are zero, so that their logits are position terms only and their sum of exponentials is all that
/// the softmax needs.
fn merge_outside(logits: &Tensor, axis: i64, side: HaloSide) -> Tensor {
    let merged: Vec<Tensor> = side
        .inside()
        .into_iter()
        .enumerate()
        .map(
            |(
                i,
                Inside {
                    lines,
                    outside_first,
                },
            )| {
                let block = logits.narrow(axis, i as i64, 1);
                let window = block.size()[6];
                let before = block.narrow(-1, 0, lines.start);
                let after = block.narrow(-1, lines.end, window - lines.end);
                let inside = block.narrow(-1, lines.start, lines.end - lines.start);
                let outside = Tensor::cat(&[before, after], -1).logsumexp([-1i64].as_slice(), true);
                match outside_first {
                    true => Tensor::cat(&[outside, inside], -1),
                    false => Tensor::cat(&[inside, outside], -1),
                }
            },
        )
        .collect();
    Tensor::cat(&merged, axis)
}

#[cfg(test)]
mod tests;
