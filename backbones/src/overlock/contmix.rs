//! Context-mixing dynamic convolution: every position gets kernels of its own, made from its affinity to 7 x 7 regions of
//! the context.

use tch::{Kind, Tensor, nn};
use zoo_ops::taps::{self, Tap};
use zoo_ops::work;
use zoo_ops::{Border, ConvBn, ConvConfig, Derived, Linear, Neighborhood, PerMap};

/// Regions of the context along each side.
const REGIONS: i64 = 7;
/// The smaller of the two kernels.
const SMALL: i64 = 5;

/// Half of the channels meet a 5x5 kernel and half a large one, both softmaxed over their window.
///
/// Names: `weight_query.{0,1}`, `weight_key.{1,2}`, `weight_proj`, `rpb1`, `rpb2`.
#[derive(Debug)]
pub(super) struct ContMix {
    query: ConvBn,
    key: ConvBn,
    weight_proj: Linear,
    windows: [Neighborhood; 2],
    position_tables: [Tensor; 2],
    widths: [i64; 2],
    heads: i64,
    kernel: i64,
    scale: f64,
    folded: Option<Folded>,
    logits: Tap,
    kernels: [Tap; 2],
    out: Tap,
}

/// What is known once the weights are final.
#[derive(Debug)]
struct Folded {
    /// [49, slots]: from affinities to both kernels' logits.
    projection: Derived,
    /// [slots].
    bias: Derived,
    position_tables: [Tensor; 2],
    /// The bias and both position tables for each map: [G, HW, slots].
    offsets: PerMap<Derived>,
}

impl ContMix {
    /// `widths` are the channels of the features and of the context behind them.
    pub(super) fn new(p: &nn::Path, widths: [i64; 2], heads: i64, kernel: i64) -> Self {
        let [width, context] = widths;
        let slots = SMALL * SMALL + kernel * kernel;
        let (query, key) = (p / "weight_query", p / "weight_key");
        let pointwise = ConvConfig::pointwise();
        let table = |name, side: i64| p.zeros(name, &[heads, 2 * side - 1, 2 * side - 1]);
        ContMix {
            query: ConvBn::new(&query / 0, &query / 1, width, width / 2, pointwise),
            key: ConvBn::new(&key / 1, &key / 2, context, width / 2, pointwise),
            weight_proj: Linear::pointwise(p / "weight_proj", REGIONS * REGIONS, slots, true),
            windows: [SMALL, kernel].map(|k| Neighborhood::new([k; 2], Border::Shifted)),
            position_tables: [table("rpb1", SMALL), table("rpb2", kernel)],
            widths,
            heads,
            kernel,
            scale: ((width / heads) as f64).powf(-0.5),
            folded: None,
            logits: Tap::new(p, "weight_proj"),
            kernels: ["kernel_small", "kernel_large"].map(|name| Tap::new(p, name)),
            out: Tap::new(p, "contmix"),
        }
    }

    /// Mixes features `x` [B, d, H, W] by kernels made from `f` [B, d + c, H, W], features and context.
    ///
    /// Maps smaller than the kernel are enlarged to hold it, and averaged back.
    pub(super) fn forward(&self, x: &Tensor, f: &Tensor) -> Tensor {
        let map = [x.size()[2], x.size()[3]];
        let enlarged = enlarged_to_hold(self.kernel, map);
        let mixed = if enlarged == map {
            self.mix(x, f)
        } else {
            let enlarge = |t: &Tensor| t.upsample_bilinear2d(enlarged, false, None, None);
            self.mix(&enlarge(x), &enlarge(f)).adaptive_avg_pool2d(map)
        };
        self.out.see(&mixed);
        mixed
    }

    fn mix(&self, x: &Tensor, f: &Tensor) -> Tensor {
        let [width, context] = self.widths;
        let map = [x.size()[2], x.size()[3]];
        let q = self.per_head(&self.query.forward(&f.narrow(1, 0, width)));
        let regions = f
            .narrow(1, width, context)
            .adaptive_avg_pool2d([REGIONS; 2]);
        let k = self.per_head(&self.key.forward(&regions));
        let (logits, bias) = self.slot_logits(&q.transpose(2, 3), &k, map);
        let slots = self.windows.each_ref().map(Neighborhood::slots);
        let logits = logits.unflatten(2, map).split_with_sizes(slots, -1);
        let bias = bias.unflatten(1, map).split_with_sizes(slots, -1);
        let values = x
            .unflatten(1, [2, self.heads, -1])
            .permute([1, 0, 2, 4, 5, 3]);
        let mixed = [0, 1].map(|i| {
            let see = |weights: &Tensor| self.kernels[i].see(weights);
            self.windows[i].attend(&logits[i], Some(&bias[i]), &values.get(i as i64), see)
        });
        Tensor::stack(&mixed, 1)
            .permute([0, 3, 4, 1, 2, 5])
            .flatten(3, 5)
            .permute([0, 3, 1, 2])
    }

