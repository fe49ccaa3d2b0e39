//! The cache's content as text: tables with bars.
//!
//! Guarantees: pure; names from the disk are escaped; no line depends on the terminal.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use banger_fmt::format_bytes;
use oci_cache::{Tally, escape_path};

use crate::report::usage::UsageReport;
use crate::text::count;
use crate::units::GivenAmount;

/// The width of the longest bar.
const BAR: u64 = 30;

/// The whole report.
pub(crate) fn result(report: &UsageReport) -> String {
    let usage = &report.usage;
    let room = match (usage.available_bytes, usage.file_system_bytes) {
        (Some(available), Some(all)) => {
            format!("; {} of {} free", format_bytes(available), format_bytes(all))
        }
        _ => String::new(),
    };
    let (used, disk) = (format_bytes(usage.used_bytes), format_bytes(usage.disk_bytes));
    let mut text = format!("{used} in {}, {disk} on disk{room}\n", report.cache_dir);
    let kinds = [("blobs", usage.blobs), ("partials", usage.partials), ("leftovers", usage.leftovers)];
    let mut kinds: Vec<(String, Tally)> = kinds.map(|(kind, tally)| (kind.to_owned(), tally)).into();
    kinds.extend(usage.unreferenced.map(|tally| ("unreferenced".to_owned(), tally)));
    table(&mut text, "kind", &kinds);
    let ages = usage.by_age.iter();
    let ages = ages.map(|class| (age_class(class.last_used).to_owned(), class.tally));
    table(&mut text, "last used", &ages.collect::<Vec<_>>());
    let policies = report.would_free.iter();
    let policies = policies.map(|policy| {
        let flags = if policy.flags.is_empty() { "(everything)" } else { &policy.flags };
        (flags.to_owned(), policy.tally)
    });
    table(&mut text, "a prune would free", &policies.collect::<Vec<_>>());
    let images = usage.images.iter().map(|image| {
        let digest = image.digest.to_string();
        let name = image.name.as_ref().map_or(digest, |name| escape_path(Path::new(name)));
        let holes = count(image.holes as u64, "hole", "holes");
        let marked = match (image.is_complete, image.holes) {
            (true, 0) => name,
            (true, _) => format!("{name} ({holes})"),
            (false, 0) => format!("{name} (incomplete)"),
            (false, _) => format!("{name} (incomplete, {holes})"),
        };
        (marked, image.tally)
    });
    table(&mut text, "image", &images.collect::<Vec<_>>());
    if !usage.largest.is_empty() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{:>10}  {:>10}  largest blobs", "size", "idle for");
    }
    for blob in &usage.largest {
        let _ = writeln!(
            text,
            "{:>10}  {:>10}  {}",
            format_bytes(blob.bytes),
            idle(blob.idle_seconds),
            blob.digest
        );
    }
    if usage.foreign > 0 {
        let _ = writeln!(text, "\nforeign entries, left alone: {}", usage.foreign);
    }
    text
}

/// The message for a cache over budget.
pub(crate) fn over(used_bytes: u64, limit: u64, given: &GivenAmount) -> String {
    let over = format_bytes(used_bytes.saturating_sub(limit));
    format!("over budget by {over}: {} used, {} allowed", format_bytes(used_bytes), given.in_words(limit))
}

/// A table with a bar for the size of each row; nothing if there are no rows.
fn table(text: &mut String, title: &str, rows: &[(String, Tally)]) {
    if rows.is_empty() {
        return;
    }
    let width =
        rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(title.chars().count());
    let most = rows.iter().map(|(_, tally)| tally.bytes).max().unwrap_or(0);
    let _ = writeln!(text, "\n{title:width$}  {:>9}  {:>10}", "blobs", "size");
    for (name, tally) in rows {
        let line = format!(
            "{name:width$}  {:>9}  {:>10}  {}",
            tally.blobs,
            format_bytes(tally.bytes),
            bar(tally.bytes, most)
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn bar(bytes: u64, most: u64) -> String {
    let length = (u128::from(bytes) * u128::from(BAR)).div_ceil(u128::from(most.max(1)));
    "#".repeat(usize::try_from(length).unwrap_or(0))
}

fn age_class(name: &str) -> &str {
    match name {
        "hour" => "within the hour",
        "day" => "within a day",
        "week" => "within a week",
        "month" => "within 30 days",
        older => older,
    }
}

/// An age in its largest unit.
fn idle(seconds: u64) -> String {
    let units = [(24 * 3600, "d"), (3600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(length, _)| seconds >= *length);
    unit.map_or_else(
        || format!("{}s", Duration::from_secs(seconds).as_secs()),
        |(length, name)| format!("{}{name}", seconds / length),
    )
}
