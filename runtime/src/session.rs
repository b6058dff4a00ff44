//! A model, loaded and ready to run.

use crate::guard::guarded;
use crate::load::{self, WeightsError, WeightsSource};
use crate::{Device, DeviceError, Precision};
use std::collections::BTreeMap;
use tch::{Tensor, nn};
use zoo_backbones::{Backbone, BuildOptions, InputForm, SpikingOptions, Stage, Variant};
use zoo_graph::{Input, Trace};
use zoo_ops::work::{self, Work};
use zoo_ops::{allow_tf32, channels_last, inference_mode, taps, without_start};
use zoo_weights::{Dtype, LoadReport, TensorData};

/// Which head stands on the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// As published.
    Published,
    /// Of this many classes: the checkpoint's where its own has as many, else a new, untrained one.
    Classes(i64),
    /// None: features and stages only. A checkpoint may lack the head's tensors.
    None,
}

/// How to open a [`Session`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to run.
    pub device: Device,
    /// The format to compute in.
    pub precision: Precision,
    /// Threads of libtorch's operators; `None` leaves libtorch's own choice (all cores).
    pub threads: Option<usize>,
    /// Fold norms and merge branches, and use prepacked kernels: same outputs, faster.
    pub fuse: bool,
    /// The head on the backbone.
    pub head: Head,
    /// Height and width of the input: what [`Session::input_shape`] and a trace take, and parameters that depend on it are
    /// made for. `None` is the published size.
    pub size: Option<[i64; 2]>,
    /// What a spiking network is made of; others ignore it.
    pub spiking: SpikingOptions,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            device: Device::Cpu,
            precision: Precision::F32,
            threads: None,
            fuse: true,
            head: Head::Published,
            size: None,
            spiking: SpikingOptions::default(),
        }
    }
}

/// Why a session does not open or a batch does not run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The device can not be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// TF32 is a format of GPUs.
    #[error("tf32 is a format of CUDA devices: say --device cuda, or --dtype f32")]
    Tf32OnCpu,
    /// The weights do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Logits were asked of a model without a head.
    #[error("{model} was opened without a head: it has features and stages, and no logits")]
    Headless {
        /// The model.
        model: &'static str,
    },
    /// The input is not what the model takes.
    #[error("{model} can not take this input: {reason}")]
    Input {
        /// The model.
        model: &'static str,
        /// What it takes.
        reason: String,
    },
    /// libtorch failed.
    #[error("{model} on libtorch ({device}, {precision}): {reason}")]
    Engine {
        /// The model.
        model: &'static str,
        /// Where it ran.
        device: Device,
        /// In which format.
        precision: Precision,
        /// libtorch's message.
        reason: String,
    },
}

/// A model with its weights on a device, run by libtorch.
pub struct Session {
    variant: &'static Variant,
    weights: WeightsSource,
    options: Options,
    model: Box<dyn Backbone>,
    store: nn::VarStore,
    state: Vec<(String, Vec<i64>)>,
    params: u64,
    report: LoadReport,
}

impl Session {
    /// Builds the variant, loads the weights strictly, fuses if asked, moves it to its device and format.
    pub fn open(
        variant: &'static Variant,
        weights: &WeightsSource,
        options: &Options,
    ) -> Result<Session, SessionError> {
        let device = options.device.open()?;
        if options.precision == Precision::Tf32 && options.device == Device::Cpu {
            return Err(SessionError::Tf32OnCpu);
        }
        if let Some(threads) = options.threads {
            tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        }
        let engine = |reason| engine_error(variant, options, reason);
        let mut store = nn::VarStore::new(tch::Device::Cpu);
        let build = build_options(variant, options);
        let built = || (variant.build)(&store.root(), &build);
        let mut model = guarded(|| match options.head {
            // A new head may find nothing in a checkpoint, and begins as training would.
            Head::Classes(_) => built(),
            _ => without_start(built),
        })
        .map_err(engine)?;
        if let Some([height, width]) = options.size {
            let input = |reason| input_error(variant, reason);
            model.check_input(height, width).map_err(input)?;
        }
        let state = state_of(&store);
        let params = count_params(&store);
        if options.precision == Precision::F64 {
            // Before loading, so that doubles stay exact and folding is done and kept in double; the narrower
            // formats are rounded to after folding instead.
            store.double();
        }
        let report = load::Unloaded {
            variant,
            build,
            head: options.head,
            store: &store,
            state: &state,
        }
        .load(weights)?;
        guarded(|| {
            if options.fuse {
                tch::no_grad(|| model.fuse());
            }
            store.freeze();
            convert(&mut store, options.precision);
            store.set_device(device);
        })
        .map_err(engine)?;
        Ok(Session {
            variant,
            weights: weights.clone(),
            options: options.clone(),
            model,
            store,
            state,
            params,
            report,
        })
    }

