//! SPT, the spiking point transformer: clouds of points, a queue of samples of which is what the time steps see.
//!
//! Paper: "Spiking Point Transformer for Point Cloud Classification", AAAI 2025, arXiv 2502.15811.
//! Official code: Fancyssc/STEP, `cls/models/pc/spt.py` and `cls/models/pc/utils/pointnet_util.py`.
//!
//! Where this differs from the official code: sampling begins at the first point of a cloud, there at a random one; and
//! the neurons that see places begin at rest with each cloud, where there they take a batch as more time steps.
//! As there, the samples of later steps are points of the whole cloud under indices that were found among the remaining ones.

use super::network::{ByTime, Network};
use super::time::{Neurons, Spikes, Time};
use super::variants::CIFAR_VARIANT;
use crate::{Backbone, BuildOptions, InputForm, Interpolation, Preprocessing, Stage, Variant};
use tch::{Kind, Tensor, nn};
use zoo_ops::points::{furthest_points, gather_points, nearest_points, remaining_points};
use zoo_ops::spiking::NeuronConfig;
use zoo_ops::{ConvBn, ConvConfig, Linear, LinearBn, Stored, taps};

/// Sizes of a variant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Points of a cloud.
    pub points: i64,
    /// Numbers of a point, its place first.
    pub channels: i64,
    /// Points that one time step sees.
    pub samples: i64,
    /// Neighbours of a point.
    pub neighbours: i64,
    /// Channels inside the transformer blocks.
    pub width: i64,
    /// Channels of the first block; they double with each that follows.
    pub first_width: i64,
    /// Halvings of the scale, each with a block behind it and a quarter of the points.
    pub downs: usize,
}

impl Config {
    /// For ModelNet: 1024 points with normals.
    pub fn modelnet() -> Self {
        Config {
            points: 1024,
            channels: 6,
            samples: 512,
            neighbours: 16,
            width: 512,
            first_width: 32,
            downs: 4,
        }
    }

    /// Channels behind `downs` halvings.
    fn channels_after(&self, downs: usize) -> i64 {
        self.first_width << downs
    }

    /// Points behind `downs` halvings.
    fn points_after(&self, downs: usize) -> i64 {
        match downs {
            0 => self.samples,
            _ => self.points >> (2 * downs),
        }
    }
}

/// `A` and `B` below `p`: a pointwise convolution and its norm, as steps of an official sequence.
fn layer(p: &nn::Path, [conv, norm]: [i64; 2], sizes: (i64, i64), stored: Stored) -> LinearBn {
    LinearBn::new((p / conv, p / norm), sizes, stored, true)
}

/// Neurons that a checkpoint knows nothing of: SpikingJelly keeps their constants out of it.
fn unstored(p: &nn::Path, channels: i64, neurons: &Neurons) -> Spikes {
    let mut store = nn::VarStore::new(p.device());
    let path = p.components().fold(store.root(), |path, name| path / name);
    let layer = neurons.layer(path, channels);
    // Constants, also to a tracer, which takes none that wants a gradient.
    store.freeze();
    layer
}

/// S, conv, BN, S, conv, BN.
#[derive(Debug)]
struct Pair {
    lifs: [Spikes; 2],
    layers: [LinearBn; 2],
}

impl Pair {
    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        let hidden = self.layers[0].forward(&self.lifs[0].forward(x, time));
        self.layers[1].forward(&self.lifs[1].forward(&hidden, time))
    }

    fn fuse(&mut self) {
        self.layers.iter_mut().for_each(LinearBn::fuse);
    }
}

/// conv, BN, S.
#[derive(Debug)]
struct Projection {
    layer: LinearBn,
    lif: Spikes,
}

impl Projection {
    fn forward(&self, x: &Tensor, time: &Time) -> Tensor {
        self.lif.forward(&self.layer.forward(x), time)
    }
}

/// Vector attention over the nearest points, with a real softmax.
#[derive(Debug)]
struct Block {
    in_lif: Spikes,
    widen: Projection,
    qkv: [Projection; 3],
    delta: Pair,
    delta_lif: Spikes,
    gamma_lifs: [Spikes; 2],
    gamma_wide: LinearBn,
    /// Never folded: see [`Block::mix`].
    gamma_out: ConvBn,
    out_lif: Spikes,
    narrow: LinearBn,
    neighbours: i64,
}

