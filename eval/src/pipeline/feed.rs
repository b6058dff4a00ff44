//! Fills batch buffers on the worker threads.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::Prepare;
use crate::data::Sample;

/// The floats of one batch; allocated on first use and then recycled.
#[derive(Default)]
pub(super) struct Buffer(Vec<f32>);

impl Buffer {
    /// The floats of `images` images, whatever was there before.
    pub(super) fn images(&mut self, images: usize, image_len: usize) -> &mut [f32] {
        let len = images * image_len;
        if self.0.len() < len {
            self.0.resize(len, 0.0);
        }
        &mut self.0[..len]
    }
}

/// A batch that is ready for the model.
pub(super) struct Filled {
    pub(super) batch: usize,
    pub(super) images: Range<usize>,
    pub(super) image_len: usize,
    pub(super) buffer: Buffer,
    /// Why an image could not be read, in the images' order.
    pub(super) unreadable: Vec<Option<String>>,
    /// Summed over the workers.
    pub(super) decode: Duration,
    /// Summed over the workers.
    pub(super) preprocess: Duration,
}

/// Where batches come from.
pub(super) struct Source<'a, P> {
    pub(super) prepare: &'a P,
    pub(super) samples: &'a [Sample],
    pub(super) cancel: &'a AtomicBool,
}

/// Makes workers drop what they have begun, however the run ends.
pub(super) struct CancelOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One prepared image.
#[derive(Default)]
struct Slot {
    unreadable: Option<String>,
    decode: Duration,
    preprocess: Duration,
}

impl<P: Prepare> Source<'_, P> {
    /// Decodes and preprocesses a batch in parallel; `None` when cancelled.
    pub(super) fn fill(
        &self,
        batch: usize,
        images: Range<usize>,
        mut buffer: Buffer,
    ) -> Option<Filled> {
        let image_len = self.prepare.image_len();
        let samples = self.samples.get(images.clone())?;
        let slots: Vec<Slot> = buffer
            .images(samples.len(), image_len)
            .par_chunks_exact_mut(image_len)
            .zip(samples)
            .with_max_len(1)
            .map(|(out, sample)| self.prepare_one(sample, out))
            .collect::<Option<_>>()?;
        Some(Filled {
            batch,
            images,
            image_len,
            buffer,
            decode: slots.iter().map(|slot| slot.decode).sum(),
            preprocess: slots.iter().map(|slot| slot.preprocess).sum(),
            unreadable: slots.into_iter().map(|slot| slot.unreadable).collect(),
        })
    }

    fn prepare_one(&self, sample: &Sample, out: &mut [f32]) -> Option<Slot> {
        if self.cancel.load(Ordering::Relaxed) {
            return None;
        }
        let mut slot = Slot::default();
        let started = Instant::now();
        let decoded = caught(|| self.prepare.decode(sample));
        slot.decode = started.elapsed();
        let prepared = decoded.and_then(|image| {
            let started = Instant::now();
            let done = caught(|| {
                self.prepare.preprocess(&image, out);
                Ok(())
            });
            slot.preprocess = started.elapsed();
            done
        });
        if let Err(reason) = prepared {
            out.fill(0.0);
            slot.unreadable = Some(reason);
        }
        Some(slot)
    }
}

/// A panic while preparing one image is that image's fault, not the run's.
fn caught<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|payload| Err(format!("panicked: {}", message(payload.as_ref()))))
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}
