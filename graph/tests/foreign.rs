//! Graphs that are read: a broken one is refused by name, none makes a panic.

use serde_json::{Value, json};
use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};
use zoo_graph::{Graph, Input, cost, trace};

/// Operators of every kind of rule.
fn graph() -> Graph {
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let conv = nn::conv2d(&root / "conv", 3, 8, 3, Default::default());
    let norm = nn::layer_norm(&root / "norm", vec![8], Default::default());
    let fc = nn::linear(&root / "fc", 8, 4, Default::default());
    let forward = |x: &[Tensor]| {
        let map = conv
            .forward(&x[0])
            .max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
        let tokens = norm.forward(&map.flatten(2, -1).transpose(1, 2));
        let (none, scale) = (None::<Tensor>, None::<f64>);
        let seen = Tensor::scaled_dot_product_attention(
            &tokens, &tokens, &tokens, none, 0.0, false, scale, false,
        );
        let mixed = Tensor::einsum("bnc,bmc->bnm", &[&seen, &tokens], None::<i64>);
        let gathered = mixed
            .softmax(-1, None::<Kind>)
            .matmul(&tokens)
            .reshape([-1, 9, 8]);
        vec![fc.forward(&gathered.mean_dim(1, false, None::<Kind>))]
    };
    trace(&store, &[Input::images([3, 8, 8])], forward)
        .unwrap()
        .graph
}

/// Everything that reads a graph; whether it was one.
fn use_it(json: Value) -> bool {
    let Ok(graph) = serde_json::from_value::<Graph>(json) else {
        return false;
    };
    for batch in [1, 65_536, i64::MAX] {
        let costs = graph.costs(batch);
        let tree = costs.modules(&graph, 3);
        assert!(tree.iter().all(|m| m.work.macs <= costs.total.macs));
        let _ = (costs.kinds(&graph), costs.to_string());
    }
    let _ = (graph.to_string(), graph.to_dot(), graph.to_mermaid());
    true
}

fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut json = serde_json::to_value(graph()).unwrap();
    change(&mut json);
    serde_json::from_value::<Graph>(json)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_graph_that_can_not_be_run_is_refused_by_name() {
    let text = refused(|json| json["outputs"] = json!([999]));
    assert!(text.contains("no value 999"), "{text}");
    let text = refused(|json| {
        json["nodes"].as_array_mut().unwrap().remove(0);
    });
    assert!(text.contains("is not computed before"), "{text}");
    let text = refused(|json| {
        let node = json["nodes"][0].clone();
        json["nodes"].as_array_mut().unwrap().push(node);
    });
    assert!(
        text.contains("`aten::_convolution`") && text.contains("already"),
        "{text}"
    );
    assert!(use_it(serde_json::to_value(graph()).unwrap()));
}

/// Numbers that are always the same (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Changes something below `json`.
fn spoil(json: &mut Value, dice: &mut Dice, kinds: &[String]) {
    match json {
        Value::Object(fields) => {
            let at = dice.below(fields.len());
            if let Some(field) = fields.values_mut().nth(at) {
                spoil(field, dice, kinds);
            }
        }
        Value::Array(items) if items.is_empty() || dice.below(12) == 0 => {
            items.truncate(dice.below(items.len()));
        }
        Value::Array(items) => {
            let at = dice.below(items.len());
            spoil(&mut items[at], dice, kinds);
        }
        Value::Number(_) => {
            let numbers = [0, 1, -1, 3, 1 << 40, i64::MAX, i64::MIN];
            *json = json!(numbers[dice.below(numbers.len())]);
        }
        _ => *json = json!(kinds[dice.below(kinds.len())]),
    }
}

#[test]
fn whatever_is_changed_nothing_panics() {
    let whole = serde_json::to_value(graph()).unwrap();
    let mut kinds: Vec<String> = cost::supported().into_keys().collect();
    kinds.extend(["a,b->c", "...ij,jk->...ik", "ij->", "input", "aten::nobody"].map(str::to_owned));
    let mut dice = Dice(0x5eed);
    let mut used = 0;
    for _ in 0..3000 {
        let mut json = whole.clone();
        for _ in 0..=dice.below(4) {
            spoil(&mut json, &mut dice, &kinds);
        }
        used += usize::from(use_it(json));
    }
    assert!((300..3000).contains(&used), "{used} of 3000 were graphs");
}
