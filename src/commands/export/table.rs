//! The table between two marks in a Markdown file: the text around it is a person's.

use super::report::{Exported, markdown};
use anyhow::{Context, Result, bail};
use std::path::Path;

const BEGIN: &str = "<!-- table: begin -->";
const END: &str = "<!-- table: end -->";

/// Writes the table into the file: between its marks where it has them, else as the whole file.
pub fn write<'a>(path: &Path, exports: impl Iterator<Item = &'a Exported>) -> Result<()> {
    let named = || path.display().to_string();
    let before = match path.exists() {
        true => std::fs::read_to_string(path).with_context(named)?,
        false => String::new(),
    };
    let text = within(&before, &markdown(exports)).with_context(named)?;
    std::fs::write(path, text).with_context(named)
}

fn within(before: &str, table: &str) -> Result<String> {
    let marked = format!("{BEGIN}\n\n{table}\n\n{END}");
    match (before.split_once(BEGIN), before.split_once(END)) {
        (Some((head, rest)), Some((_, tail))) if rest.contains(END) => {
            Ok(format!("{head}{marked}{tail}"))
        }
        (None, None) if before.trim().is_empty() => Ok(format!("{marked}\n")),
        _ => bail!(
            "it is there already and has no `{BEGIN}` before a `{END}` for the table to stand between"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
