//! The README's table of operators is what the code says: `UPDATE=1 cargo test -p zoo-graph --test readme` writes it.

use std::collections::BTreeSet;
use std::path::Path;
use zoo_graph::{cost, onnx};

const BEGIN: &str = "<!-- operators -->\n";
const END: &str = "<!-- end of operators -->\n";

fn table() -> String {
    let (costs, files) = (cost::supported(), onnx::supported());
    let known = costs
        .keys()
        .map(String::as_str)
        .chain(files.keys().copied());
    let kinds: BTreeSet<&str> = known.collect();
    let rows = kinds.into_iter().map(|kind| {
        let name = kind.trim_start_matches("aten::");
        let cost = costs.get(kind).map_or("no rule", String::as_str);
        let file = files.get(kind).copied().unwrap_or("no form");
        format!("| `{name}` | {cost} | {file} |\n")
    });
    let header = "| operator | elementwise operations | ONNX |\n|---|---|---|\n";
    header.to_owned() + &rows.collect::<String>()
}

#[test]
fn the_support_table_is_generated() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table begins");
    let (found, after) = rest.split_once(END).expect("the table ends");
    let table = table();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, [before, BEGIN, &table, END, after].concat()).unwrap();
        return;
    }
    assert!(
        found == table,
        "graph/README.md has another table: UPDATE=1 cargo test -p zoo-graph --test readme"
    );
}
