//! What a prune did, or would do: the result that programs read.
//!
//! Guarantees: the figures count what left the disk and nothing else; sizes are bytes, never formatted;
//! the JSON field names are stable, new ones may be added.

use std::ops::AddAssign;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use crate::cache::ledger::Tally;
use crate::error::Failure;
use crate::escape::escape_path;
use crate::plan::fate::Keep;

/// The parameters of the `image.cache.prune` method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneParams {
    /// Only report what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// The result of a prune or, with `dry_run`, what a prune would do.
#[derive(Debug, Default, Serialize)]
pub struct PruneReport {
    /// The logical size of the files removed, in bytes.
    pub bytes_freed: u64,
    /// How many files were removed: blobs, and the files of partials and leftovers.
    pub blobs_freed: u64,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The cache, absolute and escaped as [`escape_path`] does.
    #[serde(serialize_with = "serialize_path")]
    pub cache_dir: PathBuf,
    /// What the files whose last name went occupied on disk, in bytes.
    pub disk_bytes_freed: u64,
    /// Those of `blobs_freed` that were the temporary files of downloads.
    pub partials_freed: u64,
    /// What stayed, by reason.
    pub kept: Kept,
    /// How many entries are none of the cache's.
    pub foreign: u64,
    /// How many directories that killed prunes had left were removed.
    pub leftovers_freed: u64,
    /// What could not be inspected or removed, and why.
    pub failures: Vec<Failure>,
    /// Whether the prune was told to stop before its end.
    pub interrupted: bool,
    /// What people should know beside the figures.
    #[serde(skip)]
    pub notes: Notes,
}

/// What a prune has to tell beside its figures.
#[derive(Debug, Default)]
pub struct Notes {
    /// How many files were removed without the probe for users, since leases do not work there.
    pub unprobed: u64,
    /// What became of blobs that the plan would remove and that were not removed: index in the
    /// inventory and outcome, in the order of the index.
    pub exceptions: Vec<(usize, Outcome)>,
    /// What became of each partial.
    pub partials: Vec<Outcome>,
    /// What foreign entries leftovers hold, which keep them from being removed.
    pub foreign_in_leftovers: Vec<PathBuf>,
    /// The layout's index, if it had to be removed since a new one could not be written.
    pub index_removed: Option<PathBuf>,
    /// Where the cache was left by the aside strategy, if it could not be removed to the end.
    pub left_aside: Option<PathBuf>,
    /// The layout's index, if entries left it, and how many; of a prune of everything the number is not known.
    pub index_changed: Option<(PathBuf, Option<usize>)>,
    /// Whether the kernel confined the prune to removals beneath the cache (Landlock).
    pub confined: bool,
    /// Whether who opens what was to be watched, and could not be, or not everywhere (inotify).
    pub unwatched: bool,
    /// A download that was under way in the layout, for which its blobs stay.
    pub pull_in_flight: Option<PathBuf>,
}

impl PruneReport {
    /// This report and that of a further prune of the same cache as one: what went and what failed is added up,
    /// what stayed is as the later prune found it.
    #[must_use]
    pub fn followed_by(self, mut later: Self) -> Self {
        let is_new = |failure: &Failure| {
            let is_same =
                |other: &Failure| (other.operation, &other.path) == (failure.operation, &failure.path);
            !later.failures.iter().any(is_same)
        };
        let failures: Vec<Failure> = self.failures.into_iter().filter(is_new).collect();
        later.failures.extend(failures);
        let notes = self.notes.followed_by(later.notes);
        Self {
            bytes_freed: self.bytes_freed + later.bytes_freed,
            blobs_freed: self.blobs_freed + later.blobs_freed,
            disk_bytes_freed: self.disk_bytes_freed + later.disk_bytes_freed,
            partials_freed: self.partials_freed + later.partials_freed,
            leftovers_freed: self.leftovers_freed + later.leftovers_freed,
            notes,
            ..later
        }
    }

    /// Whether the whole plan was carried out.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty() && !self.interrupted
    }
}

impl Notes {
    fn followed_by(self, mut later: Self) -> Self {
        later.foreign_in_leftovers.extend(self.foreign_in_leftovers);
        Self {
            unprobed: self.unprobed + later.unprobed,
            unwatched: self.unwatched || later.unwatched,
            index_changed: later.index_changed.or(self.index_changed),
            index_removed: later.index_removed.or(self.index_removed),
            ..later
        }
    }
}

/// What stayed, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Open in some process, or part of a pull under way.
    pub in_use: Tally,
    /// Used too recently.
    pub recent: Tally,
    /// Reachable from the layout's index.
    pub referenced: Tally,
    /// Named to be kept.
    pub pinned: Tally,
    /// The goal was met before its turn came.
    pub goal_met: Tally,
    /// Not what it was when the plan was made, or not there any more.
    pub changed: Tally,
    /// Not in the saved plan.
    pub unlisted: Tally,
    /// Not corrupt, where only what is corrupt goes.
    pub intact: Tally,
    /// Not read, where only what is corrupt goes.
    pub unread: Tally,
}

impl Kept {
    /// Counts a blob under a reason.
    pub fn add(&mut self, reason: Keep, size_bytes: u64) {
        self.of_mut(reason).add(size_bytes);
    }

    /// The reasons with their tallies.
    #[must_use]
    pub const fn by_reason(&self) -> [(Keep, Tally); 9] {
        [
            (Keep::InUse, self.in_use),
            (Keep::Recent, self.recent),
            (Keep::Referenced, self.referenced),
            (Keep::Pinned, self.pinned),
            (Keep::GoalMet, self.goal_met),
            (Keep::Changed, self.changed),
            (Keep::Unlisted, self.unlisted),
            (Keep::Intact, self.intact),
            (Keep::Unread, self.unread),
        ]
    }

    fn of_mut(&mut self, reason: Keep) -> &mut Tally {
        match reason {
            Keep::InUse => &mut self.in_use,
            Keep::Recent => &mut self.recent,
            Keep::Referenced => &mut self.referenced,
            Keep::Pinned => &mut self.pinned,
            Keep::GoalMet => &mut self.goal_met,
            Keep::Changed => &mut self.changed,
            Keep::Unlisted => &mut self.unlisted,
            Keep::Intact => &mut self.intact,
            Keep::Unread => &mut self.unread,
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

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was removed.
    Removed,
    /// It stayed.
    Kept(Keep),
    /// Somebody else removed it.
    Gone,
    /// It could not be removed; the failure says why.
    Failed,
    /// The prune was stopped before its turn came.
    NotReached,
}

fn serialize_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&escape_path(path))
}
