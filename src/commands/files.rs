//! Files that somebody may read, or that a kill may meet, while they are written.

use anyhow::{Context, Result};
use std::path::Path;

/// Puts a file in the place of another one at once: whoever reads it sees the old or the new one, whole.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let named = || path.display().to_string();
    let part = path.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&part, bytes).with_context(named)?;
    std::fs::rename(&part, path).with_context(named)
}