impl Block {
    fn new(p: &nn::Path, channels: i64, config: &Config, neurons: &Neurons) -> Self {
        let width = config.width;
        let square = (width, width);
        let (fc1, fc2) = (p / "fc1", p / "fc2");
        let (delta, gamma) = (p / "fc_delta", p / "fc_gamma");
        let lif = |p: nn::Path| neurons.layer(p, width);
        let projection = |p: &nn::Path, at: [i64; 3], sizes| Projection {
            layer: layer(p, [at[0], at[1]], sizes, Stored::Conv1d),
            lif: lif(p / at[2]),
        };
        Block {
            in_lif: neurons.layer(&fc1 / 0, channels),
            widen: projection(&fc1, [1, 2, 3], (channels, width)),
            qkv: ["w_qs", "w_ks", "w_vs"].map(|name| projection(&(p / name), [0, 1, 2], square)),
            delta: Pair {
                lifs: [unstored(&(&delta / 0), 3, neurons), lif(&delta / 3)],
                layers: [
                    layer(&delta, [1, 2], (3, width), Stored::Conv2d),
                    layer(&delta, [4, 5], square, Stored::Conv2d),
                ],
            },
            delta_lif: lif(&delta / 6),
            gamma_lifs: [lif(&gamma / 0), lif(&gamma / 3)],
            gamma_wide: layer(&gamma, [1, 2], square, Stored::Conv2d),
            gamma_out: ConvBn::new(
                &gamma / 4,
                &gamma / 5,
                width,
                width,
                ConvConfig::pointwise().with_bias(),
            ),
            out_lif: lif(&fc2 / 0),
            narrow: layer(&fc2, [1, 2], (width, channels), Stored::Conv1d),
            neighbours: config.neighbours,
        }
    }

    /// Places [rows, N, 3] and features [rows, N, C] to features of the same shape.
    fn forward(&self, places: &Tensor, features: &Tensor, time: &Time) -> Tensor {
        let near = nearest_points(places, places, self.neighbours);
        let x = self
            .widen
            .forward(&self.in_lif.forward(features, time), time);
        let [q, k, v] = self.qkv.each_ref().map(|layer| layer.forward(&x, time));
        let [k, v] = [k, v].map(|t| gather_points(&t, &near));
        let offsets = places.unsqueeze(2) - gather_points(places, &near);
        let position = self
            .delta_lif
            .forward(&self.delta.forward(&offsets, time), time);
        let [wide_lif, out_lif] = &self.gamma_lifs;
        let x = wide_lif.forward(&(q.unsqueeze(2) - k + &position), time);
        let x = out_lif.forward(&self.gamma_wide.forward(&x), time);
        let mixed = self.mix(&x, &(v + position));
        let fired = self.out_lif.forward(&mixed, time);
        self.narrow.forward_add(&fired, features)
    }

    /// Values [rows, N, K, C] weighted by the softmax over K neighbours of what `gate` makes: [rows, N, C].
    ///
    /// Where every neighbour's value is 1 the weights' sum is 1, and half of it is exactly the threshold behind: rounding
    /// decides whether the neuron fires. So this is the official operators in the official layout in every form of the network, to the last bit.
    fn mix(&self, gate: &Tensor, values: &Tensor) -> Tensor {
        let [gate, values] = [gate, values].map(|t| t.permute([0, 3, 1, 2]).contiguous());
        let scores = self.gamma_out.forward(&gate);
        let scale = (scores.size()[1] as f64).sqrt();
        let weights = (scores / scale).softmax(-1, None::<Kind>);
        let mixed = Tensor::einsum("bcnm,bcnm->bcn", &[weights, values], None::<&[i64]>);
        mixed.transpose(1, 2)
    }

    fn fuse(&mut self) {
        self.widen.layer.fuse();
        self.qkv.iter_mut().for_each(|unit| unit.layer.fuse());
        self.delta.fuse();
        self.gamma_wide.fuse();
        self.narrow.fuse();
    }
}

/// A quarter of the points, each with the largest of what its neighbours say.
#[derive(Debug)]
struct Down {
    pair: Pair,
    points: i64,
    neighbours: i64,
}

