//! `zoo bench`: how fast models run here.

use super::energy::ONES;
use super::engine::{self, Model};
use super::output::{print, print_json};
use super::{Exit, auto, model, stop_on_interrupt};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Tensor;
use zoo::backbones::Preprocessing;
use zoo::counting::spiking;
use zoo::eval::bench::worker::{self, Worker};
use zoo::eval::bench::{
    Clock, Context as BenchContext, Description, Ended, Input, Instruments, Machine, Progress,
    Report, Schedule, Spiking, Subject, SystemClock, Watch,
};
use zoo::eval::data::{DataSet, OpenOptions};
use zoo::eval::pipeline::Images;
use zoo::eval::{PredictError, Prepare};
use zoo::power::{CpuCounter, Energy, EnergyCounter, GpuCounter, Unavailable, Window};
use zoo::runtime::{Device, Engine, EngineInfo, EngineName};
use zoo::weights::formula::Formula;

/// Time models: p50, p90, p99, images/s, with warm-up and blocks that other load disturbed left out.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Models or globs; several are timed in turn, block by block, and compared with the first.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// Images per call.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    batch: Vec<usize>,
    /// Time on images from this folder (any layout that eval reads). Default: random numbers.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Rounds of blocks.
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// Seconds of a block.
    #[arg(long, default_value_t = 0.25)]
    block: f64,
    /// Discard blocks during which other processes used more cores than this.
    #[arg(long, default_value_t = 0.25, value_name = "CORES")]
    max_load: f64,
    /// Seconds of the energy measurement of each case after the timing; 0 leaves it out.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", value_parser = energy_seconds)]
    energy: f64,
    /// Print JSON (schema zoo.bench/1).
    #[arg(long)]
    json: bool,
    /// Answer the requests of bench/compare.py on stdin instead (one model).
    #[arg(long, hide = true)]
    worker: bool,
    #[command(flatten)]
    run: model::ModelArguments,
}

/// The salt of the random input, whose formula the goldens share.
const SALT: &str = "zoo";

/// A model in its engine (in several where `auto` chose another one for another batch size), with its images ready on the device.
struct Timed {
    name: String,
    engines: Vec<(EngineName, Box<dyn Engine>)>,
    /// Batch sizes, each with the index of its engine.
    chosen: Vec<(usize, usize)>,
    size: (usize, usize),
    images: Option<Tensor>,
    ready: Vec<(usize, Tensor)>,
}

impl Timed {
    fn open(arguments: &Arguments, model: &Model) -> Result<Timed> {
        let largest = arguments.batch.iter().copied().max().unwrap_or(1);
        let mut engines: Vec<(EngineName, Box<dyn Engine>)> = Vec::new();
        let mut chosen = Vec::new();
        for &batch in &arguments.batch {
            let engine = auto::resolve(model, &arguments.run, batch)?;
            let index = match engines.iter().position(|(name, _)| *name == engine) {
                Some(open) => open,
                None => {
                    let mut opened = model.open(engine, &arguments.run)?;
                    if arguments.images.is_some() {
                        opened = opened.for_images(&model.name)?;
                    }
                    engines.push((engine, opened.engine));
                    engines.len() - 1
                }
            };
            chosen.push((batch, index));
        }
        if engines.is_empty() {
            bail!("--batch: say one or more sizes");
        }
        let images = match &arguments.images {
            Some(dir) => Some(load_images(dir, &model.preprocessing, largest)?),
            None => None,
        };
        Ok(Timed {
            name: model.name.clone(),
            engines,
            chosen,
            size: model.preprocessing.size,
            images,
            ready: Vec::new(),
        })
    }

    fn engine(&mut self, batch: usize) -> &mut dyn Engine {
        let index = self.chosen.iter().find(|(n, _)| *n == batch);
        self.engines[index.map_or(0, |(_, index)| *index)]
            .1
            .as_mut()
    }

    /// What each engine says of itself, with its batch sizes where there are several engines.
    fn described(&self, what: fn(EngineInfo) -> String) -> String {
        let one = |(index, (_, engine)): (usize, &(EngineName, Box<dyn Engine>))| {
            let own = self.chosen.iter().filter(|(_, i)| *i == index);
            let batches: Vec<String> = own.map(|(n, _)| n.to_string()).collect();
            match self.engines.len() {
                1 => what(engine.info()),
                _ => format!("{} at batch {}", what(engine.info()), batches.join(", ")),
            }
        };
        let all: Vec<String> = self.engines.iter().enumerate().map(one).collect();
        all.join("; ")
    }

