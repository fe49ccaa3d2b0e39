//! A prune as text: its result, its notes, and each entry's fate.
//!
//! Guarantees: pure; names from the disk are escaped.

use std::path::{Path, PathBuf};

use banger_fmt::format_bytes;
use oci_cache::{
    AccessTimes, Fate, Outcome, Policy, PrunePlan, PruneReport, Sign, Space, Unmatched, escape_path,
};

use crate::cli::Format;
use crate::text::reason::{of_keeping, of_removal};
use crate::text::remarks::remarks;
use crate::text::{amount, count};

/// The result as one line, including its newline.
pub(crate) fn result(report: &PruneReport, format: Format) -> anyhow::Result<String> {
    let mut line = match format {
        Format::Human => {
            let size = format_bytes(report.bytes_freed);
            let (blobs, directory) = (report.blobs_freed, escape_path(&report.cache_dir));
            format!("{} {size} across {blobs} blob(s) in {directory}", freed(report))
        }
        Format::Json => serde_json::to_string(report)?,
    };
    line.push('\n');
    Ok(line)
}

/// What people should know besides the result.
pub(crate) fn notes(plan: &PrunePlan, report: &PruneReport) -> Vec<String> {
    let mut notes = notes_on_entries(plan, report);
    notes.extend(notes_on_leftovers(report));
    notes.extend(notes_on_limits(report));
    notes
}

/// What was kept, removed from the layout's index, or left alone.
fn notes_on_entries(plan: &PrunePlan, report: &PruneReport) -> Vec<String> {
    let mut notes = Vec::new();
    if plan.from_the_future() > 0 {
        let future = plan.from_the_future() as u64;
        let blobs = count(future, "blob has a timestamp", "blobs have timestamps");
        notes.push(format!("note: {blobs} in the future, treated as just used"));
    }
    for (reason, tally) in report.kept.by_reason().into_iter().filter(|(_, tally)| tally.blobs > 0) {
        notes.push(format!("note: kept {}: {}", amount(tally), of_keeping(reason)));
    }
    notes.extend(unmatched(&report.unmatched));
    notes.extend(pull(plan, report));
    if let Some((path, Some(entries))) = &report.notes.index_changed {
        let images = count(*entries as u64, "image", "images");
        notes.push(format!("note: {} {images} from `{}`", removed(report), escape_path(path)));
    }
    notes.extend(remarks(&plan.inventory().references().remarks));
    if report.foreign > 0 {
        let entries = count(report.foreign, "foreign entry", "foreign entries");
        notes.push(format!("note: left {entries} alone{}", in_the_place_of_blobs(plan)));
    }
    notes
}

/// How many foreign entries stand where blobs would.
fn in_the_place_of_blobs(plan: &PrunePlan) -> String {
    let foreign = plan.inventory().foreign().iter();
    match foreign.filter(|entry| entry.stands_for_blobs && entry.kind == "symbolic link").count() {
        0 => String::new(),
        links => {
            let links = count(links as u64, "symbolic link", "symbolic links");
            format!("; {links} in the place of blobs not followed")
        }
    }
}

/// What became of leftovers, of an index that could not be rewritten, and of a cache moved aside.
fn notes_on_leftovers(report: &PruneReport) -> Vec<String> {
    let mut notes = Vec::new();
    if report.leftovers_freed > 0 {
        let leftovers = count(report.leftovers_freed, "leftover", "leftovers");
        notes.push(format!("note: {} {leftovers} of killed prunes", removed(report)));
    }
    for path in &report.notes.foreign_in_leftovers {
        let path = escape_path(path);
        notes.push(format!("note: a leftover stays because of the foreign entry `{path}` in it"));
    }
    if let Some(path) = &report.notes.index_removed {
        let path = escape_path(path);
        notes.push(format!(
            "note: removed `{path}` because a new one could not be written; the next pull recreates it"
        ));
    }
    if let Some(path) = &report.notes.left_aside {
        let path = escape_path(path);
        notes.push(format!("note: not everything was removed; the next prune removes the rest, in `{path}`"));
    }
    notes
}