impl Down {
    fn new(p: &nn::Path, downs: usize, config: &Config, neurons: &Neurons) -> Self {
        let sa = p / "sa";
        let (convs, norms, lifs) = (&sa / "mlp_convs", &sa / "mlp_bns", &sa / "mlp_lifs");
        let channels = config.channels_after(downs);
        let sizes = [(channels / 2 + 3, channels), (channels, channels)];
        let each = |i: usize| {
            let paths = (&convs / i, &norms / i);
            LinearBn::new(paths, sizes[i], Stored::Conv2d, true)
        };
        Down {
            pair: Pair {
                lifs: [0, 1].map(|i| unstored(&(&lifs / i), sizes[i].0, neurons)),
                layers: [0, 1].map(each),
            },
            points: config.points_after(downs),
            neighbours: config.neighbours,
        }
    }

    /// Places and features of N points to those of fewer.
    fn forward(&self, places: &Tensor, features: &Tensor, time: &Time) -> (Tensor, Tensor) {
        let kept = furthest_points(places, self.points.min(places.size()[1]));
        let centres = gather_points(places, &kept);
        let near = nearest_points(&centres, places, self.neighbours);
        let offsets = gather_points(places, &near) - centres.unsqueeze(2);
        let grouped = Tensor::cat(&[offsets, gather_points(features, &near)], -1);
        let features = self.pair.forward(&grouped, time).amax([2], false);
        (centres, features)
    }
}

/// The samples of each time step: the queue of the paper's Q-SDE. Clouds [B, N, C] to [T * B, samples, C].
///
/// The first step samples the cloud; each later one drops the oldest samples for as many of the points that are left.
fn queue(cloud: &Tensor, samples: i64, steps: i64) -> Tensor {
    let places = |points: &Tensor| points.narrow(2, 0, 3);
    let mut taken = furthest_points(&places(cloud), samples);
    let mut left = remaining_points(&places(cloud), &taken);
    let mut seen = vec![gather_points(cloud, &taken)];
    let renewed = (cloud.size()[1] - samples) / (steps - 1).max(1);
    for step in 1..steps as usize {
        let before = &seen[step - 1];
        seen.push(if renewed == 0 {
            before.shallow_clone()
        } else {
            taken = furthest_points(&left, renewed);
            left = remaining_points(&left, &taken);
            // The indices are those of `left`, and taken for those of the whole cloud.
            let added = gather_points(cloud, &taken);
            Tensor::cat(&[before.narrow(1, renewed, samples - renewed), added], 1)
        });
    }
    Tensor::cat(&seen, 0)
}

/// The network.
#[derive(Debug)]
pub(super) struct Spt {
    embed: [LinearBn; 2],
    embed_lif: Spikes,
    first: Block,
    downs: Vec<(Down, Block)>,
    head_lifs: [Spikes; 3],
    head_layers: [LinearBn; 2],
    head: Linear,
    config: Config,
}

impl Spt {
    /// Builds the network under official names.
    pub fn new(p: &nn::Path, config: Config, classes: i64, neurons: &Neurons) -> Self {
        let (backbone, fc2) = (p / "backbone", p / "fc2");
        let fc1 = &backbone / "fc1";
        let width = config.first_width;
        let conv1d = Stored::Conv1d;
        let (downs, blocks) = (&backbone / "transition_downs", &backbone / "transformers");
        let last = config.channels_after(config.downs);
        Spt {
            embed: [
                layer(&fc1, [0, 1], (config.channels, width), conv1d),
                layer(&fc1, [3, 4], (width, width), conv1d),
            ],
            embed_lif: neurons.layer(&fc1 / 2, width),
            first: Block::new(&(&backbone / "transformer1" / 0), width, &config, neurons),
            downs: (0..config.downs)
                .map(|i| {
                    let down = Down::new(&(&downs / i), i + 1, &config, neurons);
                    let channels = config.channels_after(i + 1);
                    (down, Block::new(&(&blocks / i), channels, &config, neurons))
                })
                .collect(),
            head_lifs: [(0, last), (3, 256), (6, 64)]
                .map(|(i, channels)| neurons.layer(&fc2 / i, channels)),
            head_layers: [
                layer(&fc2, [1, 2], (last, 256), conv1d),
                layer(&fc2, [4, 5], (256, 64), conv1d),
            ],
            head: Linear::pointwise_1d(&fc2 / 7, 64, classes, true),
            config,
        }
    }
}

/// Shows points [rows, N, C] by time.
fn see(name: &str, points: &Tensor, time: &Time) {
    if taps::recording() {
        taps::see(name, &points.unflatten(0, [time.steps(), -1]));
    }
}

