//! The report: what a prune did or would do, for programs to read.
//!
//! Guarantees: the figures count only what was removed from the disk. Sizes are in bytes and never
//! formatted. The JSON field names are stable; new ones may be added.

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use crate::cache::cache_dir::Space;
use crate::cache::finding::Finding;
use crate::cache::ledger::Tally;
use crate::error::Failures;
use crate::escape::escape_path;
use crate::plan::PrunePlan;
use crate::plan::fate::{Fate, Keep};
use crate::plan::goal::Goal;
use crate::plan::pins::Unmatched;
use crate::prune::sign::Sign;
use crate::verify::Verification;

/// The result of a prune; with `dry_run`, what a prune would do.
#[derive(Debug, Default, Serialize)]
pub struct PruneReport {
    /// Total logical size of the removed files, in bytes.
    pub bytes_freed: u64,
    /// The number of files removed: blobs, and the files of partials and leftovers.
    pub blobs_freed: u64,
    /// Whether this was a dry run, which changes nothing.
    pub dry_run: bool,
    /// The cache's absolute path, escaped as by [`escape_path`].
    #[serde(serialize_with = "serialize_path")]
    pub cache_dir: PathBuf,
    /// Whether there is a directory at that path.
    pub exists: bool,
    /// Disk space of the files whose last name was removed, in bytes.
    pub disk_bytes_freed: u64,
    /// How many of `blobs_freed` were temporary files of downloads.
    pub partials_freed: u64,
    /// What was kept, by reason.
    pub kept: Kept,
    /// Pins of the policy that match nothing.
    pub unmatched: Unmatched,
    /// The number of foreign entries.
    pub foreign: u64,
    /// The number of leftovers, from killed prunes, that were removed.
    pub leftovers_freed: u64,
    /// Entries that could not be inspected or removed, or that a dry run knows could not be removed, and why.
    #[serde(flatten)]
    pub failures: Failures,
    /// Whether the prune was stopped before its end.
    pub interrupted: bool,
    /// The number of files that the plan removes, of which `blobs_freed` were removed.
    pub blobs_planned: u64,
    /// What the cache's files use after the prune, or would use after the one that was previewed, in bytes.
    pub used_bytes: u64,
    /// Free space for unprivileged processes after the prune, or after the one that was previewed, in bytes; `None` if
    /// the cache does not exist.
    pub available_bytes: Option<u64>,
    /// The policy's goals; none if the cache does not exist.
    pub goals: Vec<Goal>,
    /// What shows that a pull is under way, for which what it may count on stays; the first sign.
    pub pull: Option<Sign>,
    /// Information for people, beyond the figures.
    #[serde(skip)]
    pub notes: Notes,
}

/// Information for people, beyond the figures of a prune.
#[derive(Debug, Default)]
pub struct Notes {
    /// The number of files removed without a probe for users, although users are spared: leases do not work there.
    pub unprobed: u64,
    /// Blobs that the plan would remove but that were not removed: index in the inventory and outcome,
    /// in order of index.
    pub exceptions: Vec<(usize, Outcome)>,
    /// The outcome for each partial.
    pub partials: Vec<Outcome>,
    /// The leftovers that were removed.
    pub leftovers: Vec<PathBuf>,
    /// The foreign entries in leftovers, because of which those leftovers stay.
    pub foreign_in_leftovers: Vec<PathBuf>,
    /// The layout's index, if it had to be removed because a new one could not be written.
    pub index_removed: Option<PathBuf>,
    /// The path of the old cache, if the aside strategy could not remove all of it.
    pub left_aside: Option<PathBuf>,
    /// The layout's index, if entries were removed from it, and their number, which is unknown for a
    /// prune of everything.
    pub index_changed: Option<(PathBuf, Option<usize>)>,
    /// Whether the kernel confined the prune to removals beneath the cache (Landlock), if there was one.
    pub confined: Option<bool>,
    /// Whether the prune looked for pulls but could not watch who opens files (inotify).
    pub unwatched: bool,
    /// How many of the blobs that were removed, or would be, are on a lower layer of an overlay.
    pub lower: u64,
    /// How much free space the files promised that were removed for a goal of free space, and how much there is now,
    /// in bytes, if that is much less.
    pub room: Option<Room>,
    /// How many of the files that stay will record their next read, for the next prune to know.
    pub armed: u64,
}

