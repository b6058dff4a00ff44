use super::fused::attend_with;
use super::simd::Isa;
use super::*;
use proptest::prelude::*;
use tch::Device;

const CPU: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Reproducible values in -1..1 that bf16 holds exactly.
fn noise(seed: i64, shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    let phase = Tensor::arange(count, CPU) * 12.9898 + (seed as f64) * 78.233;
    let x = phase.sin() * 43_758.545_3;
    let x = (&x - x.floor()) * 2.0 - 1.0;
    x.to_kind(Kind::BFloat16)
        .to_kind(Kind::Double)
        .reshape(shape)
}

fn at(t: &Tensor, place: &[i64]) -> f64 {
    t.double_value(place)
}

/// One problem, in float64.
struct Case {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Tiles,
    keys: Tiles,
    index: Option<Tensor>,
    bias: Option<Tensor>,
    scale: f64,
}

impl Case {
    /// The definition, pair by pair.
    fn naive(&self) -> Tensor {
        let (q, v) = (self.q.size(), self.v.size());
        let (batch, heads, width) = (q[0], q[3], v[4]);
        let out = Tensor::zeros([batch, q[1], q[2], heads * width], CPU);
        let (groups, tokens) = (self.queries.count, self.queries.size);
        for b in 0..batch {
            for group in 0..groups[0] * groups[1] {
                for token in 0..tokens[0] * tokens[1] {
                    let [row, column] = place(&self.queries, group, token);
                    if row >= q[1] || column >= q[2] {
                        continue;
                    }
                    for head in 0..heads {
                        let query = self.q.get(b).get(row).get(column).get(head);
                        let values = self.one(b, group, token, head, &query);
                        let target = out.get(b).get(row).get(column);
                        target.narrow(0, head * width, width).copy_(&values);
                    }
                }
            }
        }
        out
    }

    fn one(&self, b: i64, group: i64, token: i64, head: i64, query: &Tensor) -> Tensor {
        let listed = match &self.index {
            None => vec![group],
            Some(index) => Vec::<i64>::try_from(index.get(b).get(group)).unwrap(),
        };
        let mut scores = Vec::new();
        let mut values = Vec::new();
        let size = self.k.size();
        for tile in listed {
            for key in 0..self.keys.size[0] * self.keys.size[1] {
                let [row, column] = place(&self.keys, tile, key);
                let bias = match &self.bias {
                    None => 0.0,
                    Some(t) => at(t, &[b, group, head, token, scores.len() as i64]),
                };
                let inside = (0..size[1]).contains(&row) && (0..size[2]).contains(&column);
                let pick = |t: &Tensor| t.get(b).get(row).get(column).get(head);
                if inside {
                    let product = query.dot(&pick(&self.k)).double_value(&[]);
                    scores.push(product * self.scale + bias);
                    values.push(pick(&self.v));
                } else {
                    scores.push(bias);
                    values.push(Tensor::zeros([self.v.size()[4]], CPU));
                }
            }
        }
        let weights = Tensor::from_slice(&scores).softmax(0, None::<Kind>);
        weights
            .unsqueeze(0)
            .matmul(&Tensor::stack(&values, 0))
            .squeeze()
    }

    fn fused(&self, isa: Isa, kind: Kind) -> Tensor {
        let to = |t: &Tensor| t.to_kind(kind);
        let bias = self.bias.as_ref().map(|t| t.to_kind(Kind::Float));
        let pattern = Pattern {
            queries: self.queries,
            keys: self.keys,
            index: self.index.as_ref(),
            scale: self.scale,
            bias: bias.as_ref().map_or(Bias::None, Bias::Pairs),
            gates: None,
        };
        attend_with(isa, &to(&self.q), &to(&self.k), &to(&self.v), &pattern)
    }

    fn holds(&self) {
        let truth = self.naive();
        for isa in Isa::available() {
            let error = (self.fused(isa, Kind::Float) - &truth).abs().max();
            assert!(error.double_value(&[]) < 1e-5, "{isa:?} f32: {error:?}");
            let error = (self.fused(isa, Kind::BFloat16) - &truth).abs().max();
            assert!(error.double_value(&[]) < 5e-3, "{isa:?} bf16: {error:?}");
        }
    }
}

