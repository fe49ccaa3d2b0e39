//! Plans and reports as text: the one place where the wording stands.
//!
//! Guarantees: pure; names from the disk are escaped.

use std::path::Path;

use banger_fmt::format_bytes;
use oci_cache::{Fate, Outcome, PrunePlan, PruneReport, Tally, escape_path};

use crate::cli::Format;

/// The result, as one line with its end.
pub(crate) fn result(report: &PruneReport, format: Format) -> anyhow::Result<String> {
    let mut line = match format {
        Format::Human => {
            let verb = if report.dry_run { "would free" } else { "freed" };
            let size = format_bytes(report.bytes_freed);
            let (blobs, directory) = (report.blobs_freed, escape_path(&report.cache_dir));
            format!("{verb} {size} across {blobs} blob(s) in {directory}")
        }
        Format::Json => serde_json::to_string(report)?,
    };
    line.push('\n');
    Ok(line)
}

/// What a person should know beside the result.
pub(crate) fn notes(report: &PruneReport) -> Vec<String> {
    let mut notes = Vec::new();
    for (reason, tally) in report.kept.by_reason().into_iter().filter(|(_, tally)| tally.blobs > 0) {
        notes.push(format!("note: kept {}: {}", amount(tally), reason.description()));
    }
    if let Some(path) = &report.pull_in_flight {
        notes.push(format!(
            "note: a pull is under way in this layout, its blobs stay (see `{}`)",
            escape_path(path)
        ));
    }
    if report.foreign > 0 {
        notes.push(format!(
            "note: left alone {}, not the cache's",
            count(report.foreign, "foreign entry", "foreign entries")
        ));
    }
    if report.leftovers_freed > 0 {
        let verb = if report.dry_run { "would remove" } else { "removed" };
        notes.push(format!(
            "note: {verb} {} of killed prunes",
            count(report.leftovers_freed, "leftover", "leftovers")
        ));
    }
    for path in &report.foreign_in_leftovers {
        notes.push(format!("note: a leftover stays, since `{}` in it is not the cache's", escape_path(path)));
    }
    if report.unprobed > 0 {
        let blobs = report.unprobed;
        notes.push(format!(
            "note: leases do not work here: {blobs} blob(s) went without a look at who has them open"
        ));
    }
    if report.disk_bytes_freed < report.bytes_freed {
        let disk = format_bytes(report.disk_bytes_freed);
        let verb = if report.dry_run { "would be" } else { "was" };
        notes.push(format!(
            "note: on disk {disk} {verb} freed: some files are sparse, compressed or have other links"
        ));
    }
    notes
}

/// What could not be done.
pub(crate) fn failures(report: &PruneReport) -> Vec<String> {
    let failures = report.failures.iter();
    failures
        .map(|failure| {
            format!("error: {} `{}`: {}", failure.operation, escape_path(&failure.path), failure.error)
        })
        .collect()
}

/// Each entry with its fate and the reason.
pub(crate) fn entries<'a>(plan: &'a PrunePlan, report: &'a PruneReport) -> impl Iterator<Item = String> + 'a {
    let mut exceptions = report.exceptions.iter().peekable();
    let blobs = plan.blobs().enumerate().map(move |(index, (blob, fate))| {
        let exception = exceptions.next_if(|(exception, _)| *exception == index).map(|(_, outcome)| *outcome);
        let path = plan.inventory().path_of(blob);
        entry(&path, blob.size_bytes, fate, exception, report.dry_run)
    });
    let partials = plan.partials().enumerate().map(|(index, (partial, fate))| {
        let outcome = report.partials.get(index).copied().filter(|outcome| *outcome != Outcome::Removed);
        entry(partial.path(), partial.size_bytes(), fate, outcome, report.dry_run)
    });
    let verb = if report.dry_run { "would remove" } else { "remove" };
    let leftovers = plan.leftovers().map(move |leftover| {
        format!(
            "{verb} `{}` ({}): left by a killed prune",
            escape_path(leftover.path()),
            amount(leftover.total())
        )
    });
    let foreign = plan.inventory().foreign().iter();
    let foreign =
        foreign.map(|entry| format!("leave `{}`: foreign, a {}", escape_path(&entry.path), entry.kind));
    blobs.chain(partials).chain(leftovers).chain(foreign)
}

fn entry(path: &Path, size_bytes: u64, fate: Fate, exception: Option<Outcome>, dry_run: bool) -> String {
    let removed = if dry_run { "would remove" } else { "removed" };
    let (verb, reason) = match (exception, fate) {
        (Some(Outcome::Kept(reason)), _) | (None, Fate::Keep(reason)) => ("keep", reason.description()),
        (Some(Outcome::Gone), _) => ("missed", "gone already"),
        (Some(Outcome::Failed), _) => ("failed", "see the error"),
        (Some(Outcome::NotReached), _) => ("missed", "stopped before its turn"),
        (None | Some(Outcome::Removed), Fate::Remove(reason)) => (removed, reason.description()),
        (Some(Outcome::Removed), Fate::Keep(_)) => (removed, "removed"),
    };
    format!("{verb} `{}` ({}): {reason}", escape_path(path), format_bytes(size_bytes))
}

/// A tally in words.
pub(crate) fn amount(tally: Tally) -> String {
    format!("{} blob(s), {}", tally.blobs, format_bytes(tally.bytes))
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
