//! What every spiking network does around its layers: encoding, time, averaging, and the head.

use super::time::Time;
use crate::{Backbone, BuildOptions, InputForm, Stage, TimeForm};
use std::fmt::Debug;
use tch::{Device, Kind, Tensor};
use zoo_ops::spiking::{Encoding, NeuronConfig};
use zoo_ops::{taps, tracing, work};

/// A network of spiking layers between its first currents and its pooled features.
pub(super) trait Network: Debug + Send {
    /// The currents of the first neurons [rows, ..], of inputs [rows, ..]: no time passes here.
    fn currents(&self, x: &Tensor) -> Tensor;

    /// One map [rows, C, H, W] per stage, finest first.
    fn stages(&self, currents: &Tensor, time: &Time) -> Vec<Tensor>;

    /// Features [rows, C] of the last map.
    fn pool(&self, last: &Tensor, _time: &Time) -> Tensor {
        last.mean_dim([2i64, 3].as_slice(), false, None::<Kind>)
    }

    /// Features [B, C] of the last map, averaged over time.
    fn features(&self, last: &Tensor, time: &Time) -> Tensor {
        time.mean(&self.pool(last, time))
    }

    /// Features averaged over time [B, C] to logits.
    fn classify(&self, features: &Tensor) -> Tensor;

    /// Inputs by time: those of all steps, or of one where all are the same.
    fn encode(&self, x: &Tensor, _steps: i64) -> ByTime {
        match self.input_form() {
            InputForm::Frames { .. } => ByTime::Each(x.transpose(0, 1).flatten(0, 1)),
            InputForm::Clips { .. } => ByTime::Each(x.permute([2, 0, 1, 3, 4]).flatten(0, 1)),
            _ => ByTime::Same(x.shallow_clone()),
        }
    }

    /// Whether one step can be taken after another through the whole network.
    fn stepwise(&self) -> bool {
        true
    }

    /// As [`Backbone::stage_info`].
    fn stage_info(&self) -> Vec<Stage>;

    /// As [`Backbone::fuse`].
    fn fuse(&mut self);

    /// As [`Backbone::check_input`].
    fn check_input(&self, height: i64, width: i64) -> Result<(), String>;

    /// As [`Backbone::float32_tolerance`]. Rounding flips spikes near their thresholds: up to 9e-2 was measured of the
    /// official code and of this, with weights of no training.
    fn float32_tolerance(&self) -> f64 {
        0.1
    }

    /// As [`Backbone::input_channels`].
    fn input_channels(&self) -> i64 {
        3
    }

    /// As [`Backbone::input_form`].
    fn input_form(&self) -> InputForm {
        InputForm::Images
    }
}

/// Pixels of all steps and images up to which all steps are taken at once (`docs/spiking.md` has the measurement).
const FOLDED_PLACES: i64 = 1 << 18;

/// A [`Network`] run for some time steps.
#[derive(Debug)]
pub(super) struct OverTime<N> {
    network: N,
    steps: i64,
    form: TimeForm,
    encoding: Encoding,
    stepwise: bool,
}

impl<N: Network> OverTime<N> {
    /// `neuron` tells whether single steps can be taken at all.
    pub fn new(network: N, neuron: &NeuronConfig, options: &BuildOptions) -> Self {
        OverTime {
            stepwise: neuron.stepwise() && network.stepwise(),
            network,
            steps: neuron.steps,
            form: options.spiking.time,
            encoding: options.spiking.encoding,
        }
    }

    /// Step by step where that was asked for or the input is large, is possible and nobody watches the layers.
    fn steps_apart(&self, x: &Tensor) -> bool {
        let watched = taps::recording() || work::recording();
        let wanted = match self.form {
            TimeForm::Folded => false,
            TimeForm::Stepwise => true,
            TimeForm::Auto => !tracing() && x.device() == Device::Cpu && self.large(x),
        };
        wanted && self.stepwise && !watched
    }

