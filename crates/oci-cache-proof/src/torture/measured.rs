//! Writes the figures to `docs/reliability.md`, and the rates of breaks that the protocol does not rule out
//! to `docs/prune-protocol.md`.
//!
//! Guarantees: only the measured section of each page changes.

use std::path::PathBuf;
use std::time::Duration;

use crate::kit::machine;
use crate::kit::section;
use crate::kit::workspace::workspace;
use crate::torture::row::{Row, told};

/// Writes both sections.
///
/// # Errors
///
/// If a page has no section, or cannot be written.
pub(crate) fn write(rows: &[Row], quick: bool, time: Duration) -> anyhow::Result<()> {
    let command = if quick { "cargo xtask torture --quick --publish" } else { "cargo xtask torture" };
    let source = machine::source(command, time)?;
    section::write(&page("reliability.md"), &format!("\n{source}\n\n{}\n", told(rows)))?;
    section::write(&page("prune-protocol.md"), &format!("\n{source}\n\n{}\n", rates(rows)))
}

fn page(name: &str) -> PathBuf {
    workspace().join("docs").join(name)
}

/// The share of pulls that broke where the protocol does not rule it out.
fn rates(rows: &[Row]) -> String {
    let mut text =
        "| file system | prunes | pulls | broke | of 100,000 |\n|---|---|---|---|---|\n".to_owned();
    for row in rows.iter().filter(|row| row.pulls > 0 && !row.strategy.ends_with("(must break)")) {
        let broke: u64 = row.breaks.sum();
        let (file_system, strategy, pulls) = (&row.file_system, &row.strategy, row.pulls);
        // Tenths, rounded.
        let tenths = (broke * 1_000_000 + pulls / 2) / pulls;
        let rate = format!("{}.{}", tenths / 10, tenths % 10);
        text.push_str(&format!("| {file_system} | {strategy} | {pulls} | {broke} | {rate} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_promising_strategies() {
        let row = |strategy, pulls, broke| {
            let mut row = Row::new("storm", "ext4", strategy);
            row.pulls = pulls;
            row.breaks.add("reopen of a hit".to_owned(), broke);
            row
        };
        let text =
            rates(&[row("in place", 150_438, 7), row("aside (must break)", 9, 9), row("stalled", 8, 4)]);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let expected = ["| ext4 | in place | 150438 | 7 | 4.7 |", "| ext4 | stalled | 8 | 4 | 50000.0 |"];
        assert_eq!(lines, expected);
    }
}
