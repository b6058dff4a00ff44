//! Cosine attention with gated heads: over a token's neighbours and pooled tokens, or over all tokens.

use super::{EMBED_EPS, map_of, tokens_of};
use tch::{Kind, Tensor, nn};
use zoo_ops::taps::Tap;
use zoo_ops::work;
use zoo_ops::{
    Border, Derived, HeadRouter, HeadRouting, LayerNorm, Linear, Neighborhood, PerMap, gate_heads,
    split_heads,
};

/// Neighbours of a query along each side, itself included.
const WINDOW: i64 = 3;
/// Hidden width of the position network.
const POSITION_HIDDEN: i64 = 512;
/// Coordinates run to this many units at the pre-trained size.
const COORDINATE_RANGE: f64 = 8.0;

/// x / max(|x|, 1e-12) over the last axis.
fn unit(x: &Tensor) -> Tensor {
    x / x
        .norm_scalaropt_dim(2, [-1i64].as_slice(), true)
        .clamp_min(1e-12)
}

/// Logits of every pair of a query and a pooled key by their distance: a small network of log-spaced coordinates.
///
/// Names: `cpb_fc1` [512, 2], `cpb_fc2` [heads, 512].
#[derive(Debug)]
struct PositionBias {
    fc1: Linear,
    fc2: Linear,
    pooling: i64,
    /// Side of the stage's map at the pre-trained size.
    side: i64,
    exact: Option<[(Tensor, Tensor); 2]>,
}

impl PositionBias {
    fn new(p: &nn::Path, heads: i64, pooling: i64, side: i64) -> Self {
        PositionBias {
            fc1: Linear::new(p / "cpb_fc1", 2, POSITION_HIDDEN, true),
            fc2: Linear::new(p / "cpb_fc2", POSITION_HIDDEN, heads, true),
            pooling,
            side,
            exact: None,
        }
    }

    /// [heads, N, P] for a map of N queries, pooled to P keys, row-major both.
    ///
    /// Distances repeat: the network sees each distinct pair of a row and a column distance once.
    fn table(&self, map: [i64; 2]) -> Tensor {
        let [rows, columns] = map.map(|n| self.coordinates(n));
        let grid = [
            rows.unsqueeze(1).expand([-1, columns.size()[0]], false),
            columns.unsqueeze(0).expand([rows.size()[0], -1], false),
        ];
        let biases = self.network(&Tensor::stack(&grid, -1));
        let [row, column] = map.map(|n| self.distance_index(n, biases.device()));
        let pooled = map.map(|n| n / self.pooling);
        biases
            .index_select(0, &row)
            .index_select(1, &column)
            .unflatten(1, [map[1], pooled[1]])
            .unflatten(0, [map[0], pooled[0]])
            .permute([4, 0, 2, 1, 3])
            .flatten(3, 4)
            .flatten(1, 2)
    }

    fn network(&self, coordinates: &Tensor) -> Tensor {
        match &self.exact {
            None => {
                let x = coordinates
                    .to_device(self.fc1.device())
                    .to_kind(self.fc1.kind());
                self.fc2.forward(&self.fc1.forward(&x).relu())
            }
            Some([first, second]) => coordinates
                .to_device(first.0.device())
                .to_kind(Kind::Double)
                .linear(&first.0, Some(&first.1))
                .relu()
                .linear(&second.0, Some(&second.1)),
        }
    }

    /// The distinct distances of `length` queries to the centres of the pooled keys, ascending, log-spaced; in single
    /// precision as the official code has them, and on the CPU, since GPUs round logarithms otherwise.
    fn coordinates(&self, length: i64) -> Tensor {
        let furthest = length - self.pooling;
        let centre = (self.pooling - 1) as f64 / 2.0;
        let distances = Tensor::arange(length + furthest, (Kind::Float, tch::Device::Cpu));
        let scaled = (distances - (furthest as f64 + centre)) / (self.side - 1) as f64;
        let scaled = scaled * COORDINATE_RANGE;
        scaled.sign() * (scaled.abs() + 1.0).log2() / COORDINATE_RANGE.log2()
    }

    /// Which of them each pair of a query and a pooled key has: [length * pooled].
    fn distance_index(&self, length: i64, device: tch::Device) -> Tensor {
        let range = |n| Tensor::arange(n, (Kind::Int64, device));
        let keys = range(length / self.pooling) * self.pooling;
        let distances = range(length).unsqueeze(1) - keys + (length - self.pooling);
        distances.flatten(0, 1)
    }

    /// Keeps the weights as they are now, in float64.
    fn fuse(&mut self) {
        let exact = |layer: &Linear| {
            let (weight, bias) = layer.exact();
            (weight.copy(), bias.expect("the layer has a bias").copy())
        };
        self.exact = Some([exact(&self.fc1), exact(&self.fc2)]);
    }
}

