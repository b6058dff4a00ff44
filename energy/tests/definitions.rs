//! Every definition against values computed by hand: a stem on real values, a layer on spikes, a classifier, one layer of
//! neurons, two time steps.

use zoo_energy::{
    Charged, Contraction, Counts, Model, Neurons, Op, Operand, Precision, SummedSpikes, Values,
    WeightTraffic, bit_serial, customary, estimates, fair_bits, float_network, int8, simple, sops,
    step,
};

fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-12 * b.abs(), "{a} is not {b}");
}

fn network() -> Counts {
    let layer =
        |module: &str, macs: f64, steps: u64, weights: u64, outputs: f64, input| Contraction {
            module: module.to_owned(),
            op: Op::Linear,
            macs,
            steps,
            weights,
            biases: 0,
            outputs,
            input,
            other: None,
            matrices: None,
        };
    let sums = Operand {
        nonzero: 0.25,
        mean: 0.3,
        values: Values::Counts,
    };
    let stem = layer("stem", 100.0, 2, 10, 20.0, Operand::REAL);
    let inside = layer("inside", 1000.0, 2, 50, 40.0, sums);
    let head = Contraction {
        biases: 4,
        ..layer("head", 30.0, 1, 30, 4.0, Operand::REAL)
    };
    Counts {
        contractions: vec![stem, inside, head],
        neurons: vec![Neurons {
            module: "lif".to_owned(),
            elements: 60.0,
            steps: 2,
            rate: 0.5,
            nonzero: 0.5,
        }],
    }
}

#[test]
fn totals_are_of_one_image() {
    let counts = network();
    assert_eq!((counts.macs(), counts.dense_macs()), (1130.0, 2230.0));
    assert_eq!((counts.updates(), counts.parameters()), (120.0, 94.0));
    assert_eq!((counts.firing_rate(), counts.steps()), (Some(0.5), 2));
    assert_eq!(sops(&counts.contractions[1]), 500.0);
}

#[test]
fn summed_spikes_are_multiplied_or_counted() {
    let multiplied = customary(&network(), SummedSpikes::Multiplied);
    // The classifier's bias is added once for each of its outputs.
    assert_eq!(multiplied.operations.macs, 200.0 + 2000.0 + 34.0);
    close(multiplied.energy.total_pj(), 4.6 * 2234.0);
    let accumulated = customary(&network(), SummedSpikes::Accumulated);
    assert_eq!(accumulated.operations.acs, 0.3 * 2000.0);
    close(accumulated.energy.total_pj(), 4.6 * 234.0 + 0.9 * 600.0);
    assert_eq!(accumulated.energy.state_pj, None);
}

#[test]
fn steps_constants_charge_every_bit() {
    let once = step(&network(), Charged::ByValue, WeightTraffic::Once).energy;
    close(once.arithmetic_pj, 4.6 * 230.0 + 0.9 * 500.0);
    close(once.state_pj.unwrap(), 3.12 * 32.0 * 2.0 * 120.0);
    close(once.weights_pj.unwrap(), 3.12 * 32.0 * 90.0);
    close(once.activations_pj.unwrap(), 3.12 * 2.0 * 120.0);
    let each = step(&network(), Charged::FirstAndLast, WeightTraffic::EveryStep).energy;
    close(each.arithmetic_pj, once.arithmetic_pj);
    close(each.weights_pj.unwrap(), 3.12 * 32.0 * 150.0);
}

#[test]
fn spikingjellys_presets_differ_in_costs_and_widths() {
    let single = simple(&network(), Precision::F32).energy;
    close(single.weights_pj.unwrap(), 24.96 * 4.0 * 94.0);
    close(single.state_pj.unwrap(), 24.96 * 4.0 * 240.0);
    assert_eq!(single.activations_pj, None);
    let byte = simple(&network(), Precision::Int8).energy;
    close(byte.arithmetic_pj, 0.23 * 230.0 + 0.03 * 500.0);
    close(byte.weights_pj.unwrap(), 24.96 * 94.0);
    close(
        simple(&network(), Precision::F16).energy.arithmetic_pj,
        1.5 * 230.0 + 0.4 * 500.0,
    );
}

#[test]
fn ordinary_networks_have_one_step() {
    close(float_network(&network()).energy.arithmetic_pj, 4.6 * 1130.0);
    close(int8(&network()).energy.arithmetic_pj, 0.23 * 1130.0);
    let serial = bit_serial(&network(), 4, 0.5).energy;
    close(serial.arithmetic_pj, 0.9 * 1130.0 * 4.0 * 0.5);
    close(serial.weights_pj.unwrap(), 3.12 * 4.0 * 90.0);
    close(serial.activations_pj.unwrap(), 3.12 * 4.0 * 2.0 * 64.0);
    assert_eq!([1, 3, 4, 7, 8].map(fair_bits), [1, 2, 3, 3, 4]);
}

#[test]
fn what_does_not_apply_is_left_out() {
    let spiking = network();
    let rows = estimates(&spiking, 0.5);
    assert!(
        rows.iter().any(|e| e.row.starts_with("int2 ")),
        "the fair pair of two steps"
    );
    let ordinary = Counts {
        neurons: Vec::new(),
        ..spiking
    };
    let rows = estimates(&ordinary, 0.5);
    assert!(rows.iter().all(|e| e.model != Model::Step));
    assert!(rows.iter().all(|e| e.energy.state_pj.is_none()));
    assert!(rows.iter().all(|e| !e.constants.is_empty()));
}