/// Free space that a prune promised, and gained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What the removed files occupied, in bytes.
    pub promised: u64,
    /// By how much the free space grew, in bytes.
    pub gained: u64,
}

impl Room {
    /// The room, if it is less than half of what was promised. Of a few small files, nothing can be said: others write
    /// too.
    pub(crate) fn missed(promised: u64, gained: u64) -> Option<Self> {
        const TOO_LITTLE_TO_TELL: u64 = 1 << 20;
        (promised >= TOO_LITTLE_TO_TELL && gained < promised / 2).then_some(Self { promised, gained })
    }
}

impl PruneReport {
    /// Combines this report with that of a later round of the same prune. Adds up what was removed and what failed; takes
    /// what was kept from the later report.
    #[must_use]
    pub(crate) fn followed_by(self, mut later: Self) -> Self {
        let mut failures = self.failures;
        failures.merge(std::mem::take(&mut later.failures));
        later.failures = failures;
        let notes = self.notes.followed_by(later.notes);
        Self {
            bytes_freed: self.bytes_freed.saturating_add(later.bytes_freed),
            blobs_freed: self.blobs_freed + later.blobs_freed,
            disk_bytes_freed: self.disk_bytes_freed.saturating_add(later.disk_bytes_freed),
            partials_freed: self.partials_freed + later.partials_freed,
            blobs_planned: self.blobs_planned + later.blobs_planned,
            leftovers_freed: self.leftovers_freed + later.leftovers_freed,
            pull: self.pull.or(later.pull),
            notes,
            ..later
        }
    }

    /// This report, with what the verification before it could not do.
    pub(crate) fn after(mut self, verification: Option<Verification>) -> Self {
        if let Some(verification) = verification {
            self.failures.merge(verification.failures);
            self.interrupted |= verification.interrupted;
        }
        self
    }

    /// What the cache's files use once the plan was carried out, in bytes.
    pub(crate) fn used_after(&self, plan: &PrunePlan) -> u64 {
        let stays: HashMap<usize, Outcome> = self.notes.exceptions.iter().copied().collect();
        let is_left = |fate: Fate, outcome: Option<Outcome>| match fate {
            Fate::Removed(_) | Fate::Gone => false,
            Fate::Remove(_) => !matches!(outcome, None | Some(Outcome::Removed | Outcome::Gone)),
            Fate::Keep(_) | Fate::Failed => true,
        };
        let used = plan.inventory.used(
            |index| is_left(plan.blob_fates[index], stays.get(&index).copied()),
            |index| is_left(plan.partial_fates[index], self.notes.partials.get(index).copied()),
        );
        used.used_bytes()
    }

    /// This report, with what the plan's file system holds after it, and how near the goals are.
    pub(crate) fn measured(mut self, plan: &PrunePlan) -> Self {
        self.used_bytes = self.used_after(plan);
        // On which file system a cache would be that does not exist is not known.
        let Some(now) = plan.inventory.space() else { return self };
        let space = match self.dry_run {
            true => Space {
                available_bytes: plan.space.available_bytes.saturating_add(self.disk_bytes_freed),
                ..plan.space
            },
            false => now,
        };
        self.available_bytes = Some(space.available_bytes);
        self.goals = plan.goal.as_ref().map_or_else(Vec::new, |policy| policy.goals(self.used_bytes, space));
        self
    }

    /// How many of the blobs that were found corrupt are left.
    #[must_use]
    pub fn corrupt_left(&self, plan: &PrunePlan) -> usize {
        let exceptions = self.notes.exceptions.iter().filter(|(_, outcome)| *outcome != Outcome::Gone);
        let left: HashSet<usize> = exceptions.map(|(index, _)| *index).collect();
        let findings = plan.inventory.findings.iter().flatten();
        let corrupt = findings.filter(|(_, finding)| matches!(finding, Finding::Corrupt { .. }));
        corrupt.filter(|(index, _)| !plan.blob_fates[**index].goes() || left.contains(index)).count()
    }

    /// Whether pulls, or what looks like pulls, kept the prune from freeing anything.
    #[must_use]
    pub const fn is_held_off(&self) -> bool {
        let is_nothing_freed = self.blobs_freed == 0 && self.leftovers_freed == 0;
        !self.dry_run && is_nothing_freed && self.kept.spared.blobs > 0
    }