    /// Whether all steps of a layer at once take too much memory.
    fn large(&self, x: &Tensor) -> bool {
        let places = x.numel() as i64 / self.network.input_channels();
        let steps = match self.network.input_form() {
            // The steps are in the input.
            InputForm::Frames { .. } | InputForm::Clips { .. } => 1,
            _ => self.steps,
        };
        places * steps > FOLDED_PLACES
    }

    /// The first currents: of all steps [T * B, ..], or of one [B, ..] where all are the same.
    fn currents(&self, x: &Tensor) -> ByTime {
        match self.network.encode(x, self.steps) {
            ByTime::Each(x) => ByTime::Each(self.network.currents(&x)),
            ByTime::Same(x) if self.encoding != Encoding::Direct => {
                let encoded = self.encoding.encode(&x, self.steps);
                ByTime::Each(self.network.currents(&encoded))
            }
            // The work of the published form is recorded, which repeats the image.
            ByTime::Same(x) if work::recording() => {
                let repeated = Time::folded(self.steps).repeat(&x);
                ByTime::Each(self.network.currents(&repeated))
            }
            ByTime::Same(x) => ByTime::Same(self.network.currents(&x)),
        }
    }

    fn folded<T>(&self, x: &Tensor, f: impl FnOnce(&Tensor, &Time) -> T) -> T {
        let time = Time::folded(self.steps);
        work::over_steps(self.steps, || match self.currents(x) {
            ByTime::Each(currents) => f(&currents, &time),
            ByTime::Same(currents) => f(&time.repeat(&currents), &time),
        })
    }

    /// The mean over time of what each step gives.
    fn stepwise(&self, x: &Tensor, f: impl Fn(&Tensor, &Time) -> Vec<Tensor>) -> Vec<Tensor> {
        let time = Time::stepwise();
        let currents = self.currents(x);
        let mut sums: Vec<Tensor> = Vec::new();
        for step in 0..self.steps {
            let given = match &currents {
                ByTime::Each(all) => f(&all.unflatten(0, [self.steps, -1]).select(0, step), &time),
                ByTime::Same(each) => f(each, &time),
            };
            sums = if sums.is_empty() {
                given
            } else {
                sums.iter().zip(&given).map(|(a, b)| a + b).collect()
            };
        }
        sums.iter().map(|sum| sum / self.steps as f64).collect()
    }

    fn pooled(&self, currents: &Tensor, time: &Time) -> Tensor {
        let maps = self.network.stages(currents, time);
        let last = maps.last().expect("a network has a stage");
        self.network.pool(last, time)
    }
}

/// What enters a network.
pub(super) enum ByTime {
    /// Of every step [T * B, ..], time slowest.
    Each(Tensor),
    /// Of one step [B, ..], like all others.
    Same(Tensor),
}

impl<N: Network> Backbone for OverTime<N> {
    /// Maps averaged over the time steps.
    fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        if self.steps_apart(x) {
            return self.stepwise(x, |currents, time| self.network.stages(currents, time));
        }
        self.folded(x, |currents, time| {
            let maps = self.network.stages(currents, time);
            maps.iter().map(|map| time.mean(map)).collect()
        })
    }

    fn stage_info(&self) -> Vec<Stage> {
        self.network.stage_info()
    }

    fn features(&self, x: &Tensor) -> Tensor {
        if self.steps_apart(x) {
            let pooled = |currents: &Tensor, time: &Time| vec![self.pooled(currents, time)];
            return self.stepwise(x, pooled).remove(0);
        }
        self.folded(x, |currents, time| {
            let maps = self.network.stages(currents, time);
            let last = maps.last().expect("a network has a stage");
            self.network.features(last, time)
        })
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.network.classify(features)
    }

    fn fuse(&mut self) {
        self.network.fuse();
    }

    fn input_channels(&self) -> i64 {
        self.network.input_channels()
    }

    fn input_form(&self) -> InputForm {
        self.network.input_form()
    }

    fn float32_tolerance(&self) -> f64 {
        self.network.float32_tolerance()
    }

    fn check_input(&self, height: i64, width: i64) -> Result<(), String> {
        self.network.check_input(height, width)
    }
}
