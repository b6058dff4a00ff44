//! A graph as a diagram: DOT, Mermaid. Parameters and constants are left out.

use crate::graph::{Graph, Origin, ValueId};
use crate::text::shape;
use std::fmt::Write;

impl Graph {
    /// The graph in Graphviz's language: a box for each input, operator and output, an arrow with its shape for each tensor.
    pub fn to_dot(&self) -> String {
        let mut out = "digraph model {\n  node [shape=box, fontname=\"sans-serif\"];\n".to_owned();
        self.draw(&mut out, &DOT);
        out.push_str("}\n");
        out
    }

    /// The same as a Mermaid flowchart.
    pub fn to_mermaid(&self) -> String {
        let mut out = "flowchart TD\n".to_owned();
        self.draw(&mut out, &MERMAID);
        out
    }

    fn draw(&self, out: &mut String, style: &Style) {
        let producers = self.producers();
        let source = |id: ValueId| match (producers.get(&id), self.values[id].origin) {
            (Some(node), _) => Some(format!("n{node}")),
            (None, Origin::Input) => Some(format!("v{id}")),
            _ => None,
        };
        for &id in &self.inputs {
            let value = &self.values[id];
            style.place(out, &format!("v{id}"), &value.name, &shape(value));
        }
        for (i, node) in self.nodes.iter().enumerate() {
            let kind = node.kind.trim_start_matches("aten::");
            let to = format!("n{i}");
            style.place(out, &to, kind, &node.module);
            for id in node.inputs() {
                if let Some(from) = source(id) {
                    style.arrow(out, &from, &to, &shape(&self.values[id]));
                }
            }
        }
        for (i, &id) in self.outputs.iter().enumerate() {
            let to = format!("o{i}");
            style.place(out, &to, "output", &self.values[id].name);
            if let Some(from) = source(id) {
                style.arrow(out, &from, &to, &shape(&self.values[id]));
            }
        }
    }
}

/// How a diagram's language writes a box, an arrow and a quote inside a text.
struct Style {
    place: fn(&mut String, [&str; 3]) -> std::fmt::Result,
    arrow: fn(&mut String, [&str; 3]) -> std::fmt::Result,
    quote: &'static str,
    backslash: &'static str,
}

impl Style {
    fn place(&self, out: &mut String, id: &str, title: &str, note: &str) {
        // Writing to a text can not fail.
        let _ = (self.place)(out, [id, &self.escaped(title), &self.escaped(note)]);
    }

    fn arrow(&self, out: &mut String, from: &str, to: &str, label: &str) {
        let _ = (self.arrow)(out, [from, to, &self.escaped(label)]);
    }

    fn escaped(&self, text: &str) -> String {
        text.replace('\\', self.backslash).replace('"', self.quote)
    }
}

const DOT: Style = Style {
    place: |out, [id, title, note]| writeln!(out, "  {id} [label=\"{title}\\n{note}\"];"),
    arrow: |out, [from, to, label]| writeln!(out, "  {from} -> {to} [label=\"{label}\"];"),
    quote: "\\\"",
    backslash: "\\\\",
};
const MERMAID: Style = Style {
    place: |out, [id, title, note]| writeln!(out, "  {id}[\"{title}<br/>{note}\"]"),
    arrow: |out, [from, to, label]| writeln!(out, "  {from} -- \"{label}\" --> {to}"),
    quote: "#quot;",
    backslash: "#92;",
};

#[cfg(test)]
mod tests {
    use crate::{Graph, Input, trace};
    use tch::nn::{self, Module};
    use tch::{Device, Kind};

    fn sample() -> Graph {
        let store = nn::VarStore::new(Device::Cpu);
        let fc = nn::linear(store.root() / "fc", 4, 2, Default::default());
        let input = Input {
            name: "the \"x\"".to_owned(),
            shape: vec![4],
            kind: Kind::Float,
        };
        let forward = |x: &[tch::Tensor]| vec![fc.forward(&x[0]).relu()];
        trace(&store, &[input], forward).unwrap().graph
    }

    #[test]
    fn every_tensor_between_operators_is_an_arrow() {
        let graph = sample();
        let input = graph.inputs[0];
        assert_eq!(
            graph.to_dot(),
            format!(
                "digraph model {{\n  node [shape=box, fontname=\"sans-serif\"];\n  v{input} [label=\"the \\\"x\\\"\\n[batch, 4]\"];\n  \
                 n0 [label=\"linear\\nfc\"];\n  v{input} -> n0 [label=\"[batch, 4]\"];\n  n1 [label=\"relu\\n\"];\n  n0 -> n1 \
                 [label=\"[batch, 2]\"];\n  o0 [label=\"output\\nrelu\"];\n  n1 -> o0 [label=\"[batch, 2]\"];\n}}\n"
            )
        );
        assert_eq!(
            graph.to_mermaid(),
            format!(
                "flowchart TD\n  v{input}[\"the #quot;x#quot;<br/>[batch, 4]\"]\n  n0[\"linear<br/>fc\"]\n  v{input} -- \"[batch, 4]\" --> n0\n  \
                 n1[\"relu<br/>\"]\n  n0 -- \"[batch, 2]\" --> n1\n  o0[\"output<br/>relu\"]\n  n1 -- \"[batch, 2]\" --> o0\n"
            )
        );
    }

    #[test]
    fn a_line_says_what_an_operator_reads_and_gives() {
        let text = sample().to_string();
        assert!(
            text.contains("fc.linear: f32[batch, 2] = aten::linear("),
            "{text}"
        );
        assert!(text.contains("weight=%fc.weight"), "{text}");
        assert!(text.ends_with("return relu\n"), "{text}");
    }

    #[test]
    fn a_graph_survives_json() {
        let graph = sample();
        let json = serde_json::to_string(&graph).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&json).unwrap(), graph);
    }
}
