use super::fused::attend_with;
use super::*;
use crate::gate_heads;
use crate::grouped_attention::simd::Isa;
use proptest::prelude::*;

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// One problem: sizes, and tensors in f32.
struct Case {
    attention: AggregatedAttention,
    own: [Tensor; 3],
    pooled: [Tensor; 2],
    terms: [Tensor; 6],
    gates: Tensor,
    map: [i64; 2],
}

impl Case {
    fn new(
        batch: i64,
        heads: i64,
        width: i64,
        map: [i64; 2],
        pooled: i64,
        side: i64,
        share: f64,
    ) -> Self {
        let attention = AggregatedAttention::new(side);
        let (count, slots) = (map[0] * map[1], attention.slots());
        // Heads as projections leave them: slices of one row of channels.
        let apart = |tokens: i64, parts: i64| {
            Tensor::randn([batch, tokens, parts, heads, width], F32).permute([2, 0, 3, 1, 4])
        };
        let (own, far) = (apart(count, 3), apart(pooled, 2));
        let outside = attention.inside(map, Device::Cpu).logical_not();
        let local_bias = Tensor::randn([heads, 1, 1, slots], F32)
            .expand([-1, map[0], map[1], -1], false)
            .masked_fill(&outside, f64::NEG_INFINITY);
        let kept = Tensor::rand([batch, count, heads], F32).lt(share);
        Case {
            own: [0, 1, 2].map(|i| own.get(i)),
            pooled: [0, 1].map(|i| far.get(i)),
            terms: [
                Tensor::randn([heads, 1, width], F32) * 0.1,
                Tensor::rand([heads, count, 1], F32) * 8.0,
                local_bias,
                Tensor::randn([heads, pooled, count], F32).transpose(1, 2),
                Tensor::randn([heads, width, slots], F32) * 0.2,
                Tensor::randn([heads, 1, slots], F32) * 0.2,
            ],
            gates: (Tensor::rand([batch, count, heads], F32) + 0.5) * kept.to_kind(Kind::Float),
            attention,
            map,
        }
    }

    fn composed(&self, kind: Kind) -> Tensor {
        let exact = |t: &Tensor| t.to_kind(kind).to_kind(Kind::Double);
        let (own, pooled) = (
            self.own.each_ref().map(exact),
            self.pooled.each_ref().map(exact),
        );
        let terms = self.terms.each_ref().map(|t| t.to_kind(Kind::Double));
        let tokens = tokens(&own, &pooled, self.map);
        let heads = self.attention.forward(&tokens, &as_terms(&terms)).heads;
        gate_heads(&heads, &self.gates.to_kind(Kind::Double))
    }

    fn fused(&self, isa: Isa, kind: Kind) -> Tensor {
        let own = self.own.each_ref().map(|t| t.to_kind(kind));
        let pooled = self.pooled.each_ref().map(|t| t.to_kind(kind));
        let tokens = tokens(&own, &pooled, self.map);
        let side = self.attention.side;
        attend_with(isa, side, &tokens, &as_terms(&self.terms), &self.gates)
    }

    fn holds(&self) {
        for (kind, allowed) in [(Kind::Float, 1e-5), (Kind::BFloat16, 4e-2)] {
            let truth = self.composed(kind);
            for isa in Isa::available() {
                let error = (self.fused(isa, kind).to_kind(Kind::Double) - &truth).abs();
                let error = error.max().double_value(&[]);
                assert!(error < allowed, "{isa:?} {kind:?}: {error:e}");
            }
        }
    }
}

fn tokens<'a>(
    own: &'a [Tensor; 3],
    pooled: &'a [Tensor; 2],
    map: [i64; 2],
) -> AggregatedTokens<'a> {
    AggregatedTokens {
        own: own.each_ref(),
        pooled: pooled.each_ref(),
        map,
    }
}

fn as_terms(terms: &[Tensor; 6]) -> AggregatedTerms<'_> {
    let [
        embedding,
        sharpness,
        local_bias,
        pooled_bias,
        local_tokens,
        local_offset,
    ] = terms;
    AggregatedTerms {
        embedding,
        sharpness,
        local_bias,
        pooled_bias,
        local_tokens,
        local_offset,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_kernel_is_the_definition(
        batch in 1i64..3, heads in 1i64..4, width in 1i64..36, height in 1i64..12, columns in 1i64..12,
        pooled in 1i64..20, half in 0i64..3, share in 0.0f64..1.2,
    ) {
        tch::manual_seed(height * 100 + columns * 10 + width);
        Case::new(batch, heads, width, [height, columns], pooled, 2 * half + 1, share).holds();
    }
}

#[test]
fn maps_of_many_chunks() {
    tch::manual_seed(3);
    Case::new(1, 2, 24, [27, 23], 49, 3, 0.5).holds();
    Case::new(1, 1, 24, [2, 301], 9, 3, 1.0).holds();
}

#[test]
fn the_work_is_that_of_the_heads_that_are_on() {
    tch::manual_seed(4);
    let case = Case::new(2, 4, 8, [6, 5], 7, 3, 2.0);
    let gates = Tensor::zeros([2, 30, 4], F32);
    let _ = gates.narrow(2, 0, 1).fill_(1.0);
    let tokens = tokens(&case.own, &case.pooled, case.map);
    let (_, done) = crate::work::record(|| {
        let terms = as_terms(&case.terms);
        case.attention
            .forward_gated(&tokens, &terms, &gates)
            .unwrap()
    });
    let macs: Vec<u64> = done.contractions.iter().map(|c| c.macs).collect();
    let dense: Vec<u64> = done.contractions.iter().map(|c| c.dense).collect();
    // 2 images; 30 tokens with 7 pooled keys and 9 slots, of which 16 * 13 in all are inside.
    assert_eq!(
        macs,
        [
            2 * (30 * 7 + 208) * 8,
            2 * (30 * 7 + 208) * 8,
            2 * 30 * 9 * 8
        ]
    );
    assert_eq!(
        dense,
        [2 * 4 * 30 * 16 * 8, 2 * 4 * 30 * 16 * 8, 2 * 4 * 30 * 9 * 8]
    );
}

#[test]
fn training_takes_the_definition() {
    let case = Case::new(1, 1, 4, [3, 3], 2, 3, 2.0);
    let own = case
        .own
        .each_ref()
        .map(|t| t.copy().set_requires_grad(true));
    let tokens = tokens(&own, &case.pooled, case.map);
    let terms = as_terms(&case.terms);
    assert!(
        case.attention
            .forward_gated(&tokens, &terms, &case.gates)
            .is_none()
    );
}
