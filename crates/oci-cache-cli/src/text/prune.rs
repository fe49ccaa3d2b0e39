//! A prune as text: its result and its notes.
//!
//! Guarantees: pure; names from the disk are escaped.

use std::path::Path;
use std::time::Duration;

use banger_fmt::format_bytes;
use oci_cache::{
    AccessTimes, Goal, GoalKind, Keep, PrunePlan, PruneReport, Room, Sign, Unmatched, escape_path,
};

use crate::cli::{GraceArguments, PolicyArguments};
use crate::held_off::HeldOff;
use crate::style::{STRONG, paint};
use crate::text::reason::of_keeping;
use crate::text::remarks::remarks;
use crate::text::{amount, count, interrupted, paths};

/// The result as one line, styled, including its newline.
pub(crate) fn result(report: &PruneReport) -> String {
    let size = format_bytes(report.bytes_freed);
    let (blobs, directory) = (report.blobs_freed, escape_path(&report.cache_dir));
    // A dry run comes to none of them.
    let planned = if report.dry_run { 0 } else { report.blobs_planned };
    let interrupted = interrupted(report.interrupted, blobs, planned);
    let freed = paint(STRONG, &format!("{} {size}", freed(report)));
    format!("{freed} across {blobs} blob(s) in {directory}{interrupted}\n")
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
    let is_unmet = report.goals.iter().any(|goal| !goal.met);
    for (reason, tally) in report.kept.by_reason().into_iter().filter(|(_, tally)| tally.blobs > 0) {
        let why = match reason {
            Keep::GoalMet if is_unmet => "not needed by the plan",
            reason => of_keeping(reason),
        };
        notes.push(format!("note: kept {}: {why}", amount(tally)));
    }
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
    let kinds = [
        ("symbolic link", "symbolic links", "followed"),
        ("mount", "mounts", "entered"),
        ("subvolume", "subvolumes", "entered"),
    ];
    let told = kinds.map(|(kind, plural, done)| {
        let foreign = plan.inventory().foreign().iter();
        match foreign.filter(|entry| entry.stands_for_blobs && entry.kind == kind).count() {
            0 => String::new(),
            some => format!("; {} in the place of blobs not {done}", count(some as u64, kind, plural)),
        }
    });
    told.concat()
}

/// What became of leftovers, of an index that could not be rewritten, and of a cache moved aside.
fn notes_on_leftovers(report: &PruneReport) -> Vec<String> {
    let mut notes = Vec::new();
    if report.leftovers_freed > 0 {
        let leftovers = count(report.leftovers_freed, "leftover", "leftovers");
        notes.push(format!("note: {} {leftovers} of killed prunes", removed(report)));
    }
    let foreign = &report.notes.foreign_in_leftovers;
    let named = paths(foreign, foreign.len() as u64);
    match foreign.len() {
        0 => {}
        1 => notes.push(format!("note: a leftover stays because of the foreign entry {named} in it")),
        entries => {
            notes.push(format!("note: leftovers stay because of {entries} foreign entries in them: {named}"))
        }
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

/// What is not known of what was freed, and how the disk space freed differs from the logical size.
fn notes_on_limits(report: &PruneReport) -> Vec<String> {
    let mut notes = Vec::new();
    if report.notes.lower > 0 {
        let blobs = count(report.notes.lower, "blob is", "blobs are");
        notes.push(format!(
            "note: {blobs} of a lower layer of an overlay, or copied up from one: how much that frees is not known"
        ));
    }
    if let Some(Room { promised, gained }) = report.notes.room {
        let (promised, gained) = (format_bytes(promised), format_bytes(gained));
        notes.push(format!(
            "note: the removed files occupied {promised}, but only {gained} more are free: snapshots or reflinks may \
             hold the rest, or others have written meanwhile"
        ));
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

/// What matches nothing of what was named to stay or to go: perhaps a mistake, by which more goes than was meant.
pub(crate) fn unmatched(pins: &Unmatched) -> Option<String> {
    const SHOWN: usize = 3;
    let shown: Vec<String> =
        pins.first.iter().take(SHOWN).map(|pin| format!("`{}`", escape_path(Path::new(pin)))).collect();
    let more = match pins.count.saturating_sub(SHOWN as u64) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let pins = count(pins.count, "name or digest matches", "names or digests match");
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
    let is_told = report.exists && report.notes.confined == Some(true);
    is_told.then(|| "note: confined by Landlock to removals beneath the cache".to_owned())
}

/// What shows that a pull is under way, and how to free more.
fn pull(plan: &PrunePlan, report: &PruneReport) -> Option<String> {
    let sign = match report.pull.as_ref()? {
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
    let (in_use, spared) = (report.kept.in_use.blobs > 0, report.kept.spared.blobs > 0);
    if !in_use && !spared {
        return None;
    }
    let is_locked_out = matches!(&report.pull, Some(Sign::Locked(path)) if *path == report.cache_dir);
    let more = match (plan.has_grace() && spared, plan.was_for_everything()) {
        _ if is_locked_out => "run it again once the lock is free",
        (true, true) => "--grace 0s frees all but files in use, --aside frees everything",
        (true, false) => "--grace 0s frees the rest of it but files in use",
        (false, true) => "--aside frees everything",
        (false, false) => "run it again once the pull has ended",
    };
    Some(format!("note: a pull may be under way: {sign}. Kept what it may count on; {more}"))
}

/// That the prune was held off, and how to go on so that no pull breaks.
pub(crate) fn held_off(held_off: HeldOff, given: &GraceArguments) -> String {
    let how = match given.watch_first {
        false => "--watch-first frees what nobody uses for the length of --grace meanwhile",
        true => "end what uses the cache all the time",
    };
    format!("note: {}: nothing could be freed; {how}", held_off.in_words())
}

/// That the prune watches for the grace before it removes anything.
pub(crate) fn watching_first(grace: Duration) -> String {
    let grace = humantime::format_duration(grace);
    format!("watching for {grace} what of the cache is used, before anything is removed")
}

/// How many files were armed, for `-v`.
pub(crate) fn armed(report: &PruneReport) -> Option<String> {
    let files = count(report.notes.armed, "file", "files");
    (report.notes.armed > 0).then(|| format!("note: armed {files}: the next read of each will be recorded"))
}

/// The goals that are not met.
pub(crate) fn unmet_goals(goals: &[Goal], given: &PolicyArguments) -> Vec<String> {
    let unmet = goals.iter().filter(|goal| !goal.met).map(|goal| {
        let (what, given) = match goal.goal {
            GoalKind::MaxUsedSpace => ("used", &given.max_used_space),
            GoalKind::MinFreeSpace => ("free", &given.min_free_space),
        };
        let reached = format_bytes(goal.reached);
        let wanted =
            given.as_ref().map_or_else(|| format_bytes(goal.wanted), |given| given.in_words(goal.wanted));
        format!("note: goal not met: {reached} {what}, {wanted} wanted")
    });
    unmet.collect()
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