/// What could not be checked, and how the disk space freed differs from the logical size.
fn notes_on_limits(report: &PruneReport) -> Vec<String> {
    let mut notes = Vec::new();
    if report.notes.unprobed > 0 {
        let blobs = count(report.notes.unprobed, "blob was", "blobs were");
        notes.push(format!("note: {blobs} removed without an in-use check (leases unavailable)"));
    }
    if report.disk_bytes_freed < report.bytes_freed {
        let disk = format_bytes(report.disk_bytes_freed);
        notes.push(format!(
            "note: {} only {disk} on disk: some files are sparse, compressed, open or have other links",
            freed(report)
        ));
    }
    notes
}

/// Pins that match nothing: perhaps a mistake, by which more goes than was meant.
fn unmatched(pins: &Unmatched) -> Option<String> {
    const SHOWN: usize = 3;
    let shown: Vec<String> =
        pins.first.iter().take(SHOWN).map(|pin| format!("`{}`", escape_path(Path::new(pin)))).collect();
    let more = match pins.count.saturating_sub(SHOWN as u64) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let pins = count(pins.count, "pin matches", "pins match");
    (!shown.is_empty()).then(|| format!("warning: {pins} nothing here: {}{more}", shown.join(", ")))
}

const fn freed(report: &PruneReport) -> &'static str {
    if report.dry_run { "would free" } else { "freed" }
}

const fn removed(report: &PruneReport) -> &'static str {
    if report.dry_run { "would remove" } else { "removed" }
}

/// Whether the kernel confined the prune, for `-v`.
pub(crate) fn confinement(report: &PruneReport) -> Option<String> {
    let note = match report.notes.confined {
        _ if report.dry_run => return None,
        true => "note: confined by Landlock to removals beneath the cache",
        false => "note: not confined by Landlock, which is unavailable here",
    };
    Some(note.to_owned())
}

/// What shows that a pull is under way, and how to free more.
fn pull(plan: &PrunePlan, report: &PruneReport) -> Option<String> {
    let sign = match report.notes.pull.as_ref()? {
        Sign::Open { path, process: Some(process) } => {
            let name = escape_path(Path::new(&process.name));
            format!("{name} (pid {}) has `{}` open", process.pid, escape_path(path))
        }
        Sign::Open { path, process: None } => format!("a process has `{}` open", escape_path(path)),
        Sign::Used(path) => format!("`{}` was just used", escape_path(path)),
        Sign::Changed(path) => format!("`{}` just changed", escape_path(path)),
        Sign::Locked(path) => format!("`{}` is locked", escape_path(path)),
        Sign::NotInIndex(path) => format!("`{}` is new, and not in the index yet", escape_path(path)),
        Sign::Unwatched => "who opens files cannot be watched here (inotify)".to_owned(),
    };
    let more = match (plan.has_grace(), plan.was_for_everything()) {
        (true, true) => "--grace 0s frees all but files in use, --aside frees everything",
        (true, false) => "--grace 0s frees the rest of it but files in use",
        (false, true) => "--aside frees everything",
        (false, false) => "run it again once the pull has ended",
    };
    (report.kept.in_use.blobs > 0)
        .then(|| format!("note: a pull may be under way: {sign}. Kept what it may count on; {more}"))
}

/// How many files were armed, for `-v`.
pub(crate) fn armed(report: &PruneReport) -> Option<String> {
    let files = count(report.notes.armed, "file", "files");
    (report.notes.armed > 0).then(|| format!("note: armed {files}: the next read of each will be recorded"))
}

