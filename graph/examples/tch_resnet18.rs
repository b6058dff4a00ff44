//! A model of tch's vision crate: what it costs, and its ONNX file.
//!
//! `cargo run -p zoo-graph --example tch_resnet18 [FILE.onnx]`

use std::error::Error;
use std::path::Path;
use tch::nn::{self, ModuleT};
use tch::{Device, Kind, Tensor, vision};
use zoo_graph::cost::Costs;
use zoo_graph::onnx::{self, OnnxFile, OnnxOptions};
use zoo_graph::{Input, trace};

/// Counts the model, writes it to `file`, and runs it on images: what the file has to give, too.
pub fn run(file: &Path, images: &Tensor) -> Result<(Costs, OnnxFile, Tensor), Box<dyn Error>> {
    let store = nn::VarStore::new(Device::Cpu);
    let model = vision::resnet::resnet18(&store.root(), 1000);
    let forward = |x: &Tensor| model.forward_t(x, false);

    let trace = trace(&store, &[Input::images([3, 224, 224])], |x| {
        vec![forward(&x[0])]
    })?;
    let costs = trace.graph.costs(1);
    println!("{costs}");
    for module in costs.modules(&trace.graph, 1) {
        println!("{:8} {:>12} MACs", module.path, module.work.macs);
    }
    let written = onnx::export(&trace, &OnnxOptions::default(), file)?;
    Ok((costs, written, tch::no_grad(|| forward(images))))
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).unwrap_or("resnet18.onnx".into());
    let images = Tensor::randn([1, 3, 224, 224], (Kind::Float, Device::Cpu));
    let (_, written, logits) = run(Path::new(&file), &images)?;
    println!(
        "{file}: {} operators; {:?} logits",
        written.nodes,
        logits.size()
    );
    Ok(())
}
