//! A result as a Markdown table.
//!
//! Guarantees: pure; names from the disk are escaped, and no name can break out of its cell.

use banger_fmt::format_bytes;
use oci_cache::{Goal, GoalKind, PruneReport, Tally, escape_path};

use crate::report::Report;
use crate::report::usage::UsageReport;
use crate::report::verify::VerifyReport;
use crate::text::reason::of_keeping;

/// The table, under a heading.
pub(crate) fn table(report: &Report) -> String {
    let table = match report {
        Report::Prune(report) => of_prune(report),
        Report::Verify(report) => of_verify(report),
        Report::Usage(report) => of_usage(report),
    };
    format!("{}\n", table.text)
}

/// A table of blobs and sizes.
struct Table {
    text: String,
}

impl Table {
    /// A table without rows. The directory is escaped already.
    fn new(directory: &str) -> Self {
        // A bar would end the cell, and a backtick the code span.
        let directory = directory.replace('|', "\\|").replace('`', "'");
        Self { text: format!("### OCI blob cache\n\n| `{directory}` | blobs | size |\n|---|--:|--:|\n") }
    }

    fn row(&mut self, what: &str, blobs: &str, size: &str) {
        let cell = |text: &str| if text.is_empty() { " |".to_owned() } else { format!(" {text} |") };
        self.text.push_str(&format!("|{}{}{}\n", cell(what), cell(blobs), cell(size)));
    }

    fn tally(&mut self, what: &str, tally: Tally) {
        self.row(what, &tally.blobs.to_string(), &format_bytes(tally.bytes));
    }

    fn size(&mut self, what: &str, bytes: u64) {
        self.row(what, "", &format_bytes(bytes));
    }

    /// Adds a row with a number, if there are any.
    fn count(&mut self, what: &str, number: u64) {
        if number > 0 {
            self.row(what, &number.to_string(), "");
        }
    }
}

fn of_prune(report: &PruneReport) -> Table {
    let mut table = Table::new(&escape_path(&report.cache_dir));
    let verb = if report.dry_run { "would be freed" } else { "freed" };
    table.tally(verb, Tally { blobs: report.blobs_freed, bytes: report.bytes_freed });
    for (reason, tally) in report.kept.by_reason().into_iter().filter(|(_, tally)| tally.blobs > 0) {
        table.tally(&format!("kept: {}", of_keeping(reason)), tally);
    }
    for goal in &report.goals {
        table.size(&of_goal(goal), goal.reached);
    }
    table.count("failed", report.failures.total());
    if report.interrupted {
        table.row("stopped before its end", "", "");
    }
    table
}

/// What a goal is, and whether it is met.
fn of_goal(goal: &Goal) -> String {
    let met = if goal.met { "met" } else { "not met" };
    let wanted = format_bytes(goal.wanted);
    match goal.goal {
        GoalKind::MaxUsedSpace => format!("goal {met}: at most {wanted} used"),
        GoalKind::MinFreeSpace => format!("goal {met}: at least {wanted} free"),
    }
}

fn of_verify(report: &VerifyReport) -> Table {
    let mut table = Table::new(&report.cache_dir);
    let verb = if report.quick { "quickly checked" } else { "verified" };
    table.tally(verb, Tally { blobs: report.blobs_verified, bytes: report.bytes_verified });
    let mut corrupt = Tally::default();
    for blob in &report.corrupt {
        corrupt.add(blob.bytes);
    }
    table.tally("corrupt", corrupt);
    if report.pruned.is_some() {
        table.count("corrupt, still there", report.corrupt_left as u64);
    }
    table.count("holes", report.holes.len() as u64);
    if report.pruned.is_some() {
        table.count("holes, still there", report.holes_left as u64);
    }
    let unchecked = [
        ("not checked: being written", report.in_use),
        ("not checked: changed while being read", report.changed),
        ("not checked: not read", report.unread),
    ];
    for (what, tally) in unchecked.into_iter().filter(|(_, tally)| tally.blobs > 0) {
        table.tally(what, tally);
    }
    let removals = report.pruned.as_ref().map_or(0, |pruned| pruned.failures.total());
    table.count("failed", report.failures.total() + removals);
    if report.interrupted {
        table.row("stopped before its end", "", "");
    }
    table
}

fn of_usage(report: &UsageReport) -> Table {
    let usage = &report.usage;
    let mut table = Table::new(&report.cache_dir);
    table.tally("blobs", usage.blobs);
    for (what, tally) in [("partials", usage.partials), ("leftovers", usage.leftovers)] {
        if tally.blobs > 0 {
            table.tally(what, tally);
        }
    }
    if let Some(unreferenced) = usage.unreferenced {
        table.tally("unreferenced", unreferenced);
    }
    let budget = report.budget_bytes.map(|budget| {
        let verb = if report.is_over_budget() { "over budget" } else { "within budget" };
        format!("used, {verb}: {} allowed", format_bytes(budget))
    });
    table.size(budget.as_deref().unwrap_or("used"), usage.used_bytes);
    table.size("on disk", usage.disk_bytes);
    table.count("foreign entries", usage.foreign);
    table.count("images with holes", report.images_with_holes());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_breaks_out_of_its_cell() {
        assert!(Table::new("/a|b`c").text.contains("| `/a\\|b'c` | blobs | size |\n"));
    }

    #[test]
    fn goals_in_words() {
        let goal = |goal, met| Goal { goal, wanted: 1024, reached: 2048, met };
        assert_eq!(of_goal(&goal(GoalKind::MaxUsedSpace, false)), "goal not met: at most 1.0 KiB used");
        assert_eq!(of_goal(&goal(GoalKind::MinFreeSpace, true)), "goal met: at least 1.0 KiB free");
    }
}