/// Unit queries, moved by a learnt embedding and sharpened by a learnt temperature and the number of keys.
///
/// Names: `temperature` [heads, 1, 1], `query_embedding` [heads, 1, D].
#[derive(Debug)]
struct QueryScale {
    temperature: Tensor,
    embedding: Tensor,
}

impl QueryScale {
    fn new(p: &nn::Path, heads: i64, head_width: i64) -> Self {
        QueryScale {
            temperature: p.ones("temperature", &[heads, 1, 1]),
            embedding: p.zeros("query_embedding", &[heads, 1, head_width]),
        }
    }

    /// Unit queries [B, heads, N, D], sharpness [heads, N or 1, 1].
    fn apply(&self, unit: &Tensor, sharpness: &Tensor) -> Tensor {
        (unit + &self.embedding) * sharpness
    }

    /// softplus(temperature) times the logarithm of each query's number of keys ([N, 1] or a number).
    fn sharpness(temperature: &Tensor, log_keys: &Tensor) -> Tensor {
        let log_keys = log_keys
            .to_device(temperature.device())
            .to_kind(temperature.kind());
        temperature.softplus() * log_keys
    }
}

fn exact(t: &Tensor) -> Tensor {
    t.detach().to_kind(Kind::Double).copy()
}

fn head_parts(x: &Tensor, heads: i64, parts: i64) -> Vec<Tensor> {
    x.chunk(parts, -1)
        .iter()
        .map(|part| split_heads(part, heads))
        .collect()
}

/// What leaves the heads: gates, output projection, and what records show of them.
#[derive(Debug)]
struct Output {
    router: HeadRouter,
    proj: Linear,
    attn: Tap,
    heads: Tap,
    out: Tap,
}

impl Output {
    fn new(p: &nn::Path, width: i64, routing: HeadRouting) -> Self {
        Output {
            router: HeadRouter::new(p, width, routing),
            proj: Linear::new(p / "proj", width, width, true),
            attn: Tap::new(p, "attn"),
            heads: Tap::new(p, "heads"),
            out: Tap::new(p, "out"),
        }
    }

    /// `residual` + the projection of gated heads [B, n, N, D].
    fn forward_add(&self, heads: &Tensor, gates: &Tensor, residual: &Tensor) -> Tensor {
        self.heads.see(&heads.transpose(1, 2));
        let gated = gate_heads(heads, gates);
        if zoo_ops::taps::recording() {
            self.out.see(&self.proj.forward(&gated));
        }
        self.proj.forward_add(&gated, residual)
    }
}

/// Attention over the 3x3 neighbours and the pooled map, with one softmax, and learnt position-dependent weights of the
/// neighbours added behind it.
#[derive(Debug)]
pub(super) struct AggregatedAttention {
    q: Linear,
    kv: Linear,
    pool_proj: Linear,
    pool_norm: LayerNorm,
    scale: QueryScale,
    position: PositionBias,
    /// `relative_pos_bias_local` [n, 9], `learnable_tokens` [n, D, 9], `learnable_bias` [n, 1, 9].
    local_bias: Tensor,
    local_tokens: Tensor,
    local_offset: Tensor,
    window: Neighborhood,
    output: Output,
    heads: i64,
    pooling: i64,
    folded: Option<FoldedAggregated>,
}

/// What is known once the weights are final.
#[derive(Debug)]
struct FoldedAggregated {
    /// q, kv, the pooled map's projection and the router, norm1 folded.
    joint: Linear,
    widths: Vec<i64>,
    /// kv for pooled tokens, their norm folded.
    pooled_kv: Linear,
    temperature: Tensor,
    local_bias: Tensor,
    tables: PerMap<[Derived; 3]>,
}

/// Tables of a map: sharpness [n, N, 1], logits' offsets of neighbours [n, H, W, 9] and of pooled keys [n, N, P].
struct Tables([Tensor; 3]);

/// The projections of tokens: queries [B, N, C], keys and values side by side, tokens to be pooled, gates.
struct Projected {
    q: Tensor,
    kv: Tensor,
    pool: Tensor,
    gates: Tensor,
}