    /// Whether the whole plan was applied.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty() && !self.interrupted
    }
}

impl Notes {
    fn followed_by(self, mut later: Self) -> Self {
        later.foreign_in_leftovers.extend(self.foreign_in_leftovers);
        let index_changed = match (self.index_changed, later.index_changed) {
            (Some((path, first)), Some((_, second))) => {
                Some((path, first.zip(second).map(|(first, second)| first + second)))
            }
            (first, second) => second.or(first),
        };
        later.leftovers.extend(self.leftovers);
        Self {
            lower: self.lower + later.lower,
            unprobed: self.unprobed + later.unprobed,
            armed: self.armed + later.armed,
            confined: match (self.confined, later.confined) {
                (Some(first), Some(second)) => Some(first && second),
                (first, second) => first.or(second),
            },
            unwatched: self.unwatched || later.unwatched,
            index_changed,
            index_removed: later.index_removed.or(self.index_removed),
            ..later
        }
    }
}

/// What was kept, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Open in some process, or just used by one.
    pub in_use: Tally,
    /// Not seen in use, but possibly needed by a pull in progress.
    pub spared: Tally,
    /// Not known to be unused, and only what is known to be goes.
    pub unprobed: Tally,
    /// Used too recently.
    pub recent: Tally,
    /// Referenced by the layout's index.
    pub referenced: Tally,
    /// Pinned by the policy.
    pub pinned: Tally,
    /// Not removed because the goal was already met.
    pub goal_met: Tally,
    /// Not removed because that brings no goal nearer.
    pub frees_nothing: Tally,
    /// Changed since the plan was made, or no longer there.
    pub changed: Tally,
    /// Not in the saved plan.
    pub unlisted: Tally,
    /// Not corrupt, when only corrupt blobs are removed.
    pub intact: Tally,
    /// Not read successfully, when only corrupt blobs are removed.
    pub unread: Tally,
    /// Of no selected image, when only certain images are removed.
    pub unselected: Tally,
}

impl Kept {
    /// Adds one blob to the tally of a reason.
    pub fn add(&mut self, reason: Keep, size_bytes: u64) {
        self.of_mut(reason).add(size_bytes);
    }

    /// Each reason with its tally.
    #[must_use]
    pub const fn by_reason(&self) -> [(Keep, Tally); 13] {
        [
            (Keep::InUse, self.in_use),
            (Keep::Spared, self.spared),
            (Keep::Unprobed, self.unprobed),
            (Keep::Recent, self.recent),
            (Keep::Referenced, self.referenced),
            (Keep::Pinned, self.pinned),
            (Keep::GoalMet, self.goal_met),
            (Keep::FreesNothing, self.frees_nothing),
            (Keep::Changed, self.changed),
            (Keep::Unlisted, self.unlisted),
            (Keep::Intact, self.intact),
            (Keep::Unread, self.unread),
            (Keep::Unselected, self.unselected),
        ]
    }

    fn of_mut(&mut self, reason: Keep) -> &mut Tally {
        match reason {
            Keep::InUse => &mut self.in_use,
            Keep::Spared => &mut self.spared,
            Keep::Unprobed => &mut self.unprobed,
            Keep::Recent => &mut self.recent,
            Keep::Referenced => &mut self.referenced,
            Keep::Pinned => &mut self.pinned,
            Keep::GoalMet => &mut self.goal_met,
            Keep::FreesNothing => &mut self.frees_nothing,
            Keep::Changed => &mut self.changed,
            Keep::Unlisted => &mut self.unlisted,
            Keep::Intact => &mut self.intact,
            Keep::Unread => &mut self.unread,
            Keep::Unselected => &mut self.unselected,
        }
    }
}

impl AddAssign for Kept {
    fn add_assign(&mut self, other: Self) {
        for (reason, tally) in other.by_reason() {
            *self.of_mut(reason) += tally;
        }
    }
}

/// The outcome for one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was removed.
    Removed,
    /// It was kept.
    Kept(Keep),
    /// Another process removed it.
    Gone,
    /// It could not be removed; the failure in the report says why.
    Failed,
    /// The prune was stopped before it reached this entry.
    NotReached,
}

fn serialize_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&escape_path(path))
}
