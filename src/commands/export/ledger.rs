//! What was exported so far: told, and in the table, as soon as it is known. A command that is killed leaves what it had.

use super::super::output::print;
use super::Arguments;
use super::report::Exported;
use super::table;
use anyhow::Result;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Exports by their place on the command line.
pub struct Ledger<'a> {
    arguments: &'a Arguments,
    models: usize,
    exports: Mutex<BTreeMap<usize, Exported>>,
}

impl<'a> Ledger<'a> {
    /// For so many models.
    ///
    /// # Errors
    /// A file that can not take the table: before hours were spent on what should go into it.
    pub fn new(arguments: &'a Arguments, models: usize) -> Result<Ledger<'a>> {
        let ledger = Ledger {
            arguments,
            models,
            exports: Mutex::default(),
        };
        ledger.write(&BTreeMap::new())?;
        Ok(ledger)
    }

    /// Tells of an export, and writes the table with it.
    pub fn enter(&self, place: usize, exported: Exported) {
        let mut exports = self.exports.lock().unwrap_or_else(PoisonError::into_inner);
        let told = match self.arguments.json {
            true => format!(
                "zoo: {} of {}: {}",
                exports.len() + 1,
                self.models,
                exported.model
            ),
            false => exported.line(),
        };
        match self.arguments.json {
            true => eprintln!("{told}"),
            // A closed pipe ends the command when the report is printed.
            false => drop(print(told)),
        }
        exports.insert(place, exported);
        if let Err(e) = self.write(&exports) {
            // It is tried again with the next one, and fails the command at the end.
            eprintln!("zoo: {e:#}");
        }
    }

    /// All that was exported, in the order of the models.
    pub fn close(self) -> Result<Vec<Exported>> {
        let exports = self.exports.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&exports)?;
        Ok(exports.values().cloned().collect())
    }

    fn write(&self, exports: &BTreeMap<usize, Exported>) -> Result<()> {
        match &self.arguments.table {
            Some(path) => table::write(path, exports.values()),
            None => Ok(()),
        }
    }
}
