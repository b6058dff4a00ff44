//! `zoo profile`: what a model computes, by module, layer and kind of operator.

mod energy;
mod figures;
mod run;
mod skipped;
mod tables;

use super::output::{explain, print, print_json};
use super::{Exit, model};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zoo::backbones::{ReportedMacs, Variant};
use zoo::counting::{Executed, Execution};
use zoo::graph::Graph;
use zoo::graph::cost::{Costs, KindCost, ModuleCost, Product, Work};
use zoo::runtime::Session;

/// Count what a model computes, from its graph: parameters, multiply-accumulates (MACs), elementwise operations, bytes, memory.
///
/// Beside it what its authors claim, and what it executes on images: some operators skip work that a graph shows. The form
/// that was trained is counted unless --fused, at the published size unless --input-size says another. `zoo bench` measures time.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The model; with --table, several names or globs.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// Rows of the table.
    #[arg(long, value_enum, default_value = "module")]
    by: By,
    /// Segments of a module's path to go down to.
    #[arg(long, default_value_t = 2)]
    depth: usize,
    /// Images at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=65_536))]
    batch: i64,
    /// Count the form that runs: norms folded, branches merged.
    #[arg(long)]
    fused: bool,
    /// Images to run: any data set that eval reads. Default: the drawn set.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Run at most this many images; 0 runs none.
    #[arg(long, default_value_t = 4)]
    limit: usize,
    /// Add energies: estimated from the counts, and measured where this machine has a counter.
    #[arg(long)]
    energy: bool,
    /// Write the graph: .txt, .json, .dot (Graphviz) or .mmd (Mermaid).
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    /// Write MACs of all models as a Markdown table; nothing is run.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["graph", "json", "energy"])]
    table: Option<PathBuf>,
    /// Figures to hold the table to, such as tests/figures/macs.json.
    #[arg(long, value_name = "FILE", requires = "table")]
    against: Option<PathBuf>,
    /// Print JSON (schema zoo.profile/1).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: model::ModelArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// The tree of modules, to --depth.
    Module,
    /// Every operator that computes or moves something, in order.
    Layer,
    /// Kinds of operators.
    Kind,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    model: &'static str,
    /// `trained` or `fused`.
    form: &'static str,
    batch: i64,
    input: [i64; 2],
    params: u64,
    buffers: u64,
    /// Whether every operator was counted; otherwise all figures are at least.
    complete: bool,
    unknown: BTreeMap<String, usize>,
    total: Work,
    modules: Vec<ModuleCost>,
    layers: Vec<Layer>,
    kinds: Vec<KindCost>,
    macs_of_an_image: Macs,
    energy: Option<energy::Energies>,
}

/// An operator that computes or moves something.
#[derive(Serialize)]
struct Layer {
    module: String,
    kind: String,
    output: Vec<i64>,
    params: u64,
    product: Option<Product>,
    #[serde(flatten)]
    work: Work,
}

/// The same work three times: said, counted, done.
#[derive(Serialize)]
struct Macs {
    claimed: Option<Claimed>,
    counted: f64,
    executed: Option<Ran>,
    /// The modules with products, heads or neurons, to `--depth`.
    modules: Vec<skipped::Module>,
}

#[derive(Serialize)]
struct Claimed {
    macs: f64,
    source: &'static str,
}

#[derive(Serialize)]
struct Ran {
    data: String,
    /// `trained` or `fused`.
    form: &'static str,
    /// Whether the weights are; what untrained ones skip or fire means nothing.
    trained: bool,
    #[serde(flatten)]
    executed: Executed,
    #[serde(skip)]
    execution: Execution,
}

/// Counts one model and prints, or all for the table.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let variants = model::variants(&arguments.models)?;
    if let Some(table) = &arguments.table {
        return figures::run(arguments, &variants, table);
    }
    let [variant] = variants.as_slice() else {
        bail!(
            "{} models: one at a time, or all into a table (--table FILE)",
            variants.len()
        );
    };
    let session = open(arguments, variant, !arguments.fused)?;
    let graph = session.trace()?.graph;
    if let Some(path) = &arguments.graph {
        write(&graph, path)?;
    }
    let report = report(arguments, &session, &graph)?;
    if arguments.json {
        print_json(&report)?;
    } else {
        tables::print_report(arguments, &report)?;
    }
    Ok(Exit::Done)
}

fn open(arguments: &Arguments, variant: &'static Variant, plain: bool) -> Result<Session> {
    let run = model::ModelArguments {
        no_fuse: plain || arguments.run.no_fuse,
        ..arguments.run.clone()
    };
    run.open_in_libtorch(variant)
}

/// Whether the head and the time steps are those of the claims.
fn as_published(arguments: &Arguments) -> bool {
    arguments.run.classes.is_none() && arguments.run.time_steps.is_none()
}

fn report(arguments: &Arguments, session: &Session, graph: &Graph) -> Result<Report> {
    let variant = session.variant();
    let size = session.input_size();
    let costs = graph.costs(arguments.batch);
    let claimed = figures::claimed(variant, size).filter(|_| as_published(arguments));
    let ran = match arguments.limit {
        0 => None,
        _ => Some(run::run(arguments, variant)?),
    };
    let modules = costs.modules(graph, arguments.depth);
    Ok(Report {
        schema: "zoo.profile/1",
        model: variant.name,
        form: if arguments.fused { "fused" } else { "trained" },
        batch: arguments.batch,
        input: size,
        params: session.params(),
        buffers: costs.buffers,
        complete: costs.complete(),
        unknown: costs.unknown.clone(),
        total: costs.total,
        modules: modules.clone(),
        layers: layers(graph, &costs),
        kinds: costs.kinds(graph),
        energy: match arguments.energy {
            true => Some(energy::energies(arguments, session, graph, &costs)?),
            false => None,
        },
        macs_of_an_image: Macs {
            claimed: claimed.map(|ReportedMacs { giga, source }| Claimed {
                macs: giga * 1e9,
                source,
            }),
            counted: costs.total.macs as f64 / arguments.batch as f64,
            modules: skipped::modules(&modules, arguments.batch, ran.as_ref()),
            executed: ran,
        },
    })
}

fn layers(graph: &Graph, costs: &Costs) -> Vec<Layer> {
    let nodes = graph.nodes.iter().zip(&costs.nodes);
    let working = nodes.filter(|(node, cost)| {
        let work = &cost.work;
        work.macs + work.elementwise + work.read + work.written > 0
            || costs.unknown.contains_key(&node.kind)
    });
    let shape = |id: usize| {
        graph.values[id]
            .shape
            .iter()
            .map(|axis| axis.at(costs.batch))
    };
    working
        .map(|(node, cost)| Layer {
            module: node.module.clone(),
            kind: node.kind.clone(),
            output: node
                .outputs
                .first()
                .map_or(Vec::new(), |&id| shape(id).collect()),
            params: cost.params,
            product: cost.product,
            work: cost.work,
        })
        .collect()
}

fn write(graph: &Graph, path: &Path) -> Result<()> {
    let text = match path.extension().and_then(|e| e.to_str()) {
        Some("txt") => graph.to_string(),
        Some("json") => serde_json::to_string(graph)?,
        Some("dot" | "gv") => graph.to_dot(),
        Some("mmd" | "mermaid") => graph.to_mermaid(),
        _ => bail!(
            "{}: a graph is written as .txt, .json, .dot or .mmd",
            path.display()
        ),
    };
    std::fs::write(path, text).with_context(|| path.display().to_string())
}
