//! The mean over images that were counted batch by batch.

use crate::{Contraction, Counts, Neurons, Operand, Values};

/// Counts of several batches, weighted by their images.
#[derive(Debug, Clone, Default)]
pub struct Average {
    mean: Counts,
    images: f64,
}

impl Average {
    /// Adds the counts of a batch of so many images. `false`, and nothing is added, where they are of another network: other
    /// modules, or the same ones in another order.
    pub fn add(&mut self, counts: &Counts, images: f64) -> bool {
        if self.images == 0.0 {
            self.mean = counts.clone();
            self.images = images;
            return true;
        }
        if !same_network(&self.mean, counts) {
            return false;
        }
        self.images += images;
        let share = images / self.images;
        let mut contractions = self.mean.contractions.iter_mut();
        for (mean, new) in contractions.by_ref().zip(&counts.contractions) {
            add_contraction(mean, new, share);
        }
        for (mean, new) in self.mean.neurons.iter_mut().zip(&counts.neurons) {
            toward(&mut mean.elements, new.elements, share);
            toward(&mut mean.rate, new.rate, share);
            toward(&mut mean.nonzero, new.nonzero, share);
        }
        true
    }

    /// Images that were added.
    pub fn images(&self) -> f64 {
        self.images
    }

    /// The mean of one image.
    pub fn counts(&self) -> &Counts {
        &self.mean
    }
}

fn same_network(a: &Counts, b: &Counts) -> bool {
    let contraction = |c: &Contraction| (c.module.clone(), c.op as u8, c.steps, c.other.is_some());
    let neurons = |n: &Neurons| (n.module.clone(), n.steps);
    a.contractions
        .iter()
        .map(contraction)
        .eq(b.contractions.iter().map(contraction))
        && a.neurons
            .iter()
            .map(neurons)
            .eq(b.neurons.iter().map(neurons))
}

fn add_contraction(mean: &mut Contraction, new: &Contraction, share: f64) {
    toward(&mut mean.macs, new.macs, share);
    toward(&mut mean.outputs, new.outputs, share);
    add_operand(&mut mean.input, &new.input, share);
    if let (Some(mean), Some(new)) = (&mut mean.other, &new.other) {
        add_operand(mean, new, share);
    }
}

fn add_operand(mean: &mut Operand, new: &Operand, share: f64) {
    toward(&mut mean.nonzero, new.nonzero, share);
    toward(&mut mean.mean, new.mean, share);
    mean.values = widest(mean.values, new.values);
}

/// The kind that holds both.
fn widest(a: Values, b: Values) -> Values {
    match (a, b) {
        (Values::Real, _) | (_, Values::Real) => Values::Real,
        (Values::Counts, _) | (_, Values::Counts) => Values::Counts,
        _ => Values::Spikes,
    }
}

fn toward(mean: &mut f64, new: f64, share: f64) {
    *mean += (new - *mean) * share;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Op;

    fn counts(rate: f64, values: Values) -> Counts {
        let input = Operand {
            values,
            ..Operand::spikes(rate)
        };
        Counts {
            contractions: vec![Contraction {
                module: "fc".to_owned(),
                op: Op::Linear,
                macs: 10.0,
                steps: 4,
                weights: 10,
                biases: 0,
                outputs: 5.0,
                input,
                other: None,
                matrices: None,
            }],
            neurons: Vec::new(),
        }
    }

    #[test]
    fn batches_weigh_by_their_images() {
        let mut average = Average::default();
        assert!(average.add(&counts(0.5, Values::Spikes), 1.0));
        assert!(average.add(&counts(0.1, Values::Counts), 3.0));
        let mean = &average.counts().contractions[0];
        assert!((mean.input.nonzero - 0.2).abs() < 1e-15);
        assert_eq!((mean.input.values, mean.macs), (Values::Counts, 10.0));
        assert_eq!(average.images(), 4.0);
    }

    #[test]
    fn another_network_is_refused() {
        let mut average = Average::default();
        assert!(average.add(&counts(0.5, Values::Spikes), 1.0));
        let mut other = counts(0.5, Values::Spikes);
        other.contractions[0].module = "head".to_owned();
        assert!(!average.add(&other, 1.0));
        assert_eq!(average.images(), 1.0);
    }
}