    /// Channels, height and width.
    fn image_shape(&self) -> [usize; 3] {
        let (height, width) = self.size;
        [self.engines[0].1.input_channels() as usize, height, width]
    }

    /// The shape of a batch, whatever the model takes.
    fn input_shape(&self, batch: usize) -> Vec<i64> {
        let [channels, height, width] = self.image_shape().map(|n| n as i64);
        let form = self.engines[0].1.input_form();
        form.shape(batch as i64, channels, [height, width])
    }

    fn input(&mut self, batch: usize) -> Tensor {
        if let Some((_, x)) = self.ready.iter().find(|(n, _)| *n == batch) {
            return x.shallow_clone();
        }
        let x = match &self.images {
            Some(images) => {
                let index: Vec<i64> = (0..batch as i64).map(|i| i % images.size()[0]).collect();
                images.index_select(0, &Tensor::from_slice(&index))
            }
            None => formula_input(&self.input_shape(batch), SALT),
        };
        let x = self.engine(batch).prepare(&x);
        self.ready.push((batch, x.shallow_clone()));
        x
    }

    /// What a spiking network does with the input that is timed; `None` for others, and in engines that show nothing.
    fn spiking(&mut self, batch: usize) -> Result<Option<Spiking>> {
        let x = self.input(batch);
        let Some(session) = self.engine(batch).session() else {
            return Ok(None);
        };
        Ok(spiking(&session.work(&x)?, batch as u64, ONES))
    }
}

impl Subject for Timed {
    fn name(&self) -> &str {
        &self.name
    }

    fn run_once(&mut self, batch: usize) -> Result<(), PredictError> {
        let x = self.input(batch);
        let engine = self.engine(batch);
        let _logits = engine.logits(&x).map_err(to_predict_error)?;
        engine.synchronize();
        Ok(())
    }
}

impl Worker for Timed {
    fn describe(&self) -> Description {
        let info = self.engines[0].1.info();
        Description {
            name: self.name.clone(),
            engine: self.described(|info| info.engine),
            version: self.described(|info| info.version),
            model: self.name.clone(),
            device: info.device.to_string(),
            dtype: info.precision.to_string(),
            threads: info.threads,
            input: self.image_shape(),
            options: match self.engines.len() {
                1 => info.options,
                _ => Vec::new(),
            },
        }
    }

    fn logits(&mut self, batch: usize, salt: &str) -> Result<Vec<Vec<f64>>, PredictError> {
        let x = formula_input(&self.input_shape(batch), salt);
        let logits = self.engine(batch).logits(&x).map_err(to_predict_error)?;
        Vec::<Vec<f64>>::try_from(
            logits
                .to_device(tch::Device::Cpu)
                .to_kind(tch::Kind::Double),
        )
        .map_err(to_predict_error)
    }
}

fn to_predict_error(e: impl std::fmt::Display) -> PredictError {
    PredictError(e.to_string())
}

fn formula_input(shape: &[i64], salt: &str) -> Tensor {
    let formula = Formula {
        salt: salt.to_owned(),
        gain: 1.0,
    };
    let unsigned: Vec<usize> = shape.iter().map(|&n| n.unsigned_abs() as usize).collect();
    Tensor::from_slice(&formula.fill_input(&unsigned)).reshape(shape)
}

/// As many readable images as the largest batch needs, [N, 3, H, W].
fn load_images(dir: &Path, preprocessing: &Preprocessing, wanted: usize) -> Result<Tensor> {
    let options = OpenOptions {
        need_labels: false,
        ..OpenOptions::default()
    };
    let set = DataSet::open(dir, &options)?;
    let images = Images {
        transform: model::transform(preprocessing),
    };
    let (height, width) = images.transform.size;
    let mut pixels = Vec::new();
    let mut count = 0;
    for sample in &set.samples {
        if count == wanted {
            break;
        }
        let Ok(image) = images.decode(sample) else {
            continue;
        };
        let start = pixels.len();
        pixels.resize(start + 3 * height * width, 0.0);
        images.preprocess(&image, &mut pixels[start..]);
        count += 1;
    }
    if count == 0 {
        bail!("{}: no readable image", dir.display());
    }
    Ok(Tensor::from_slice(&pixels).reshape([count as i64, 3, height as i64, width as i64]))
}

