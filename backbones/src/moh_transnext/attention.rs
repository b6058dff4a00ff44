//! Cosine attention with gated heads: over a token's neighbours and pooled tokens, or over all tokens.

use super::position::PositionBias;
use super::{EMBED_EPS, map_of, tokens_of};
use tch::{Kind, Tensor, nn};
use zoo_ops::taps::{self, Tap};
use zoo_ops::work;
use zoo_ops::{
    Aggregated, AggregatedAttention as Operator, AggregatedTerms, AggregatedTokens, Derived,
    HeadRouter, HeadRouting, LayerNorm, Linear, PerMap, gate_heads, gated_attention, split_heads,
    unit,
};

/// Neighbours of a query along each side, itself included.
const WINDOW: i64 = 3;

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

/// What an attention gives.
enum Attended {
    /// Heads, [B, n, N, D], to be gated.
    Heads(Tensor),
    /// Gated heads side by side, [B, N, C].
    Gated(Tensor),
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

    /// `residual` + the projection of gated heads.
    fn forward_add(&self, attended: &Attended, gates: &Tensor, residual: &Tensor) -> Tensor {
        let gated = match attended {
            Attended::Gated(gated) => gated.shallow_clone(),
            Attended::Heads(heads) => {
                self.heads.see(&heads.transpose(1, 2));
                gate_heads(heads, gates)
            }
        };
        if taps::recording() {
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
    operator: Operator,
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
    learnt: [Derived; 3],
    tables: PerMap<[Derived; 3]>,
}

/// What [`AggregatedTerms`] borrows.
struct Terms {
    /// Embedding, weights and offsets of the learnt part: [n, 1, D], [n, D, 9], [n, 1, 9].
    learnt: [Tensor; 3],
    /// Tables of a map: sharpness [n, N, 1], logits' offsets of neighbours [n, H, W, 9] and of pooled keys [n, N, P].
    tables: [Tensor; 3],
}

impl Terms {
    fn borrow(&self) -> AggregatedTerms<'_> {
        let [embedding, local_tokens, local_offset] = &self.learnt;
        let [sharpness, local_bias, pooled_bias] = &self.tables;
        AggregatedTerms {
            embedding,
            sharpness,
            local_bias,
            pooled_bias,
            local_tokens,
            local_offset,
        }
    }
}

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
            operator: Operator::new(WINDOW),
            output: Output::new(p, width, routing),
            heads,
            pooling,
            folded: None,
        }
    }

    /// `residual` + attention of the normed tokens `x` [B, N, C] of a `map`.
    pub(super) fn forward_add(&self, x: &Tensor, residual: &Tensor, map: [i64; 2]) -> Tensor {
        let projected = self.project(x);
        let attended = self.attend(&projected, map);
        self.output
            .forward_add(&attended, &projected.gates, residual)
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

    /// Heads, or what the kernel makes of them: [B, N, C], gated.
    fn attend(&self, projected: &Projected, map: [i64; 2]) -> Attended {
        let q = split_heads(&projected.q, self.heads);
        let kv = head_parts(&projected.kv, self.heads, 2);
        let pooled = head_parts(&self.pool(&projected.pool, map), self.heads, 2);
        let tokens = AggregatedTokens {
            own: [&q, &kv[0], &kv[1]],
            pooled: [&pooled[0], &pooled[1]],
            map,
        };
        let gates = &projected.gates;
        if self.folded.is_some() && !taps::recording() {
            let terms = self.terms(map, &gates.to_kind(Kind::Float));
            let gated = self.operator.forward_gated(&tokens, &terms.borrow(), gates);
            if let Some(gated) = gated {
                return Attended::Gated(gated);
            }
        }
        let terms = self.terms(map, &q);
        let Aggregated { heads, attn } = self.operator.forward(&tokens, &terms.borrow());
        self.output.attn.see(&attn);
        Attended::Heads(heads)
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

    /// The terms for a map, of the kind of `x` once folded.
    fn terms(&self, map: [i64; 2], x: &Tensor) -> Terms {
        let (learnt, tables) = match &self.folded {
            None => (
                self.learnt().map(Tensor::shallow_clone),
                self.make_tables(&self.scale.temperature, &self.local_bias, map),
            ),
            Some(folded) => {
                let (temperature, bias) = (&folded.temperature, &folded.local_bias);
                let make = || self.make_tables(temperature, bias, map).map(Derived::new);
                let like = |t: &[Derived; 3]| t.each_ref().map(|t| t.like(x));
                (
                    folded.learnt.each_ref().map(|t| t.like(x)),
                    folded.tables.get(map, make, like),
                )
            }
        };
        Terms { learnt, tables }
    }

    fn learnt(&self) -> [&Tensor; 3] {
        [
            &self.scale.embedding,
            &self.local_tokens,
            &self.local_offset,
        ]
    }

    fn make_tables(&self, temperature: &Tensor, bias: &Tensor, map: [i64; 2]) -> [Tensor; 3] {
        let inside = self.operator.inside(map, bias.device());
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
            learnt: self.learnt().map(|t| Derived::new(exact(t))),
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
        let attended = self.attend([&q, &unit(&parts[1]), &parts[2]], &bias, &gates);
        self.output.forward_add(&attended, &gates, residual)
    }

    fn attend(&self, [q, k, v]: [&Tensor; 3], bias: &Tensor, gates: &Tensor) -> Attended {
        if self.folded.is_some()
            && !taps::recording()
            && let Some(gated) = gated_attention([q, k, v], gates, 1.0, Some(bias))
        {
            return Attended::Gated(gated);
        }
        let logits = work::matmul(q, &k.transpose(-2, -1)) + bias;
        let attn = logits.softmax(-1, None::<Kind>);
        self.output.attn.see(&attn);
        Attended::Heads(work::matmul(&attn, v))
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