/// Features [rows, N, C] as a map of height 1.
fn as_map(features: &Tensor) -> Tensor {
    features.transpose(1, 2).unsqueeze(2)
}

impl Network for Spt {
    /// The steps see different points.
    fn encode(&self, x: &Tensor, steps: i64) -> ByTime {
        ByTime::Each(queue(x, self.config.samples, steps))
    }

    fn currents(&self, x: &Tensor) -> Tensor {
        x.shallow_clone()
    }

    /// Maps [rows, C, 1, points].
    fn stages(&self, x: &Tensor, time: &Time) -> Vec<Tensor> {
        let mut places = x.narrow(2, 0, 3);
        let fired = self.embed_lif.forward(&self.embed[0].forward(x), time);
        let embedded = self.embed[1].forward(&fired);
        taps::see("backbone.fc1", &embedded.transpose(1, 2));
        let mut features = self.first.forward(&places, &embedded, time);
        see("backbone.transformer1.0", &features, time);
        let mut maps = vec![as_map(&features)];
        for (i, (down, block)) in self.downs.iter().enumerate() {
            (places, features) = down.forward(&places, &features, time);
            see(&format!("backbone.transition_downs.{i}"), &places, time);
            features = block.forward(&places, &features, time);
            see(&format!("backbone.transformers.{i}"), &features, time);
            maps.push(as_map(&features));
        }
        maps
    }

    /// All of the head but its last layer, which is the same before and behind the mean over time.
    fn pool(&self, last: &Tensor, time: &Time) -> Tensor {
        let mean = last.mean_dim([2i64, 3].as_slice(), false, None::<Kind>);
        let x = self.head_lifs[0].forward(&mean.unsqueeze(1), time);
        let x = self.head_lifs[1].forward(&self.head_layers[0].forward(&x), time);
        let x = self.head_lifs[2].forward(&self.head_layers[1].forward(&x), time);
        x.squeeze_dim(1)
    }

    fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }

    fn stage_info(&self) -> Vec<Stage> {
        (0..=self.config.downs)
            .map(|i| Stage {
                channels: self.config.channels_after(i),
                stride: self.config.points / self.config.points_after(i),
            })
            .collect()
    }

    fn fuse(&mut self) {
        self.embed.iter_mut().for_each(LinearBn::fuse);
        self.first.fuse();
        for (down, block) in &mut self.downs {
            down.pair.fuse();
            block.fuse();
        }
        self.head_layers.iter_mut().for_each(LinearBn::fuse);
        self.head.fuse();
    }

    fn input_channels(&self) -> i64 {
        self.config.channels
    }

    fn input_form(&self) -> InputForm {
        InputForm::Points
    }

    /// Rounding decides wherever a sum of attention weights meets a threshold ([`Block::mix`]): 0.29 was measured of the
    /// official code in float32 against itself in float64, with weights of no training.
    fn float32_tolerance(&self) -> f64 {
        0.5
    }

    fn check_input(&self, _height: i64, points: i64) -> Result<(), String> {
        let least = self.config.samples;
        if points >= least {
            return Ok(());
        }
        Err(format!(
            "SPT's time steps see {least} points each: clouds have no fewer, not {points}"
        ))
    }
}

/// STEP's neurons with the thresholds of this model: no configuration exchanges them.
fn build(p: &nn::Path, config: Config, o: &BuildOptions) -> Box<dyn Backbone> {
    let steps = o.spiking.steps.unwrap_or(4);
    let neurons = Neurons(NeuronConfig::lif().threshold(0.5).steps(steps));
    super::variants::over_time(&neurons, o, |neurons| {
        Spt::new(p, config, o.classes, neurons)
    })
}

/// Places and normals; a cloud is centred and divided by its radius.
const CLOUDS: Preprocessing = Preprocessing {
    size: (1, 1024),
    crop_pct: 1.0,
    interpolation: Interpolation::Bilinear,
    mean: [0.0; 3],
    std: [1.0; 3],
    source: "Fancyssc/STEP cls/configs/spt/modelnet40.yml",
};

/// Every variant.
pub static VARIANTS: &[Variant] = &[Variant {
    name: "step-spt-modelnet40",
    aliases: &["spt", "step_spt"],
    classes: 40,
    params: 9_635_636,
    preprocessing: CLOUDS,
    build: |p, o| build(p, Config::modelnet(), o),
    ..CIFAR_VARIANT
}];