fn place(tiles: &Tiles, tile: i64, token: i64) -> [i64; 2] {
    let (r, c) = (tile / tiles.count[1], tile % tiles.count[1]);
    let (i, j) = (token / tiles.size[1], token % tiles.size[1]);
    [
        tiles.origin[0] + r * tiles.step[0] + i * tiles.dilation[0],
        tiles.origin[1] + c * tiles.step[1] + j * tiles.dilation[1],
    ]
}

/// Queries, keys and values as slices of one projection, heads apart.
fn projected(map: [i64; 2], heads: i64, dim: i64, value_dim: i64) -> [Tensor; 3] {
    let width = heads * (2 * dim + value_dim);
    let qkv = noise(1, &[2, map[0], map[1], width]);
    let split = qkv.split_with_sizes([heads * dim, heads * dim, heads * value_dim], -1);
    [0, 1, 2].map(|i| split[i].unflatten(-1, [heads, -1]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn routed_regions(
        map in [1i64..13, 1i64..13], size in [1i64..6, 1i64..6],
        heads in 1i64..4, dim in 1i64..40, value_dim in 1i64..40, listed in 1i64..4,
    ) {
        tch::set_num_threads(2);
        let [q, k, v] = projected(map, heads, dim, value_dim);
        let regions = Regions::of_size(map, size);
        let listed = listed.min(regions.len());
        let logits = noise(2, &[2, regions.len(), regions.len()]);
        let index = crate::routing::top_regions(&logits, listed);
        let tiles = regions.into();
        let scale = (dim as f64).powf(-0.5);
        Case { q, k, v, queries: tiles, keys: tiles, index: Some(index), bias: None, scale }.holds();
    }

    #[test]
    fn halos_with_bias(
        map in [1i64..9, 1i64..9], size in [1i64..5, 1i64..5], halo in 0i64..3,
        heads in 1i64..3, dim in 1i64..20,
    ) {
        let [q, k, v] = projected(map, heads, dim, dim);
        let queries = Tiles::from(Regions::of_size(map, size));
        let keys = queries.with_halo(halo);
        let shape = [1, 1, heads, size[0] * size[1], keys.size[0] * keys.size[1]];
        let groups = queries.count[0] * queries.count[1];
        let bias = noise(3, &shape).expand([2, groups, -1, -1, -1], false) * 3.0;
        Case { q, k, v, queries, keys, index: None, bias: Some(bias), scale: 1.0 }.holds();
    }

    #[test]
    fn spread_grids(map in [1i64..10, 1i64..10], size in [1i64..4, 1i64..4]) {
        let [q, k, v] = projected(map, 2, 8, 8);
        let tiles = Regions::of_size(map, size).spread().into();
        Case { q, k, v, queries: tiles, keys: tiles, index: None, bias: None, scale: 0.5 }.holds();
    }
}

#[test]
fn relative_positions_are_products_with_their_tables() {
    let [q, k, v] = projected([6, 6], 2, 8, 8);
    let queries = Tiles::from(Regions::of_size([6, 6], [3, 2]));
    let keys = queries.with_halo(1);
    let table = |seed, lines| noise(seed, &[2 * lines - 1, 8]);
    let (rows, columns) = (table(4, keys.size[0]), table(5, keys.size[1]));
    let mut pairs = Vec::new();
    let regions = Regions::of_size([6, 6], [3, 2]).partition(&q.flatten(3, 4));
    let by_head = regions.unflatten(3, [2, 8]).transpose(2, 3);
    for (r, c) in (0..3).flat_map(|r| (0..2).map(move |c| (r, c))) {
        let query = by_head.select(3, r * 2 + c);
        let mut of_query = Vec::new();
        for (i, j) in (0..5).flat_map(|i| (0..4).map(move |j| (i, j))) {
            let sum = rows.get(i - r + 4) + columns.get(j - c + 3);
            of_query.push((&query * sum).sum_dim_intlist([-1i64].as_slice(), false, None));
        }
        pairs.push(Tensor::stack(&of_query, -1));
    }
    let pairs = Tensor::stack(&pairs, 3);
    let f32 = |t: &Tensor| t.to_kind(Kind::Float);
    let (pairs, rows, columns) = (f32(&pairs), f32(&rows), f32(&columns));
    let with = |bias| {
        let pattern = Pattern {
            queries,
            keys,
            index: None,
            scale: 0.3,
            bias,
            gates: None,
        };
        attend(&f32(&q), &f32(&k), &f32(&v), &pattern)
    };
    let relative = with(Bias::Relative(&rows, &columns));
    let error = (with(Bias::Pairs(&pairs)) - relative).abs().max();
    assert!(error.double_value(&[]) < 1e-5);
}

#[test]
fn many_keys_and_great_scores_keep_their_digits() {
    let map = [17, 13];
    let [q, k, v] = projected(map, 1, 16, 24);
    let tiles = Tiles::from(Regions::whole(map));
    let q = q * 8.0;
    Case {
        q,
        k,
        v,
        queries: tiles,
        keys: tiles,
        index: None,
        bias: None,
        scale: 1.0,
    }
    .holds();
}

#[test]
fn not_a_number_is_not_hidden() {
    let map = [4, 4];
    let [q, k, v] = projected(map, 1, 4, 4).map(|t| t.to_kind(Kind::Float));
    let poison = Tensor::zeros_like(&k);
    let _ = poison.get(0).get(2).get(1).fill_(f64::NAN);
    let tiles = Tiles::from(Regions::whole(map));
    let pattern = Pattern {
        queries: tiles,
        keys: tiles,
        index: None,
        scale: 1.0,
        bias: Bias::None,
        gates: None,
    };
    let out = attend(&q, &(k + poison), &v, &pattern);
    assert!(bool::try_from(out.get(0).isnan().all()).unwrap());
    assert!(!bool::try_from(out.get(1).isnan().any()).unwrap());
}

#[test]
fn the_composed_form_pads_with_zero_vectors() {
    let map = [5, 7];
    let [q, k, v] = projected(map, 2, 8, 8);
    let regions = Regions::of_size(map, [2, 3]);
    let index = crate::routing::top_regions(&noise(6, &[2, regions.len(), regions.len()]), 3);
    let attention = GroupedAttention {
        regions,
        heads: 2,
        scale: 0.25,
        fused: true,
    };
    let flat = |t: &Tensor| t.flatten(3, 4);
    let composed = attention.forward(&flat(&q), &flat(&k), &flat(&v), Some(&index));
    let tiles = regions.into();
    let case = Case {
        q,
        k,
        v,
        queries: tiles,
        keys: tiles,
        index: Some(index),
        bias: None,
        scale: 0.25,
    };
    let error = (composed - case.naive()).abs().max();
    assert!(error.double_value(&[]) < 1e-12);
}

#[test]
fn the_forms_agree_on_a_bias() {
    let map = [6, 9];
    let [q, k, v] = projected(map, 2, 8, 8).map(|t| t.flatten(3, 4).to_kind(Kind::Float));
    let bias = noise(7, &[2, 6, 6]).to_kind(Kind::Float);
    let regions = Regions::of_size(map, [2, 3]).spread();
    let with = |fused| {
        let attention = GroupedAttention {
            regions,
            heads: 2,
            scale: 0.25,
            fused,
        };
        attention.forward_biased(&q, &k, &v, &bias)
    };
    let error = (with(true) - with(false)).abs().max();
    assert!(error.double_value(&[]) < 1e-5);
}

#[test]
fn gradients_take_the_composed_form() {
    let map = [4, 4];
    let [q, k, v] = projected(map, 2, 8, 8).map(|t| t.flatten(3, 4).to_kind(Kind::Float));
    let q = q.contiguous().set_requires_grad(true);
    let attention = GroupedAttention {
        regions: Regions::of_size(map, [2, 2]),
        heads: 2,
        scale: 0.25,
        fused: true,
    };
    attention
        .forward(&q, &k, &v, None)
        .sum(Kind::Float)
        .backward();
    assert!(q.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
}

#[test]
fn a_trace_sees_the_composed_form() {
    let map = [4, 4];
    let of = |qkv: &Tensor| {
        let parts = qkv.chunk(3, -1);
        let attention = GroupedAttention {
            regions: Regions::of_size(map, [2, 2]),
            heads: 2,
            scale: 0.25,
            fused: true,
        };
        attention.forward(&parts[0], &parts[1], &parts[2], None)
    };
    let [one, other] = [8, 9].map(|seed| noise(seed, &[1, 4, 4, 24]).to_kind(Kind::Float));
    let mut traced = |x: &[Tensor]| vec![of(&x[0])];
    let module = tch::CModule::create_by_tracing("m", "forward", &[one], &mut traced).unwrap();
    let out = module.method_ts("forward", &[&other]).unwrap();
    let error = (out - of(&other)).abs().max();
    assert!(error.double_value(&[]) < 1e-6);
}
