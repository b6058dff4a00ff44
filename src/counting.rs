//! From what a forward pass reported, or what a graph says, to what an image costs.

mod executed;
mod from_graph;
mod spiking;

pub use executed::{Executed, Execution};
pub use from_graph::graph_counts;
pub use spiking::spiking;

use tch::Tensor;
use zoo_energy::{Average, Contraction, Counts, Neurons, Op, Operand, Values};
use zoo_eval::Prepare;
use zoo_eval::data::Sample;
use zoo_eval::pipeline::Images;
use zoo_ops::work::{self, Work};
use zoo_runtime::{Session, SessionError};

/// The counts of one image, of work done for so many images together.
pub fn counts(work: &Work, images: u64) -> Counts {
    let images = images.max(1);
    Counts {
        contractions: work
            .contractions
            .iter()
            .map(|c| contraction(c, images))
            .collect(),
        neurons: work
            .neurons
            .iter()
            .map(|n| Neurons {
                module: n.layer.clone(),
                elements: n.elements as f64 / (n.steps * images) as f64,
                steps: n.steps,
                rate: n.rate,
                nonzero: n.nonzero,
            })
            .collect(),
    }
}

fn contraction(done: &work::Contraction, images: u64) -> Contraction {
    let rows = (done.steps * images) as f64;
    Contraction {
        module: done.layer.clone(),
        op: match done.op {
            work::Op::Convolution => Op::Convolution,
            work::Op::Linear => Op::Linear,
            work::Op::MatMul => Op::MatMul,
        },
        macs: done.macs as f64 / rows,
        steps: done.steps,
        weights: done.weights,
        biases: done.biases,
        outputs: done.outputs as f64 / rows,
        input: operand(&done.input),
        other: done.other.as_ref().map(operand),
        matrices: done.matrices,
    }
}

fn operand(held: &work::Operand) -> Operand {
    Operand {
        nonzero: held.nonzero,
        mean: held.mean,
        values: match held.values {
            work::Values::Spikes => Values::Spikes,
            work::Values::Counts => Values::Counts,
            work::Values::Real => Values::Real,
        },
    }
}

/// Work that can not be counted.
#[derive(Debug, thiserror::Error)]
pub enum CountingError {
    /// The model did not run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// An image can not be read.
    #[error("{id}: {reason}; leave it out of the images")]
    Image {
        /// Its name in the data set.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// There is nothing to count on.
    #[error("there are no images to count the work on")]
    NoImages,
    /// Batches that ran different modules.
    #[error(
        "{model} runs other modules on other images, so that a mean over images has no meaning; count on one (--limit 1)"
    )]
    Changed {
        /// The model.
        model: &'static str,
    },
}

/// At most `limit` of the samples, evenly spaced.
pub fn spread(samples: &[Sample], limit: usize) -> Vec<&Sample> {
    let kept = samples.len().min(limit);
    (0..kept)
        .map(|i| &samples[i * samples.len() / kept])
        .collect()
}

/// The mean work of a model over these images, `batch` at a time.
pub fn over_images(
    session: &Session,
    images: &Images,
    samples: &[&Sample],
    batch: usize,
) -> Result<Average, CountingError> {
    let mut average = Average::default();
    for x in batches(images, samples, batch) {
        add(session, &x?, &mut average)?;
    }
    if average.images() == 0.0 {
        return Err(CountingError::NoImages);
    }
    Ok(average)
}

/// These images, preprocessed, `batch` at a time.
pub fn batches<'a>(
    images: &'a Images,
    samples: &'a [&Sample],
    batch: usize,
) -> impl Iterator<Item = Result<Tensor, CountingError>> + 'a {
    let (height, width) = images.transform.size;
    samples.chunks(batch.max(1)).map(move |some| {
        let mut values = vec![0.0; some.len() * images.image_len()];
        for (sample, out) in some.iter().zip(values.chunks_exact_mut(images.image_len())) {
            let image = images.decode(sample);
            let image = image.map_err(|reason| CountingError::Image {
                id: sample.id.clone(),
                reason,
            })?;
            images.preprocess(&image, out);
        }
        let shape = [some.len() as i64, 3, height as i64, width as i64];
        Ok(Tensor::from_slice(&values).reshape(shape))
    })
}

/// Adds the work of one batch of inputs, whose first axis is the images.
pub fn add(session: &Session, x: &Tensor, average: &mut Average) -> Result<(), CountingError> {
    let images = x.size().first().copied().unwrap_or(1).max(1) as u64;
    let counts = counts(&session.work(x)?, images);
    if average.add(&counts, images as f64) {
        Ok(())
    } else {
        Err(CountingError::Changed {
            model: session.variant().name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zoo_eval::data::drawn;

    #[test]
    fn samples_are_spread_over_the_whole_set() {
        let set = drawn();
        let ids = |samples: Vec<&Sample>| -> Vec<String> {
            samples.into_iter().map(|s| s.id.clone()).collect()
        };
        let all = ids(spread(&set.samples, usize::MAX));
        let some = ids(spread(&set.samples, 4));
        assert_eq!(all.len(), set.samples.len());
        let quarter = all.len() / 4;
        assert_eq!(some, [0, 1, 2, 3].map(|i| all[i * quarter].clone()));
        assert!(spread(&[], 3).is_empty());
    }
}
