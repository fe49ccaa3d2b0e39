//! The rows of the table.
//!
//! Guarantees: everything that must not happen is counted in one column, `lost`. The first losses are
//! described below the table.

use std::fmt::Write as _;
use std::time::Duration;

use crate::kit::counts::{Counts, keep_first};
use crate::kit::table;
use crate::torture::puller::Pulled;

/// The number of losses per row to keep in words.
const DETAILS: usize = 25;
const HEADER: [&str; 12] = [
    "part",
    "file system",
    "strategy",
    "faults",
    "kills",
    "pulls",
    "unlinks",
    "swaps",
    "executions",
    "breaks",
    "worst open",
    "lost",
];

/// The counts of one exercise.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) part: &'static str,
    pub(crate) file_system: String,
    pub(crate) strategy: String,
    pub(crate) faults: u64,
    pub(crate) kills: u64,
    pub(crate) pulls: u64,
    pub(crate) unlinks: u64,
    pub(crate) swaps: u64,
    pub(crate) executions: u64,
    /// Pulls that failed, by kind.
    pub(crate) breaks: Counts<String>,
    /// The longest that a client waited for an open, where that is measured.
    pub(crate) worst_open: Duration,
    /// What must not happen.
    pub(crate) lost: u64,
    pub(crate) details: Vec<String>,
}

impl Row {
    /// A row without counts.
    pub(crate) fn new(part: &'static str, file_system: &str, strategy: &str) -> Self {
        Self { part, file_system: file_system.into(), strategy: strategy.into(), ..Self::default() }
    }

    /// Counts a loss.
    pub(crate) fn lose(&mut self, detail: impl Into<String>) {
        self.lose_many(1, detail);
    }

    /// Counts `count` losses.
    pub(crate) fn lose_many(&mut self, count: u64, detail: impl Into<String>) {
        self.lost += count;
        keep_first(&mut self.details, DETAILS, [detail.into()]);
    }

    /// Counts a loss, unless `holds`.
    pub(crate) fn check(&mut self, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.lose(detail());
        }
    }

    /// Adds the counts of another process or thread.
    pub(crate) fn merge(&mut self, other: Self) {
        self.faults += other.faults;
        self.kills += other.kills;
        self.pulls += other.pulls;
        self.unlinks += other.unlinks;
        self.swaps += other.swaps;
        self.executions += other.executions;
        self.breaks.merge(other.breaks);
        self.worst_open = self.worst_open.max(other.worst_open);
        self.lost += other.lost;
        keep_first(&mut self.details, DETAILS, other.details);
    }

    /// Adds the counts of a puller. Returns what broken pulls reported.
    pub(crate) fn add(&mut self, pulled: Pulled) -> Vec<String> {
        self.pulls += pulled.pulls;
        self.breaks.merge(pulled.breaks);
        self.worst_open = self.worst_open.max(pulled.worst_open);
        pulled.details
    }

    fn cells(&self) -> [String; HEADER.len()] {
        let breaks: Vec<String> = self.breaks.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let breaks = if breaks.is_empty() { "0".to_owned() } else { breaks.join(", ") };
        let number = |count: u64| if count == 0 { "·".to_owned() } else { count.to_string() };
        [
            self.part.to_owned(),
            self.file_system.clone(),
            self.strategy.clone(),
            number(self.faults),
            number(self.kills),
            number(self.pulls),
            number(self.unlinks),
            number(self.swaps),
            number(self.executions),
            if self.pulls == 0 { "·".to_owned() } else { breaks },
            match self.worst_open.as_millis() {
                0 => "·".to_owned(),
                milliseconds => format!("{milliseconds} ms"),
            },
            self.lost.to_string(),
        ]
    }
}

/// Renders the Markdown table, and the losses below it.
pub(crate) fn told(rows: &[Row]) -> String {
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let mut text = table::markdown(&lines);
    for row in rows.iter().filter(|row| row.lost > 0) {
        let _ = writeln!(text, "\n{}, {}, {}: {} lost", row.part, row.file_system, row.strategy, row.lost);
        for detail in &row.details {
            let _ = writeln!(text, "- {detail}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_told_below_the_table() {
        let mut row = Row::new("storm", "xfs", "in place");
        (row.pulls, row.unlinks, row.worst_open) = (12, 3, Duration::from_micros(5600));
        row.breaks.add("mkdir".to_owned(), 2);
        let mut more = Row::default();
        more.lose("a canary");
        more.check(true, || unreachable!());
        row.merge(more);
        let text = told(&[row]);
        assert!(
            text.contains("| storm | xfs         | in place | ·      | ·     | 12    | 3       | ·"),
            "{text}"
        );
        assert!(text.contains("mkdir 2 | 5 ms       | 1    |\n"), "{text}");
        assert!(text.ends_with("\nstorm, xfs, in place: 1 lost\n- a canary\n"), "{text}");
    }
}
