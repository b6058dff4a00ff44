//! Published figures, recomputed from what their authors published of the counts.

use zoo_energy::constants::{AC_F32, MAC_F32};
use zoo_energy::{Contraction, Counts, Op, Operand, SummedSpikes, Values, customary, millijoules};

const STEPS: u64 = 4;

fn layer(module: &str, operations: f64, input: Operand, bias: bool) -> Contraction {
    Contraction {
        module: module.to_owned(),
        op: Op::Convolution,
        macs: operations,
        steps: 1,
        weights: 1,
        biases: bias.into(),
        outputs: 0.0,
        input,
        other: None,
        matrices: None,
    }
}

fn product(module: &str, [left, right]: [Operand; 2], matrices: [u64; 3]) -> Contraction {
    let heads = 8.0;
    Contraction {
        op: Op::MatMul,
        macs: heads * matrices.iter().product::<u64>() as f64,
        steps: STEPS,
        weights: 0,
        other: Some(right),
        matrices: Some(matrices),
        ..layer(module, 0.0, left, false)
    }
}

/// Layers with their logged operations and rates, then attention in the order of computation that `scores` says.
fn spikingformer_8_512(scores: bool) -> Counts {
    let text = include_str!("data/spikingformer_8_512.csv");
    let (layers, blocks) = text.split_once("block,q,k,v\n").unwrap();
    let mut contractions = Vec::new();
    for line in layers.lines().filter(|l| !l.starts_with(['#', 'm'])) {
        let cells: Vec<&str> = line.split(',').collect();
        let operations: f64 = cells[1].parse().unwrap();
        let accumulations: f64 = cells[2].parse().unwrap();
        let input = match accumulations {
            0.0 => Operand::REAL,
            some => Operand::spikes(some / operations),
        };
        contractions.push(layer(cells[0], operations, input, cells[3] == "1"));
    }
    let (tokens, width) = (196, 64);
    for line in blocks.lines() {
        let cells: Vec<f64> = line.split(',').map(|c| c.parse().unwrap()).collect();
        let module = format!("block.{}.attn", cells[0]);
        let [q, k, v] = [1, 2, 3].map(|i| Operand::spikes(cells[i]));
        let sums = Operand {
            values: Values::Real,
            ..Operand::spikes(0.9)
        };
        let pair = if scores {
            [
                product(&module, [q, k], [tokens, width, tokens]),
                product(&module, [sums, v], [tokens, tokens, width]),
            ]
        } else {
            [
                product(&module, [k, v], [width, tokens, width]),
                product(&module, [q, sums], [tokens, width, width]),
            ]
        };
        contractions.extend(pair);
    }
    Counts {
        contractions,
        neurons: Vec::new(),
    }
}

/// Spikingformer's README and log: "0.347329512 G MACs, 6.51754094076244 G ACs", "7.463502601886196 mJ".
#[test]
fn spikingformer_8_512_is_7_463502601886196_mj() {
    for scores in [true, false] {
        let estimate = customary(&spikingformer_8_512(scores), SummedSpikes::Multiplied);
        assert_eq!(estimate.operations.macs, 347_329_512.0);
        let giga = estimate.operations.acs / 1e9;
        assert!((giga / 6.51754094076244 - 1.0).abs() < 1e-14, "{giga}");
        let total = millijoules(estimate.energy.total_pj());
        assert!((total / 7.463502601886196 - 1.0).abs() < 1e-14, "{total}");
    }
}

/// From the two totals alone the printed figure comes out to the last digit.
#[test]
fn the_printed_totals_give_the_printed_energy() {
    let counts = Counts {
        contractions: vec![
            layer("multiplied", 347_329_512.0, Operand::REAL, false),
            layer(
                "accumulated",
                6.51754094076244e9,
                Operand::spikes(1.0),
                false,
            ),
        ],
        neurons: Vec::new(),
    };
    let estimate = customary(&counts, SummedSpikes::Multiplied);
    let total = millijoules(estimate.energy.total_pj());
    assert_eq!(total.to_string(), "7.463502601886196");
}

/// The table of syops-counter's README: G ACs, G MACs, and mJ as printed.
#[test]
fn syops_counters_table_comes_out_as_printed() {
    for (acs, macs, printed) in [
        (0.10e9, 0.14e9, "0.734"),
        (0.50e9, 2.75e9, "13.10"),
        (1.69e9, 0.20e9, "2.44"),
        (0.0, 1.82e9, "8.372"),
    ] {
        let counts = Counts {
            contractions: vec![
                layer("multiplied", macs, Operand::REAL, false),
                layer("accumulated", acs, Operand::spikes(1.0), false),
            ],
            neurons: Vec::new(),
        };
        let estimate = customary(&counts, SummedSpikes::Multiplied);
        assert_eq!(estimate.constants, [MAC_F32, AC_F32]);
        let digits = printed.split_once('.').unwrap().1.len();
        let total = millijoules(estimate.energy.total_pj());
        assert_eq!(format!("{total:.digits$}"), printed);
    }
}