    /// The same model with the same weights, loaded anew, in another format.
    pub fn in_precision(&self, precision: Precision) -> Result<Session, SessionError> {
        let options = Options {
            precision,
            ..self.options.clone()
        };
        Session::open(self.variant, &self.weights, &options)
    }

    /// The model's data.
    pub fn variant(&self) -> &'static Variant {
        self.variant
    }

    /// How it was opened.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Names and shapes of the parameters and statistics, by name.
    pub fn state(&self) -> &[(String, Vec<i64>)] {
        &self.state
    }

    /// Number of trainable parameters, in the form that is trained.
    pub fn params(&self) -> u64 {
        self.params
    }

    /// What loading the weights did.
    pub fn load_report(&self) -> &LoadReport {
        &self.report
    }

    /// Whether the head is new: its tensors are in the checkpoint at another width, and were not loaded.
    pub fn new_head(&self) -> bool {
        !self.report.misshapen.is_empty()
    }

    /// The feature maps that [`Session::stages`] gives.
    pub fn stage_info(&self) -> Vec<Stage> {
        self.model.stage_info()
    }

    /// Channels of the input.
    pub fn input_channels(&self) -> i64 {
        self.model.input_channels()
    }

    /// The form of the input.
    pub fn input_form(&self) -> InputForm {
        self.model.input_form()
    }

    /// Height and width of the input that it was opened for.
    pub fn input_size(&self) -> [i64; 2] {
        let published = || self.variant.build_options().size;
        self.options.size.unwrap_or_else(published)
    }

    /// The shape of a batch of inputs of that size.
    pub fn input_shape(&self, batch: i64) -> Vec<i64> {
        self.input_form()
            .shape(batch, self.input_channels(), self.input_size())
    }

    /// How far float32 logits may be from float64 ones, relative to the largest.
    pub fn float32_tolerance(&self) -> f64 {
        self.model.float32_tolerance()
    }

    /// Every parameter and statistic in f32, under official names: as loaded, also after fusing.
    pub fn tensors(&self) -> Result<Vec<TensorData<'static>>, SessionError> {
        let variables = self.store.variables();
        let read = |(name, shape): &(String, Vec<i64>)| {
            let t = variables[name].to_device(tch::Device::Cpu);
            let flat = t.to_kind(tch::Kind::Float).contiguous().flatten(0, -1);
            let numel = flat.numel();
            let mut bytes = vec![0; numel * Dtype::F32.size()];
            flat.copy_data_u8(&mut bytes, numel);
            TensorData {
                name: name.clone().into(),
                dtype: Dtype::F32,
                shape: load::unsigned(shape).into(),
                bytes: bytes.into(),
            }
        };
        guarded(|| self.state.iter().map(read).collect())
            .map_err(|reason| engine_error(self.variant, &self.options, reason))
    }

    /// The input in the session's format, on its device, in the memory layout its kernels like.
    pub fn prepare(&self, x: &Tensor) -> Tensor {
        let x = x
            .to_device(self.store.device())
            .to_kind(self.options.precision.kind());
        let images = x.dim() == 4;
        if images && self.options.fuse && self.options.precision != Precision::F64 {
            channels_last(&x)
        } else {
            x
        }
    }

    /// Logits [B, classes] of preprocessed images [B, channels, H, W], in the session's format and on its device.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor, SessionError> {
        if self.options.head == Head::None {
            return Err(SessionError::Headless {
                model: self.variant.name,
            });
        }
        self.run(x, |x| self.model.logits(x))
    }

    /// The pooled features [B, channels] that the head sees.
    pub fn features(&self, x: &Tensor) -> Result<Tensor, SessionError> {
        self.run(x, |x| self.model.features(x))
    }

    /// Feature maps of every stage, finest first.
    pub fn stages(&self, x: &Tensor) -> Result<Vec<Tensor>, SessionError> {
        self.run(x, |x| self.model.stages(x))
    }

    /// Logits and every value that the model's taps show, by name.
    pub fn record(&self, x: &Tensor) -> Result<BTreeMap<String, Tensor>, SessionError> {
        let (logits, mut seen) = self.run(x, |x| taps::record(|| self.model.logits(x)))?;
        seen.insert("logits".to_owned(), logits);
        Ok(seen)
    }

    /// What the model computes, as data: from images [batch, channels, height, width] of [`Session::input_size`] to `logits`.
    ///
    /// Of the fused form where the session is fused: what it folds are constants of the graph.
    pub fn trace(&self) -> Result<Trace, SessionError> {
        let shape = self.input_shape(1);
        self.check(&Tensor::zeros(&shape, (tch::Kind::Float, tch::Device::Cpu)))?;
        let input = Input {
            name: "image".to_owned(),
            shape: shape[1..].to_vec(),
            kind: self.options.precision.kind(),
        };
        guarded(|| zoo_graph::trace(&self.store, &[input], |x| vec![self.model.logits(&x[0])]))
            .and_then(|traced| traced.map_err(|e| e.to_string()))
            .map_err(|reason| engine_error(self.variant, &self.options, reason))
    }

    /// Every product and layer of neurons of a pass over `x`, in order: firing rates, synaptic operations.
    pub fn work(&self, x: &Tensor) -> Result<Work, SessionError> {
        let (_logits, work) = self.run(x, |x| work::record(|| self.model.logits(x)))?;
        Ok(work)
    }

    /// What [`Session::record`] and [`Session::work`] give, of one pass.
    pub fn observe(&self, x: &Tensor) -> Result<(BTreeMap<String, Tensor>, Work), SessionError> {
        let logits = |x: &Tensor| taps::record(|| self.model.logits(x));
        let ((logits, mut seen), work) = self.run(x, |x| work::record(|| logits(x)))?;
        seen.insert("logits".to_owned(), logits);
        Ok((seen, work))
    }

    /// Waits until the device has finished what was asked of it.
    pub fn synchronize(&self) {
        if let Device::Cuda(index) = self.options.device {
            tch::Cuda::synchronize(index as i64);
        }
    }

    fn run<T>(&self, x: &Tensor, f: impl FnOnce(&Tensor) -> T) -> Result<T, SessionError> {
        self.check(x)?;
        if self.options.device != Device::Cpu {
            allow_tf32(self.options.precision == Precision::Tf32);
        }
        guarded(|| inference_mode(|| f(&self.prepare(x))))
            .map_err(|reason| engine_error(self.variant, &self.options, reason))
    }

    fn check(&self, x: &Tensor) -> Result<(), SessionError> {
        let input = |reason| input_error(self.variant, reason);
        let (form, channels) = (self.input_form(), self.input_channels());
        match form.size(&x.size(), channels) {
            Some([height, width]) => self.model.check_input(height, width).map_err(input),
            None => Err(input(format!(
                "inputs are {form} with {channels} channels, not {:?}",
                x.size()
            ))),
        }
    }
}

