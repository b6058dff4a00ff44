//! `zoo weights`: look into checkpoints, convert them.

use super::output::{human, print, print_json, table};
use super::{Exit, model};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zoo::backbones::Variant;
use zoo::runtime::{Options, Session, WeightsSource, key_maps};
use zoo::weights::{Checkpoint, Direction, KeyMap, file_sha256, write_safetensors};

/// Look into checkpoints and convert them. Nothing in a checkpoint is ever executed.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what is in a checkpoint: format, container, tensors, dtypes, SHA-256.
    Inspect(Inspect),
    /// Write a checkpoint, or a model's formula weights, as safetensors.
    Convert(Convert),
}

#[derive(Debug, Args)]
struct Inspect {
    /// The checkpoint: safetensors, .pth, .pt or .bin.
    file: PathBuf,
    /// The container to read, such as model_ema.
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Print JSON (schema zoo.weights/1).
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Convert {
    /// A checkpoint, or formula[:SALT[:GAIN]] (with --model).
    from: String,
    /// The safetensors file to write.
    to: PathBuf,
    /// The container to read, such as model_ema.
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// The model whose tensors these are: the file must fit it strictly.
    #[arg(long)]
    model: Option<String>,
    /// Names to write: official, or those of a key map of the model, such as timm.
    #[arg(long, default_value = "official", requires = "model")]
    names: String,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    match &arguments.command {
        Command::Inspect(arguments) => inspect(arguments),
        Command::Convert(arguments) => convert(arguments),
    }
}

#[derive(Serialize)]
struct Inspection<'a> {
    schema: &'a str,
    file: String,
    sha256: String,
    format: String,
    container: &'a str,
    notes: Vec<String>,
    metadata: &'a BTreeMap<String, String>,
    elements: u64,
    tensors: Vec<Tensor<'a>>,
}

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    dtype: &'a str,
    shape: &'a [usize],
}

fn inspect(arguments: &Inspect) -> Result<Exit> {
    let file = open(&arguments.file, arguments.container.as_deref())?;
    let sha256 =
        file_sha256(&arguments.file).with_context(|| arguments.file.display().to_string())?;
    let tensors: Vec<Tensor> = file
        .tensors()
        .iter()
        .map(|t| Tensor {
            name: &t.name,
            dtype: t.dtype.torch_name(),
            shape: &t.shape,
        })
        .collect();
    let inspection = Inspection {
        schema: "zoo.weights/1",
        file: arguments.file.display().to_string(),
        sha256,
        format: file.format().to_string(),
        container: file.container(),
        notes: file.notes().iter().map(ToString::to_string).collect(),
        metadata: file.metadata(),
        elements: file.total_elements(),
        tensors,
    };
    if arguments.json {
        print_json(&inspection)?;
        return Ok(Exit::Done);
    }
    let mut lines = table(&["tensor", "dtype", "shape"]);
    for t in &inspection.tensors {
        lines.add_row([
            t.name.to_owned(),
            t.dtype.to_owned(),
            format!("{:?}", t.shape),
        ]);
    }
    print(lines)?;
    for (dtype, (count, elements)) in file.dtype_histogram() {
        print(format!(
            "{}: {count} tensors, {} elements",
            dtype.torch_name(),
            human(elements)
        ))?;
    }
    print(format!(
        "{} ({}), sha256 {}",
        inspection.file, inspection.format, inspection.sha256
    ))?;
    for note in &inspection.notes {
        print(note)?;
    }
    Ok(Exit::Done)
}

fn open(path: &Path, container: Option<&str>) -> Result<Checkpoint> {
    let options = zoo::weights::Options {
        container: container.map(str::to_owned),
        ..zoo::weights::Options::default()
    };
    Ok(Checkpoint::open_with(path, &options)?)
}

fn convert(arguments: &Convert) -> Result<Exit> {
    let source: WeightsSource = arguments.from.parse()?;
    let variant = arguments.model.as_deref().map(model::variant).transpose()?;
    let metadata = BTreeMap::from([("source".to_owned(), source.identity()?)]);
    let count = match (&source, variant) {
        (_, Some(variant)) => convert_model(arguments, source, variant, &metadata)?,
        (WeightsSource::File { path, .. }, None) => {
            let file = open(path, arguments.container.as_deref())?;
            let data = file.data()?;
            write_safetensors(&arguments.to, &data, &metadata)?;
            data.len()
        }
        (WeightsSource::Formula(_) | WeightsSource::Overridden { .. }, None) => {
            bail!("formula weights are a model's: say which with --model")
        }
    };
    print(format!(
        "{}: {count} tensors written",
        arguments.to.display()
    ))?;
    Ok(Exit::Done)
}

/// Loads the weights strictly into the model and writes what it holds.
fn convert_model(
    arguments: &Convert,
    source: WeightsSource,
    variant: &'static Variant,
    metadata: &BTreeMap<String, String>,
) -> Result<usize> {
    let map = key_map(variant, &arguments.names)?;
    let source = match source {
        WeightsSource::File { path, .. } => WeightsSource::File {
            path,
            container: arguments.container.clone(),
        },
        formula => formula,
    };
    let options = Options {
        fuse: false,
        ..Options::default()
    };
    let session = Session::open(variant, &source, &options)?;
    let mut data = session.tensors()?;
    if let Some(map) = &map {
        let official: Vec<&str> = data.iter().map(|t| t.name.as_ref()).collect();
        let names = map.rename_all(&official, Direction::ToOther)?;
        for (tensor, name) in data.iter_mut().zip(names) {
            tensor.name = name.into();
        }
    }
    write_safetensors(&arguments.to, &data, metadata)?;
    Ok(data.len())
}

fn key_map(variant: &Variant, names: &str) -> Result<Option<KeyMap>> {
    if names == "official" {
        return Ok(None);
    }
    let known: Vec<&str> = variant.key_maps.iter().map(|m| m.name).collect();
    let map = key_maps(variant)?
        .into_iter()
        .find(|m| m.name() == names)
        .ok_or_else(|| {
            anyhow!(
                "{} has no names called `{names}`: say official{}",
                variant.name,
                known.iter().map(|n| format!(" or {n}")).collect::<String>()
            )
        })?;
    Ok(Some(map))
}