/// Times the models and prints the report.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let models = engine::models(&arguments.models, &arguments.run)?;
    let mut timed = Vec::new();
    for model in &models {
        timed.push(Timed::open(arguments, model)?);
    }
    if arguments.worker {
        let [only] = timed.as_mut_slice() else {
            bail!("--worker times one model");
        };
        let (stdin, stdout) = (io::stdin().lock(), io::stdout().lock());
        worker::serve(stdin, stdout, only, &SystemClock::default())?;
        return Ok(Exit::Done);
    }
    let report = measure(arguments, &mut timed)?;
    if arguments.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(match report.ended {
        Ended::Stopped => Exit::Interrupted,
        Ended::Complete | Ended::TimeLimit => Exit::Done,
    })
}

fn measure(arguments: &Arguments, timed: &mut [Timed]) -> Result<Report> {
    let schedule = Schedule {
        rounds: arguments.rounds,
        block_s: arguments.block,
        max_other_load: arguments.max_load,
        ..Schedule::default()
    };
    let context = BenchContext {
        tool: format!("zoo {}", env!("CARGO_PKG_VERSION")),
        machine: Machine::this(),
        input: match &arguments.images {
            Some(dir) => Input::Images {
                path: dir.display().to_string(),
                count: timed
                    .iter()
                    .filter_map(|t| t.images.as_ref())
                    .map(|x| x.size()[0] as usize)
                    .max()
                    .unwrap_or(0),
            },
            None => Input::Formula {
                salt: SALT.to_owned(),
            },
        },
        subjects: timed.iter().map(Worker::describe).collect(),
    };
    let stop = stop_on_interrupt()?;
    let mut progress = |step: &Progress<'_>| {
        if let Progress::WarmedUp { subject, batch, .. } = step {
            eprintln!("zoo: {subject} at batch {batch} is warm");
        }
    };
    let mut watch = Watch {
        stop: &stop,
        progress: &mut progress,
    };
    let mut subjects: Vec<&mut dyn Subject> =
        timed.iter_mut().map(|t| t as &mut dyn Subject).collect();
    let measured = schedule
        .run(
            &mut subjects,
            &arguments.batch,
            &mut Instruments::default(),
            &mut watch,
        )
        .context("benchmark")?;
    let mut report = Report::new(context, schedule, measured);
    if report.ended == Ended::Complete {
        count_spikes(timed, &mut report)?;
    }
    if arguments.energy > 0.0 && report.ended == Ended::Complete {
        measure_energy(arguments, timed, &stop, &mut report)?;
    }
    Ok(report)
}

fn count_spikes(timed: &mut [Timed], report: &mut Report) -> Result<()> {
    for case in &mut report.cases {
        if let Some(subject) = timed.iter_mut().find(|t| t.name() == case.subject) {
            case.spiking = subject.spiking(case.batch)?;
        }
    }
    Ok(())
}

fn energy_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0 to 600".to_owned()),
    }
}

/// Reads the device's energy counter over a window of calls, case by case.
fn measure_energy(
    arguments: &Arguments,
    timed: &mut [Timed],
    stop: &AtomicBool,
    report: &mut Report,
) -> Result<()> {
    let mut counter = match energy_counter(arguments.run.device) {
        Ok(counter) => counter,
        Err(e) => {
            let reason = e.to_string();
            for case in &mut report.cases {
                case.energy = Some(Energy::Unavailable {
                    reason: reason.clone(),
                });
            }
            return Ok(());
        }
    };
    let clock = SystemClock::default();
    for case in &mut report.cases {
        let Some(subject) = timed.iter_mut().find(|t| t.name() == case.subject) else {
            continue;
        };
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let call = || subject.run_once(case.batch);
        let window = Window::of(arguments.energy);
        let energy = window.measure(counter.as_mut(), || clock.now_s(), call);
        case.energy = Some(energy.context("measuring energy")?);
    }
    Ok(())
}

/// The counter of what this device uses.
pub(super) fn energy_counter(device: Device) -> Result<Box<dyn EnergyCounter>, Unavailable> {
    Ok(match device {
        Device::Cpu => Box::new(CpuCounter::open()?),
        Device::Cuda(index) => Box::new(GpuCounter::open(index)?),
    })
}