impl AggregatedAttention {
    pub(super) fn new(
        p: &nn::Path,
        width: i64,
        routing: HeadRouting,
        pooling: i64,
        side: i64,
    ) -> Self {
        let heads = routing.heads;
        let slots = WINDOW * WINDOW;
        AggregatedAttention {
            q: Linear::new(p / "q", width, width, true),
            kv: Linear::new(p / "kv", width, 2 * width, true),
            pool_proj: Linear::pointwise(p / "sr", width, width, true),
            pool_norm: LayerNorm::new(p / "norm", width, EMBED_EPS),
            scale: QueryScale::new(p, heads, width / heads),
            position: PositionBias::new(p, heads, pooling, side),
            local_bias: p.zeros("relative_pos_bias_local", &[heads, slots]),
            local_tokens: p.zeros("learnable_tokens", &[heads, width / heads, slots]),
            local_offset: p.zeros("learnable_bias", &[heads, 1, slots]),
            window: Neighborhood::new([WINDOW; 2], Border::Cut),
            output: Output::new(p, width, routing),
            heads,
            pooling,
            folded: None,
        }
    }

    /// `residual` + attention of the normed tokens `x` [B, N, C] of a `map`.
    pub(super) fn forward_add(&self, x: &Tensor, residual: &Tensor, map: [i64; 2]) -> Tensor {
        let projected = self.project(x);
        let heads = self.attend(&projected, map);
        self.output.forward_add(&heads, &projected.gates, residual)
    }

    fn project(&self, x: &Tensor) -> Projected {
        let router = &self.output.router;
        match &self.folded {
            None => Projected {
                q: self.q.forward(x),
                kv: self.kv.forward(x),
                pool: self.pool_proj.forward(x),
                gates: router.gates(x),
            },
            Some(folded) => {
                let joint = folded.joint.forward(x);
                let parts = joint.split_with_sizes(&folded.widths, -1);
                let part = |i: usize| parts[i].shallow_clone();
                Projected {
                    q: part(0),
                    kv: part(1),
                    pool: part(2),
                    gates: router.gates_of(&parts[3]),
                }
            }
        }
    }

    /// [B, n, N, D].
    fn attend(&self, projected: &Projected, map: [i64; 2]) -> Tensor {
        let Tables([sharpness, local_bias, pooled_bias]) = self.tables(map, &projected.q);
        let unit_q = unit(&split_heads(&projected.q, self.heads));
        let q = self.scale.apply(&unit_q, &sharpness);
        let kv = head_parts(&projected.kv, self.heads, 2);
        let pooled = head_parts(&self.pool(&projected.pool, map), self.heads, 2);

        let on_map = |t: &Tensor| t.unflatten(2, map);
        let local = self.window.scores(&on_map(&q), &on_map(&unit(&kv[0]))) + local_bias;
        let global = work::matmul(&q, &unit(&pooled[0]).transpose(-2, -1)) + pooled_bias;
        let attn = Tensor::cat(&[local.flatten(2, 3), global], -1).softmax(-1, None::<Kind>);
        self.output.attn.see(&attn);

        let slots = self.window.slots();
        let pooled_keys = pooled[0].size()[2];
        let attn = attn.split_with_sizes([slots, pooled_keys], -1);
        let local = &attn[0] + work::matmul(&unit_q, &self.local_tokens) + &self.local_offset;
        let near = self.window.mix(&on_map(&local), &on_map(&kv[1]));
        near.flatten(2, 3) + work::matmul(&attn[1], &pooled[1])
    }

    /// Keys and values of the pooled map: projected tokens [B, N, C] to [B, P, 2C].
    fn pool(&self, projected: &Tensor, map: [i64; 2]) -> Tensor {
        let window = [self.pooling; 2];
        let pooled = map_of(&projected.gelu("none"), map).avg_pool2d(
            window,
            window,
            [0, 0],
            false,
            true,
            None,
        );
        let pooled = self.pool_norm.forward(&tokens_of(&pooled));
        match &self.folded {
            None => self.kv.forward(&pooled),
            Some(folded) => folded.pooled_kv.forward(&pooled),
        }
    }

    fn tables(&self, map: [i64; 2], x: &Tensor) -> Tables {
        match &self.folded {
            None => Tables(self.make_tables(&self.scale.temperature, &self.local_bias, map)),
            Some(folded) => {
                let (temperature, bias) = (&folded.temperature, &folded.local_bias);
                let make = || self.make_tables(temperature, bias, map).map(Derived::new);
                let like = |t: &[Derived; 3]| Tables(t.each_ref().map(|t| t.like(x)));
                folded.tables.get(map, make, like)
            }
        }
    }

    fn make_tables(&self, temperature: &Tensor, bias: &Tensor, map: [i64; 2]) -> [Tensor; 3] {
        let inside = self.window.inside(map, bias.device());
        let pooled_keys = map.iter().map(|n| n / self.pooling).product::<i64>();
        let keys = inside.sum_dim_intlist(-1, true, Kind::Float) + pooled_keys as f64;
        // On the CPU as the coordinates are.
        let log_keys = keys.to_device(tch::Device::Cpu).log().flatten(0, 1);
        let outside = inside.logical_not();
        let local = bias
            .unsqueeze(1)
            .unsqueeze(1)
            .masked_fill(&outside, f64::NEG_INFINITY);
        [
            QueryScale::sharpness(temperature, &log_keys),
            local,
            self.position.table(map),
        ]
    }