    /// [B, G P, H, W] to [B, G, P, HW].
    fn per_head(&self, x: &Tensor) -> Tensor {
        x.flatten(2, 3).unflatten(1, [self.heads, -1])
    }

    /// Logits of every position's slots, the small kernel's first, and what is to be added to them: queries [B, G, HW, P]
    /// and keys [B, G, P, 49] to [B, G, HW, slots] and [G, HW, slots].
    fn slot_logits(&self, q: &Tensor, k: &Tensor, map: [i64; 2]) -> (Tensor, Tensor) {
        let see = |logits: &Tensor| self.logits.see(&logits.permute([0, 3, 1, 2]));
        match &self.folded {
            None => {
                let affinity = work::matmul(&(q * self.scale), k);
                let logits = self.weight_proj.forward(&affinity);
                see(&logits);
                (logits, self.position_bias(&self.position_tables, map))
            }
            Some(folded) => {
                let projected = work::matmul(k, &folded.projection.like(k));
                let logits = work::matmul(q, &projected);
                if taps::recording() {
                    see(&(&logits + folded.bias.like(&logits)));
                }
                let make = || Derived::new(self.offsets(folded, map));
                (logits, folded.offsets.get(map, make, |t| t.like(q)))
            }
        }
    }

    /// Both tables looked up for a map, [G, HW, slots].
    fn position_bias(&self, tables: &[Tensor; 2], map: [i64; 2]) -> Tensor {
        let bias = [0, 1].map(|i| self.windows[i].position_bias(&tables[i], map));
        Tensor::cat(&bias, -1).flatten(1, 2)
    }

    fn offsets(&self, folded: &Folded, map: [i64; 2]) -> Tensor {
        let bias = self.position_bias(&folded.position_tables, map);
        &bias + folded.bias.like(&bias)
    }

    /// Moves the projection from the queries' side to the 49 keys'.
    pub(super) fn fuse(&mut self) {
        if self.folded.is_some() {
            return;
        }
        self.query.fuse();
        let exact = |t: &Tensor| t.detach().to_kind(Kind::Double).copy();
        let (weight, bias) = self.weight_proj.exact();
        let half = [self.widths[0] / 2];
        let scale = Tensor::full(half, self.scale, (Kind::Double, weight.device()));
        let query = self.query.conv_mut();
        query.fold_output(&scale, &scale.zeros_like());
        self.key.fuse();
        self.windows.iter_mut().for_each(Neighborhood::fuse);
        self.folded = Some(Folded {
            projection: Derived::new(weight.flatten(1, -1).tr().contiguous()),
            bias: Derived::new(bias.expect("weight_proj has a bias")),
            position_tables: self.position_tables.each_ref().map(exact),
            offsets: PerMap::default(),
        });
    }
}

/// The size a map is enlarged to where its shorter side is less than the kernel; rounded as the official code does.
fn enlarged_to_hold(kernel: i64, [height, width]: [i64; 2]) -> [i64; 2] {
    let scaled = |short: i64, long: i64| (kernel as f64 / short as f64 * long as f64) as i64;
    if height.min(width) >= kernel {
        [height, width]
    } else if height < width {
        [kernel, scaled(height, width)]
    } else {
        [scaled(width, height), kernel]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_enlarged_as_the_official_code_rounds() {
        assert_eq!(enlarged_to_hold(13, [14, 14]), [14, 14]);
        assert_eq!(enlarged_to_hold(13, [16, 8]), [26, 13]);
        assert_eq!(enlarged_to_hold(13, [3, 27]), [13, 116]);
        for kernel in [7, 13] {
            for (h, w) in (1..kernel).flat_map(|h| (1..300).map(move |w| (h, w))) {
                let sides = [
                    enlarged_to_hold(kernel, [h, w]),
                    enlarged_to_hold(kernel, [w, h]),
                ];
                assert!(sides.iter().flatten().all(|n| *n >= kernel), "{h}x{w}");
            }
        }
    }
}
