//! What a model executed, beside what it would execute if it skipped nothing.

use serde::Serialize;
use zoo_ops::work::Work;

/// Multiply-accumulates of an image, mean of those that were run; all time steps together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Executed {
    /// Images that ran.
    pub images: u64,
    /// MACs that were executed.
    pub macs: f64,
    /// MACs of the same products with nothing skipped: pairs that are not connected, for instance.
    pub dense: f64,
    /// Those executed whose left operand is not zero: what a machine that skips zeros would do.
    pub nonzero: f64,
    /// Share of the routed heads that are on; `None` without a router of heads.
    pub heads_on: Option<f64>,
    /// Mean of everything that neurons fired; `None` without neurons.
    pub firing_rate: Option<f64>,
}

impl Executed {
    /// Takes in the work of so many images more.
    pub fn add(&mut self, work: &Work, images: u64) {
        let all = (self.images + images).max(1) as f64;
        let share = images as f64 / all;
        let sum = |of: fn(&zoo_ops::work::Contraction) -> f64| {
            work.contractions.iter().map(of).sum::<f64>() / images.max(1) as f64
        };
        let toward = |mean: &mut f64, new: f64| *mean += (new - *mean) * share;
        toward(&mut self.macs, sum(|c| c.macs as f64));
        toward(&mut self.dense, sum(|c| c.dense as f64));
        toward(&mut self.nonzero, sum(|c| c.macs as f64 * c.input.nonzero));
        let heads = weighted(work.routed.iter().map(|r| (r.on, r.heads as f64)));
        let rate = weighted(work.neurons.iter().map(|n| (n.rate, n.elements as f64)));
        for (mean, new) in [(&mut self.heads_on, heads), (&mut self.firing_rate, rate)] {
            if let Some(new) = new {
                toward(mean.get_or_insert(new), new);
            }
        }
        self.images += images;
    }
}

/// The weighted mean; `None` of nothing.
fn weighted(items: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (sum, weight) = items.fold((0.0, 0.0), |(s, w), (x, weight)| {
        (s + x * weight, w + weight)
    });
    (weight > 0.0).then(|| sum / weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor, nn};
    use zoo_ops::{Linear, work};

    #[test]
    fn batches_weigh_by_their_images_and_zeros_are_seen() {
        let store = nn::VarStore::new(Device::Cpu);
        let linear = Linear::new(store.root() / "fc", 4, 5, false);
        let run = |x: &Tensor| work::record(|| linear.forward(x)).1;
        let zeros = Tensor::zeros([1, 4], (Kind::Float, Device::Cpu));
        let ones = Tensor::ones([3, 4], (Kind::Float, Device::Cpu));
        let mut executed = Executed::default();
        executed.add(&run(&zeros), 1);
        executed.add(&run(&ones), 3);
        assert_eq!(
            (executed.images, executed.macs, executed.dense),
            (4, 20.0, 20.0)
        );
        assert!((executed.nonzero - 15.0).abs() < 1e-12);
        assert_eq!((executed.heads_on, executed.firing_rate), (None, None));
    }
}
