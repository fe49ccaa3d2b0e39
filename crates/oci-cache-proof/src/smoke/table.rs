//! The table at the end of the exercise.
//!
//! Guarantees: each exercise has a row. Failures are listed below the table. A row whose failures are
//! expected says so.

use std::fmt::Write as _;

use banger_fmt::format_bytes;

use crate::kit::table;
use crate::smoke::tally::{Failure, Tally};

/// One exercise and its counts.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was exercised.
    pub(crate) exercise: &'static str,
    /// Whether failures are expected. Such a row shows what prunes in place avoid.
    pub(crate) may_fail: bool,
    /// The counts.
    pub(crate) tally: Tally,
}

impl Row {
    /// The number of forbidden failures. If failed pulls are expected, all other failures are forbidden; so
    /// is the absence of failed pulls, because then the exercise could not detect any.
    pub(crate) fn forbidden_failures(&self) -> u64 {
        let pulls = self.tally.failures_of(|failure| matches!(failure, Failure::Pull(_)));
        match self.may_fail {
            true => self.tally.failures() - pulls + u64::from(pulls == 0),
            false => self.tally.failures(),
        }
    }
}

const HEADER: [&str; 8] = [
    "exercise",
    "pulls",
    "prunes",
    "blobs freed",
    "bytes freed",
    "failed pulls",
    "broken layouts",
    "failed checks",
];

/// Renders the table and a summary for a document.
pub(crate) fn markdown(rows: &[Row]) -> String {
    format!("{}{}", table::markdown(&cells(rows)), summary(rows))
}

/// Renders the table, the failures, and a summary.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut text = table::plain(&cells(rows));
    for row in rows {
        render_failures(&mut text, row);
    }
    text.push_str(&summary(rows));
    text
}

fn cells(rows: &[Row]) -> Vec<[String; HEADER.len()]> {
    let mut cells = vec![HEADER.map(str::to_owned)];
    cells.extend(rows.iter().map(cells_of));
    cells
}

fn cells_of(row: &Row) -> [String; HEADER.len()] {
    let tally = &row.tally;
    [
        row.exercise.to_owned(),
        tally.pulls.to_string(),
        tally.prunes.to_string(),
        tally.blobs_freed.to_string(),
        format_bytes(tally.bytes_freed),
        tally.failures_of(|failure| matches!(failure, Failure::Pull(_))).to_string(),
        tally.failures_of(|failure| failure == Failure::BrokenLayout).to_string(),
        tally.failures_of(|failure| matches!(failure, Failure::Prune | Failure::Check)).to_string(),
    ]
}

fn render_failures(text: &mut String, row: &Row) {
    if row.tally.failures() == 0 {
        return;
    }
    let expected = if row.may_fail { " (expected here, shown for comparison)" } else { "" };
    let _ = writeln!(text, "\n{}: {} failure(s){expected}", row.exercise, row.tally.failures());
    let steps: Vec<String> =
        row.tally.failed_steps().map(|(step, count)| format!("{step} {count}")).collect();
    if !steps.is_empty() {
        let _ = writeln!(text, "  pulls that failed, by step: {}", steps.join(", "));
    }
    for detail in row.tally.details() {
        let _ = writeln!(text, "  {detail}");
    }
}

fn summary(rows: &[Row]) -> String {
    let counted = || rows.iter().filter(|row| !row.may_fail).map(|row| &row.tally);
    let (pulls, prunes): (u64, u64) =
        (counted().map(|tally| tally.pulls).sum(), counted().map(|tally| tally.prunes).sum());
    let failures: u64 = rows.iter().map(Row::forbidden_failures).sum();
    format!("\n{pulls} pulls, {prunes} prunes in place or dry, {failures} failure(s)\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_the_table_and_the_summary() {
        let (mut passed, mut failed) = (Tally::default(), Tally::default());
        (passed.pulls, passed.prunes) = (5, 7);
        failed.fail(Failure::Pull("create"), "no such file: `/tmp/somewhere`");
        let rows = [
            Row { exercise: "flat", may_fail: false, tally: passed },
            Row { exercise: "flat, aside", may_fail: true, tally: failed },
        ];
        let text = markdown(&rows);
        assert!(
            text.starts_with("| exercise    | pulls |") && text.contains("\n| flat        | 5     |"),
            "{text}"
        );
        assert!(text.ends_with(" |\n\n5 pulls, 7 prunes in place or dry, 0 failure(s)\n"), "{text}");
        assert!(!text.contains("somewhere"), "{text}");
    }

    #[test]
    fn columns_line_up_and_failures_follow() {
        let (mut passed, mut failed) = (Tally::default(), Tally::default());
        passed.pulls = 5;
        (failed.pulls, failed.prunes, failed.blobs_freed, failed.bytes_freed) = (12_345, 7, 3, 2048);
        failed.fail(Failure::Pull("create"), "no such file");
        let rows = [
            Row { exercise: "flat", may_fail: false, tally: passed },
            Row { exercise: "flat, aside", may_fail: true, tally: failed },
        ];
        assert_eq!(
            render(&rows),
            "\
exercise     pulls  prunes  blobs freed  bytes freed  failed pulls  broken layouts  failed checks
flat             5       0            0          0 B             0               0              0
flat, aside  12345       7            3      2.0 KiB             1               0              0

flat, aside: 1 failure(s) (expected here, shown for comparison)
  pulls that failed, by step: create 1
  pull failed (create): no such file

5 pulls, 0 prunes in place or dry, 0 failure(s)
"
        );
    }
}
