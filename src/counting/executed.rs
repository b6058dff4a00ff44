//! What a model executed, beside what it would execute if it skipped nothing.

use serde::Serialize;
use std::collections::BTreeMap;
use zoo_ops::work::{Contraction, Work};

/// Multiply-accumulates of an image, mean of those that were run; all time steps together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Executed {
    /// Images that ran.
    pub images: u64,
    /// MACs that were executed; those that sums of spikes took the place of are among them.
    pub macs: f64,
    /// MACs of the same products with nothing skipped: pairs that are not connected, for instance.
    pub dense: f64,
    /// Those executed whose left operand is not zero: what a machine that skips zeros would do.
    pub nonzero: f64,
    /// MACs that kernels of spikes computed as sums; they are among `macs`.
    pub summed: f64,
    /// Additions that were made in their place.
    pub additions: f64,
    /// Share of the routed heads that are on; `None` without a router of heads.
    pub heads_on: Option<f64>,
    /// Mean of everything that neurons fired; `None` without neurons.
    pub firing_rate: Option<f64>,
}

/// What the layers of a model executed.
#[derive(Debug, Clone, Default)]
pub struct Execution {
    images: u64,
    layers: BTreeMap<String, Sums>,
}

/// Of all images together.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    macs: f64,
    dense: f64,
    nonzero: f64,
    summed: f64,
    additions: f64,
    /// Heads that are on, and heads.
    heads: [f64; 2],
    /// What was fired, and updates of neurons.
    fired: [f64; 2],
}

impl Execution {
    /// Takes in the work of so many images more.
    pub fn add(&mut self, work: &Work, images: u64) {
        for done in &work.contractions {
            self.layer(&done.layer).product(done);
        }
        for call in &work.routed {
            let heads = (call.heads * images) as f64;
            self.layer(&call.layer).head_calls(call.on, heads);
        }
        for call in &work.neurons {
            let sums = self.layer(&call.layer);
            sums.fired[0] += call.rate * call.elements as f64;
            sums.fired[1] += call.elements as f64;
        }
        self.images += images;
    }

    fn layer(&mut self, path: &str) -> &mut Sums {
        self.layers.entry(path.to_owned()).or_default()
    }

    /// Images that ran.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// What the module at this path executed with all that it holds; the whole model at the empty path.
    pub fn of_module(&self, path: &str) -> Executed {
        let inside = |layer: &str| match layer.strip_prefix(path) {
            Some(rest) => path.is_empty() || rest.is_empty() || rest.starts_with('.'),
            None => false,
        };
        let layers = self.layers.iter().filter(|(layer, _)| inside(layer));
        let mut all = Sums::default();
        layers.for_each(|(_, sums)| all.take(sums));
        let mean = |sum: f64| sum / self.images.max(1) as f64;
        let share = |[part, whole]: [f64; 2]| (whole > 0.0).then(|| part / whole);
        Executed {
            images: self.images,
            macs: mean(all.macs),
            dense: mean(all.dense),
            nonzero: mean(all.nonzero),
            summed: mean(all.summed),
            additions: mean(all.additions),
            heads_on: share(all.heads),
            firing_rate: share(all.fired),
        }
    }
}

impl Sums {
    fn product(&mut self, done: &Contraction) {
        self.macs += done.macs as f64;
        self.dense += done.dense as f64;
        self.nonzero += done.macs as f64 * done.input.nonzero;
        if let Some(additions) = done.additions {
            self.summed += done.macs as f64;
            self.additions += additions as f64;
        }
    }

    fn head_calls(&mut self, on: f64, heads: f64) {
        self.heads[0] += on * heads;
        self.heads[1] += heads;
    }

    fn take(&mut self, other: &Sums) {
        self.macs += other.macs;
        self.dense += other.dense;
        self.nonzero += other.nonzero;
        self.summed += other.summed;
        self.additions += other.additions;
        for i in 0..2 {
            self.heads[i] += other.heads[i];
            self.fired[i] += other.fired[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor, nn};
    use zoo_ops::work::{NeuronCall, RoutedHeads};
    use zoo_ops::{Linear, work};

    #[test]
    fn batches_weigh_by_their_images_and_zeros_are_seen() {
        let store = nn::VarStore::new(Device::Cpu);
        let linear = Linear::new(store.root() / "fc", 4, 5, false);
        let run = |x: &Tensor| work::record(|| linear.forward(x)).1;
        let zeros = Tensor::zeros([1, 4], (Kind::Float, Device::Cpu));
        let ones = Tensor::ones([3, 4], (Kind::Float, Device::Cpu));
        let mut execution = Execution::default();
        execution.add(&run(&zeros), 1);
        execution.add(&run(&ones), 3);
        let executed = execution.of_module("");
        assert_eq!(
            (executed.images, executed.macs, executed.dense),
            (4, 20.0, 20.0)
        );
        assert!((executed.nonzero - 15.0).abs() < 1e-12);
        assert_eq!((executed.heads_on, executed.firing_rate), (None, None));
        assert_eq!(execution.of_module("fc"), executed);
    }

    #[test]
    fn a_module_is_what_its_path_begins_and_no_more() {
        let neuron = |layer: &str, rate| NeuronCall {
            layer: layer.to_owned(),
            elements: 10,
            steps: 1,
            rate,
            nonzero: rate,
        };
        let routed = |layer: &str, heads, on| RoutedHeads {
            layer: layer.to_owned(),
            heads,
            on,
        };
        let mut execution = Execution::default();
        let work = Work {
            neurons: vec![neuron("block.1.lif", 0.5), neuron("block.10.lif", 0.1)],
            routed: vec![
                routed("block.1.attn", 2, 0.5),
                routed("block.1.mix", 6, 1.0),
            ],
            ..Work::default()
        };
        execution.add(&work, 2);
        let block = execution.of_module("block.1");
        assert_eq!(block.firing_rate, Some(0.5));
        assert_eq!(block.heads_on, Some(7.0 / 8.0));
        assert_eq!(execution.of_module("block").firing_rate, Some(0.3));
        assert_eq!(execution.of_module("block.2").firing_rate, None);
    }
}