fn build_options(variant: &Variant, options: &Options) -> BuildOptions {
    let published = variant.build_options();
    BuildOptions {
        classes: match options.head {
            Head::Classes(classes) => classes,
            Head::Published | Head::None => published.classes,
        },
        size: options.size.unwrap_or(published.size),
        spiking: options.spiking,
    }
}

fn input_error(variant: &Variant, reason: String) -> SessionError {
    SessionError::Input {
        model: variant.name,
        reason,
    }
}

fn engine_error(variant: &Variant, options: &Options, reason: String) -> SessionError {
    SessionError::Engine {
        model: variant.name,
        device: options.device,
        precision: options.precision,
        reason,
    }
}

/// Every variable's name and shape, by name.
fn state_of(store: &nn::VarStore) -> Vec<(String, Vec<i64>)> {
    let mut state: Vec<_> = store
        .variables()
        .into_iter()
        .map(|(name, t)| (name, t.size()))
        .collect();
    state.sort();
    state
}

fn count_params(store: &nn::VarStore) -> u64 {
    let params = store.trainable_variables();
    params.iter().map(|t| t.numel() as u64).sum()
}

/// Casts the floating-point variables; indices stay integers.
fn convert(store: &mut nn::VarStore, precision: Precision) {
    match precision {
        Precision::F32 | Precision::Tf32 => store.float(),
        Precision::F64 => store.double(),
        Precision::Bf16 => store.bfloat16(),
        Precision::F16 => store.half(),
    }
}
