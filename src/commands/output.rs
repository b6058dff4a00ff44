//! What all commands print alike.

use anyhow::Result;
use comfy_table::Table;
use serde::Serialize;
use std::io::{self, Write};
use zoo::eval::report::Style;

/// A table with this header, in the style that suits stdout.
pub fn table(header: &[&str]) -> Table {
    Style::for_stdout().table(header)
}

/// Prints to stdout; an error (a closed pipe) is the caller's, not a panic.
pub fn print(text: impl std::fmt::Display) -> Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// Prints pretty JSON to stdout.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(serde_json::to_string_pretty(value)?)
}

/// An error with its causes, those that it already quotes left out.
pub fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether an error is that nobody reads stdout any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// `6.3 M`, `1.2 G`: three significant figures.
pub fn human(n: u64) -> String {
    let (value, unit) = match n {
        0..1_000 => return n.to_string(),
        1_000..1_000_000 => (n as f64 / 1e3, "k"),
        1_000_000..1_000_000_000 => (n as f64 / 1e6, "M"),
        _ => (n as f64 / 1e9, "G"),
    };
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::{explain, human};

    #[test]
    fn a_quoted_cause_is_not_said_twice() {
        let cause = anyhow::anyhow!("not a number").context("field x: not a number");
        assert_eq!(
            explain(&cause.context("reading a")),
            "reading a: field x: not a number"
        );
    }

    #[test]
    fn numbers_keep_three_figures() {
        let shown = [999, 6_330_808, 16_588_484, 241_300_000, 5_000_000_000].map(human);
        assert_eq!(shown, ["999", "6.33 M", "16.6 M", "241 M", "5.00 G"]);
    }
}
