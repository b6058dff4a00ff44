//! Costs in words.

use super::Costs;
use std::fmt;

impl fmt::Display for Costs {
    /// The totals; what has no rule, by name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_least = if self.complete() { "" } else { "at least " };
        let work = &self.total;
        writeln!(f, "parameters   {}", self.params)?;
        writeln!(f, "MACs         {at_least}{}", work.macs)?;
        writeln!(f, "elementwise  {at_least}{}", work.elementwise)?;
        writeln!(f, "bytes read   {at_least}{}", work.read)?;
        writeln!(f, "  written    {at_least}{}", work.written)?;
        writeln!(f, "  live       {at_least}{}", work.live)?;
        for (kind, count) in &self.unknown {
            writeln!(f, "not counted: {kind} ({count})")?;
        }
        Ok(())
    }
}
