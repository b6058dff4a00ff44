//! The table between two marks in a Markdown file: the text around it is a person's.

use super::super::files::replace_file;
use super::report::{COLUMNS, Exported, row};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;
use zoo::backbones::variants;

const BEGIN: &str = "<!-- table: begin -->";
const END: &str = "<!-- table: end -->";

/// Writes the exports into the file's table: between its marks where it has them, else as the whole file. Rows of other models
/// and sizes that stand there stay, so that a table of them all can come about in several runs.
pub fn write<'a>(path: &Path, exports: impl Iterator<Item = &'a Exported>) -> Result<()> {
    let named = || path.display().to_string();
    let before = match path.exists() {
        true => std::fs::read_to_string(path).with_context(named)?,
        false => String::new(),
    };
    let mut rows = rows(&before);
    rows.extend(exports.map(|e| (e.name(), line(&row(e)))));
    let text = within(&before, &table(&rows)).with_context(named)?;
    replace_file(path, text.as_bytes())
}

/// The rows between the marks, by model and size.
fn rows(text: &str) -> BTreeMap<String, String> {
    let between = parts(text).map_or("", |[_, between, _]| between);
    let cells = between.lines().filter_map(|line| {
        // An editor may have padded the cells.
        let model = line.strip_prefix('|')?.split('|').next()?.trim();
        Some((model.to_owned(), line.to_owned()))
    });
    cells.collect()
}

/// Before, between and after the marks.
fn parts(text: &str) -> Option<[&str; 3]> {
    let (head, rest) = text.split_once(BEGIN)?;
    let (between, tail) = rest.split_once(END)?;
    Some([head, between, tail])
}

/// Of the models of the zoo, in its order; the published size before others.
fn table(rows: &BTreeMap<String, String>) -> String {
    let rule = format!("|{}", "---|".repeat(COLUMNS.len()));
    let mut lines = vec![line(&COLUMNS.map(str::to_owned)), rule];
    for variant in variants() {
        let of = |name: &str| name.split(' ').next() == Some(variant.name);
        lines.extend(
            rows.iter()
                .filter(|(name, _)| of(name))
                .map(|(_, row)| row.clone()),
        );
    }
    lines.join("\n")
}

fn line(cells: &[String]) -> String {
    // A message of an error may be anything.
    let cells = cells.iter().map(|cell| {
        let words: Vec<&str> = cell.split_whitespace().collect();
        words.join(" ").replace('|', "\\|")
    });
    format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
}

fn within(before: &str, table: &str) -> Result<String> {
    let marked = format!("{BEGIN}\n\n{table}\n\n{END}");
    match parts(before) {
        Some([head, _, tail]) => Ok(format!("{head}{marked}{tail}")),
        None if before.trim().is_empty() => Ok(format!("{marked}\n")),
        None => bail!(
            "it is there already and has no `{BEGIN}` before a `{END}` for the table to stand between"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the zoo's order; a row that is there already is replaced, one of no model is dropped.
    #[test]
    fn rows_of_other_models_stay() {
        let row = |model: &str, last: &str| line(&[model.to_owned(), last.to_owned()]);
        let before = [
            row("shvit-s1", "old"),
            row("biformer-t", "x|y\nz"),
            "|  deit-s  |  padded  |".to_owned(),
            row("none", ""),
        ];
        let before = format!(
            "{BEGIN}\n{}\n{END}\n{}",
            before.join("\n"),
            row("deit-t", "")
        );
        let mut rows = rows(&before);
        for name in ["shvit-s1", "biformer-t 256x128"] {
            rows.insert(name.to_owned(), row(name, "new"));
        }
        let lines = table(&rows);
        let lines: Vec<&str> = lines.lines().skip(2).collect();
        let expected = [
            "| biformer-t | x\\|y z |",
            "| biformer-t 256x128 | new |",
            "| shvit-s1 | new |",
            "|  deit-s  |  padded  |",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_text_around_a_table_stays() {
        let first = within("", "A").unwrap();
        let document = format!("# Title\n\n{first}\nThe end.\n");
        let second = within(&document, "B").unwrap();
        assert_eq!(second, document.replace("\nA\n", "\nB\n"));
        assert!(within("# Somebody's text", "A").is_err());
        assert!(within(&format!("{END} {BEGIN}"), "A").is_err());
    }
}
