//! What a spiking network did, for the report of a benchmark.

use super::counts;
use zoo_energy::{estimates, millijoules, sops};
use zoo_eval::bench::{EstimatedEnergy, LayerRate, Spiking};
use zoo_ops::work::Work;

/// Of work done for so many images together, `ones` being the share R_b of one-bits; `None` of an ordinary network.
pub fn spiking(work: &Work, images: u64, ones: f64) -> Option<Spiking> {
    let counted = counts(work, images);
    let firing_rate = counted.firing_rate()?;
    let each = |sum: u64| sum as f64 / images.max(1) as f64;
    let summed = || {
        let products = work.contractions.iter();
        products.filter_map(|c| Some((c.macs, c.additions?)))
    };
    let spiking = counted.contractions.iter().filter(|c| !c.analog());
    Some(Spiking {
        firing_rate,
        macs: counted.dense_macs(),
        sops: spiking.map(sops).sum(),
        summed_macs: each(summed().map(|(macs, _)| macs).sum()),
        additions: each(summed().map(|(_, additions)| additions).sum()),
        layers: counted.neurons.iter().map(layer).collect(),
        estimates: estimates(&counted, ones).iter().map(energy).collect(),
    })
}

fn layer(neurons: &zoo_energy::Neurons) -> LayerRate {
    LayerRate {
        layer: neurons.module.clone(),
        rate: neurons.rate,
    }
}

fn energy(estimate: &zoo_energy::Estimate) -> EstimatedEnergy {
    EstimatedEnergy {
        model: estimate.model.name().to_owned(),
        row: estimate.row.clone(),
        millijoules: millijoules(estimate.energy.total_pj()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor, nn};
    use zoo_ops::spiking::{Neuron, NeuronConfig};
    use zoo_ops::{Linear, Spiked, work};

    #[test]
    fn what_was_summed_is_told_from_what_was_multiplied() {
        let store = nn::VarStore::new(Device::Cpu);
        let mut fc = Linear::new(store.root() / "fc", 256, 64, true);
        fc.fuse();
        let head = Linear::new(store.root() / "head", 64, 10, true);
        let lif = Neuron::new(store.root() / "lif", &NeuronConfig::lif());
        // Four steps of 128 rows, of which every sixteenth input fires in every step.
        let x = Tensor::zeros([4 * 128, 256], (Kind::Float, Device::Cpu));
        let _ = x.slice(1, 0, None, 16).fill_(2.0);
        let forward = || {
            let spikes = lif.forward(&x, 4);
            head.forward(&fc.forward_spikes(&Spiked::new(&spikes)))
        };
        let (_, done) = work::record(|| tch::no_grad(forward));
        let seen = spiking(&done, 128, 0.5).expect("neurons");
        assert_eq!(seen.firing_rate, 1.0 / 16.0);
        assert_eq!(seen.macs, 4.0 * (256.0 + 10.0) * 64.0);
        assert_eq!(seen.summed_macs, 4.0 * 256.0 * 64.0);
        assert_eq!(seen.sops, 4.0 * 16.0 * 64.0);
        assert!(seen.additions >= seen.sops && seen.additions < seen.summed_macs / 2.0);
        let layers: Vec<_> = seen.layers.iter().map(|l| l.layer.as_str()).collect();
        assert_eq!(layers, ["lif"]);
        assert!(seen.estimates.iter().any(|e| e.row.contains("int4")));
        let ordinary =
            work::record(|| head.forward(&Tensor::zeros([1, 64], (Kind::Float, Device::Cpu))));
        assert!(spiking(&ordinary.1, 1, 0.5).is_none());
    }
}
