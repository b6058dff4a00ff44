//! A small net of one's own: what it costs, and its ONNX file.
//!
//! `cargo run -p zoo-graph --example small_net [FILE.onnx]`

use std::error::Error;
use std::path::Path;
use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};
use zoo_graph::cost::Costs;
use zoo_graph::onnx::{self, OnnxFile, OnnxOptions};
use zoo_graph::{Input, trace};

/// Counts the net, writes it to `file`, and runs it on images: what the file has to give, too.
pub fn run(file: &Path, images: &Tensor) -> Result<(Costs, OnnxFile, Tensor), Box<dyn Error>> {
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let stem = nn::conv2d(&root / "stem", 3, 16, 3, Default::default());
    let head = nn::linear(&root / "head", 16, 10, Default::default());
    let forward = |x: &Tensor| {
        head.forward(
            &stem
                .forward(x)
                .relu()
                .adaptive_avg_pool2d([1, 1])
                .flatten(1, -1),
        )
    };

    let trace = trace(&store, &[Input::images([3, 32, 32])], |x| {
        vec![forward(&x[0])]
    })?;
    let costs = trace.graph.costs(1);
    let written = onnx::export(&trace, &OnnxOptions::default(), file)?;
    println!("{}\n{costs}", trace.graph);
    for module in costs.modules(&trace.graph, 1) {
        println!("{:8} {:>10} MACs", module.path, module.work.macs);
    }
    Ok((costs, written, tch::no_grad(|| forward(images))))
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).unwrap_or("small_net.onnx".into());
    let images = Tensor::randn([1, 3, 32, 32], (Kind::Float, Device::Cpu));
    let (_, written, logits) = run(Path::new(&file), &images)?;
    println!("{file}: {} operators; logits {logits}", written.nodes);
    Ok(())
}
