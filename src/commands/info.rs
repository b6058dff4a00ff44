//! `zoo info`: what is known of one model, and what it is made of.

use super::list::{Row, row};
use super::output::{human, print, print_json, table};
use super::{Exit, model};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use tch::nn;
use zoo::backbones::{Backbone, BuildOptions, Variant};
use zoo::ops::without_start;

/// Show one model: its data, its stages, its modules with parameters and shapes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The model.
    model: String,
    /// Segments of a module's name to group by; 0 lists every tensor.
    #[arg(long, default_value_t = 2)]
    depth: usize,
    /// Width of the head. Default: the model's own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    classes: Option<i64>,
    /// Print JSON (schema zoo.info/1).
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Info<'a> {
    schema: &'static str,
    #[serde(flatten)]
    model: Row<'a>,
    channels: i64,
    trainable: u64,
    /// What the authors report; `zoo profile` counts.
    reported_macs: Option<ReportedMacs>,
    stages: Vec<StageInfo>,
    modules: Vec<Module>,
}

/// Multiply-accumulates of an image of the published size.
#[derive(Serialize)]
struct ReportedMacs {
    macs: f64,
    source: &'static str,
}

/// A feature map at the published input size.
#[derive(Serialize)]
struct StageInfo {
    channels: i64,
    stride: i64,
    size: [i64; 2],
}

/// The tensors whose names begin alike.
#[derive(Serialize)]
struct Module {
    name: String,
    /// Elements that training changes.
    params: u64,
    /// Elements of statistics and other tensors of the state_dict.
    buffers: u64,
    tensors: usize,
    /// The shape, where the module is one tensor.
    shape: Option<Vec<i64>>,
}

/// Prints what there is to know.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let variant = model::variant(&arguments.model)?;
    let info = inspect(variant, arguments);
    if arguments.json {
        print_json(&info)?;
    } else {
        print_text(variant, &info)?;
    }
    Ok(Exit::Done)
}

fn inspect(variant: &'static Variant, arguments: &Arguments) -> Info<'static> {
    let published = variant.build_options();
    let options = BuildOptions {
        classes: arguments.classes.unwrap_or(published.classes),
        ..published
    };
    let store = nn::VarStore::new(tch::Device::Cpu);
    let network = without_start(|| (variant.build)(&store.root(), &options));
    let modules = modules(&store, arguments.depth);
    Info {
        schema: "zoo.info/1",
        model: row(variant),
        channels: network.input_channels(),
        trainable: modules.iter().map(|m| m.params).sum(),
        reported_macs: variant.reported_macs().map(|r| ReportedMacs {
            macs: r.giga * 1e9,
            source: r.source,
        }),
        stages: stages(variant, network.as_ref()),
        modules,
    }
}

fn stages(variant: &Variant, network: &dyn Backbone) -> Vec<StageInfo> {
    let (height, width) = variant.preprocessing.size;
    let stages = network.stage_info().into_iter();
    stages
        .map(|stage| StageInfo {
            channels: stage.channels,
            stride: stage.stride,
            size: [height, width].map(|side| (side as i64 + stage.stride - 1) / stage.stride),
        })
        .collect()
}

/// Tensors grouped by the first `depth` segments of their names, in the order in which the network is built.
fn modules(store: &nn::VarStore, depth: usize) -> Vec<Module> {
    let order: HashMap<usize, usize> = store
        .trainable_variables()
        .iter()
        .enumerate()
        .map(|(i, t)| (t.data_ptr() as usize, i))
        .collect();
    let mut modules: BTreeMap<String, (usize, Module)> = BTreeMap::new();
    for (name, tensor) in store.variables() {
        let segments: Vec<&str> = name.split('.').collect();
        let kept = match depth {
            0 => segments.len(),
            depth => depth.min(segments.len()),
        };
        let group = segments[..kept].join(".");
        let (first, module) = modules.entry(group.clone()).or_insert_with(|| {
            let shape = (kept == segments.len()).then(|| tensor.size());
            (usize::MAX, Module::new(group, shape))
        });
        let elements = tensor.numel() as u64;
        module.tensors += 1;
        match order.get(&(tensor.data_ptr() as usize)) {
            Some(&built) => {
                *first = built.min(*first);
                module.params += elements;
            }
            None => module.buffers += elements,
        }
    }
    let mut modules: Vec<_> = modules.into_values().collect();
    modules.sort_by_key(|(first, _)| *first);
    modules.into_iter().map(|(_, module)| module).collect()
}

impl Module {
    fn new(name: String, shape: Option<Vec<i64>>) -> Module {
        Module {
            name,
            params: 0,
            buffers: 0,
            tensors: 0,
            shape,
        }
    }
}

fn print_text(variant: &Variant, info: &Info<'_>) -> Result<()> {
    let (height, width) = variant.preprocessing.size;
    print(format!(
        "{} ({}): {} parameters, input {}x{height}x{width}",
        variant.name, variant.family, info.trainable, info.channels
    ))?;
    if !variant.aliases.is_empty() {
        print(format!("aliases: {}", variant.aliases.join(", ")))?;
    }
    print(format!(
        "preprocessing: {} ({})",
        info.model.preprocessing, variant.preprocessing.source
    ))?;
    for r in variant.reported {
        let top5 = r.top5.map_or(String::new(), |t| format!(", top-5 {t} %"));
        print(format!(
            "reported: top-1 {} %{top5} on {}: {}",
            r.top1, r.data, r.source
        ))?;
    }
    if let Some(r) = &info.reported_macs {
        let giga = r.macs / 1e9;
        print(format!(
            "reported: {giga} G multiply-accumulates: {} (zoo profile counts them)",
            r.source
        ))?;
    }
    for w in variant.weights {
        print(format!(
            "weights: {} (names: {}; licence: {})",
            w.url, w.names, w.licence
        ))?;
    }
    let mut stages = table(&["stage", "stride", "channels", "map"]);
    for (i, s) in info.stages.iter().enumerate() {
        let [height, width] = s.size;
        stages.add_row([
            i.to_string(),
            s.stride.to_string(),
            s.channels.to_string(),
            format!("{height}x{width}"),
        ]);
    }
    print(stages)?;
    let mut modules = table(&["module", "params", "buffers", "tensors", "shape"]);
    for m in &info.modules {
        modules.add_row([
            m.name.clone(),
            human(m.params),
            human(m.buffers),
            m.tensors.to_string(),
            m.shape.as_ref().map_or(String::new(), |s| format!("{s:?}")),
        ]);
    }
    print(modules)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_hold_every_tensor_once_in_the_order_they_were_built() {
        let store = nn::VarStore::new(tch::Device::Cpu);
        let root = store.root();
        let _stem = root.zeros("stem", &[4]);
        for i in [9, 10] {
            let block = root.sub("block").sub(i);
            let _mean = block.zeros_no_train("running_mean", &[2]);
            let _weight = block.zeros("weight", &[2, 3]);
        }
        let found = modules(&store, 2);
        let names: Vec<_> = found.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["stem", "block.9", "block.10"]);
        assert_eq!(
            (found[1].params, found[1].buffers, found[1].tensors),
            (6, 2, 2)
        );
        assert_eq!(found[0].shape, Some(vec![4]));
        assert_eq!(modules(&store, 0).len(), 5);
    }
}
