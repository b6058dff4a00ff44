//! Any bytes as a graph: read or refused, and what is read can be counted and drawn.
#![no_main]

use zoo_graph::Graph;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(graph) = serde_json::from_slice::<Graph>(bytes) else {
        return;
    };
    for batch in [1, 65_536, i64::MAX] {
        let costs = graph.costs(batch);
        let _ = (costs.modules(&graph, 3), costs.kinds(&graph), costs.to_string());
    }
    let _ = (graph.to_string(), graph.to_dot(), graph.to_mermaid());
});