/// The goals that are not met.
pub(crate) fn unmet_goals(policy: &Policy, used_bytes: u64, space: Space) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(max) = policy.max_used_bytes.filter(|max| used_bytes > *max) {
        let (used, max) = (format_bytes(used_bytes), format_bytes(max));
        notes.push(format!("note: goal not met: {used} used, {max} wanted"));
    }
    let min = policy.min_free.map_or(0, |free| free.bytes_of(space));
    if space.available_bytes < min {
        let (free, min) = (format_bytes(space.available_bytes), format_bytes(min));
        notes.push(format!("note: goal not met: {free} free, {min} wanted"));
    }
    notes
}

/// What last use means on a mount that records reads this way.
pub(crate) const fn access_times(access_times: AccessTimes) -> &'static str {
    match access_times {
        AccessTimes::Never => "note: last use is the last write: this mount does not record reads (noatime)",
        AccessTimes::Daily => {
            "note: last use is the later of write and read: this mount records the first read after a write, \
             then one a day (relatime)"
        }
        AccessTimes::Always => "note: last use is the later of write and read: this mount records every read",
    }
}

/// Each entry with its fate and the reason, sorted by path.
pub(crate) fn entries(plan: &PrunePlan, report: &PruneReport) -> Vec<String> {
    sorted_entries(plan, report).into_iter().map(|entry| entry.line).collect()
}

/// The entries that were removed.
pub(crate) fn removed_entries(plan: &PrunePlan, report: &PruneReport) -> Vec<String> {
    sorted_entries(plan, report).into_iter().filter(|entry| entry.went).map(|entry| entry.line).collect()
}

/// The line that `-v` prints for one entry.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: PathBuf,
    line: String,
    /// Whether the entry was removed, or would be.
    went: bool,
}

fn sorted_entries(plan: &PrunePlan, report: &PruneReport) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut exceptions = report.notes.exceptions.iter().peekable();
    for (index, (blob, fate)) in plan.blobs().enumerate() {
        let exception = exceptions.next_if(|(exception, _)| *exception == index).map(|(_, outcome)| *outcome);
        let path = plan.inventory().path_of(blob);
        entries.push(entry(path, blob.size_bytes, fate, exception, report.dry_run));
    }
    for (index, (partial, fate)) in plan.partials().enumerate() {
        let outcome = report.notes.partials.get(index).copied();
        entries.push(entry(partial.path().to_owned(), partial.size_bytes(), fate, outcome, report.dry_run));
    }
    let verb = if report.dry_run { "would remove" } else { "remove" };
    for leftover in plan.leftovers() {
        let (path, amount) = (leftover.path().to_owned(), amount(leftover.total()));
        let line = format!("{verb} `{}` ({amount}): left by a killed prune", escape_path(&path));
        entries.push(Entry { path, line, went: true });
    }
    for foreign in plan.inventory().foreign() {
        let line = format!("leave `{}`: foreign, a {}", escape_path(&foreign.path), foreign.kind);
        entries.push(Entry { path: foreign.path.clone(), line, went: false });
    }
    entries.sort_unstable();
    entries
}

/// What happened to one blob or partial. Without an outcome, it went as planned.
fn entry(path: PathBuf, size_bytes: u64, fate: Fate, outcome: Option<Outcome>, dry_run: bool) -> Entry {
    let removed = if dry_run { "would remove" } else { "removed" };
    let (verb, reason, went) = match (outcome, fate) {
        (Some(Outcome::Kept(reason)), _) | (None, Fate::Keep(reason)) => ("keep", of_keeping(reason), false),
        (Some(Outcome::Gone), _) => ("missed", "already gone", false),
        (Some(Outcome::Failed), _) => ("failed", "see the error", false),
        (Some(Outcome::NotReached), _) => ("missed", "the prune was stopped first", false),
        (None | Some(Outcome::Removed), Fate::Remove(reason)) => (removed, of_removal(reason), true),
        (Some(Outcome::Removed), Fate::Keep(_)) => (removed, "removed", true),
    };
    let line = format!("{verb} `{}` ({}): {reason}", escape_path(&path), format_bytes(size_bytes));
    Entry { path, line, went }
}