    /// Makes all that reads the normed tokens one projection, and folds both norms.
    pub(super) fn fuse(&mut self, norm: &mut LayerNorm) {
        if self.folded.is_some() {
            return;
        }
        let mut layers = vec![&self.q, &self.kv, &self.pool_proj];
        layers.extend(self.output.router.layers());
        let mut joint = Linear::side_by_side(&layers);
        norm.fold_into(&mut joint);
        joint.fuse();
        let mut pooled_kv = Linear::side_by_side(&[&self.kv]);
        self.pool_norm.fold_into(&mut pooled_kv);
        pooled_kv.fuse();
        let width = self.q.width();
        let routers = joint.width() - 4 * width;
        self.position.fuse();
        self.output.proj.fuse();
        self.folded = Some(FoldedAggregated {
            joint,
            widths: vec![width, 2 * width, width, routers],
            pooled_kv,
            temperature: exact(&self.scale.temperature),
            local_bias: exact(&self.local_bias),
            tables: PerMap::default(),
        });
    }
}

/// Attention over all tokens, in the last stage.
#[derive(Debug)]
pub(super) struct GlobalAttention {
    qkv: Linear,
    scale: QueryScale,
    position: PositionBias,
    output: Output,
    heads: i64,
    folded: Option<FoldedGlobal>,
}

#[derive(Debug)]
struct FoldedGlobal {
    /// qkv and the router, norm1 folded.
    joint: Linear,
    widths: Vec<i64>,
    temperature: Tensor,
    /// Sharpness [n, 1, 1] and position logits [n, N, N].
    tables: PerMap<[Derived; 2]>,
}

impl GlobalAttention {
    pub(super) fn new(p: &nn::Path, width: i64, routing: HeadRouting, side: i64) -> Self {
        let heads = routing.heads;
        GlobalAttention {
            qkv: Linear::new(p / "qkv", width, 3 * width, true),
            scale: QueryScale::new(p, heads, width / heads),
            position: PositionBias::new(p, heads, 1, side),
            output: Output::new(p, width, routing),
            heads,
            folded: None,
        }
    }

    /// `residual` + attention of the normed tokens `x` [B, N, C] of a `map`.
    pub(super) fn forward_add(&self, x: &Tensor, residual: &Tensor, map: [i64; 2]) -> Tensor {
        let router = &self.output.router;
        let (qkv, gates) = match &self.folded {
            None => (self.qkv.forward(x), router.gates(x)),
            Some(folded) => {
                let parts = folded.joint.forward(x).split_with_sizes(&folded.widths, -1);
                (parts[0].shallow_clone(), router.gates_of(&parts[1]))
            }
        };
        let [sharpness, bias] = self.tables(map, &qkv);
        let parts = head_parts(&qkv, self.heads, 3);
        let q = self.scale.apply(&unit(&parts[0]), &sharpness);
        let attn =
            (work::matmul(&q, &unit(&parts[1]).transpose(-2, -1)) + bias).softmax(-1, None::<Kind>);
        self.output.attn.see(&attn);
        self.output
            .forward_add(&work::matmul(&attn, &parts[2]), &gates, residual)
    }

    fn tables(&self, map: [i64; 2], x: &Tensor) -> [Tensor; 2] {
        let make = |temperature: &Tensor| {
            let keys = (map[0] * map[1]) as f64;
            [temperature.softplus() * keys.ln(), self.position.table(map)]
        };
        match &self.folded {
            None => make(&self.scale.temperature),
            Some(folded) => folded.tables.get(
                map,
                || make(&folded.temperature).map(Derived::new),
                |tables| tables.each_ref().map(|t| t.like(x)),
            ),
        }
    }

    /// Makes all that reads the normed tokens one projection, and folds the norm.
    pub(super) fn fuse(&mut self, norm: &mut LayerNorm) {
        if self.folded.is_some() {
            return;
        }
        let mut layers = vec![&self.qkv];
        layers.extend(self.output.router.layers());
        let mut joint = Linear::side_by_side(&layers);
        norm.fold_into(&mut joint);
        joint.fuse();
        let width = self.qkv.width();
        self.position.fuse();
        self.output.proj.fuse();
        self.folded = Some(FoldedGlobal {
            widths: vec![width, joint.width() - width],
            joint,
            temperature: exact(&self.scale.temperature),
            tables: PerMap::default(),
        });
    }
}
