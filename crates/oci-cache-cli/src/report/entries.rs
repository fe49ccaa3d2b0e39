//! What became of each entry of a cache, for `-v`.
//!
//! Guarantees: pure; the entries are sorted by path, and paths from the disk are escaped in JSON.

use std::path::PathBuf;

use oci_cache::{Digest, Fate, Keep, Outcome, PrunePlan, PruneReport, Remove, escape_path};
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

/// An entry, and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    /// The digest in its name, if it is a blob.
    pub(crate) digest: Option<Digest>,
    /// Its logical size; 0 if it is foreign, whose size nobody asks for.
    pub(crate) bytes: u64,
    /// The number of files in it.
    pub(crate) files: u64,
    pub(crate) end: End,
    /// Whether this is a dry run, which only says what would become of it.
    pub(crate) is_dry_run: bool,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was removed.
    Removed(Remove),
    /// It was kept.
    Kept(Keep),
    /// Another process removed it.
    Gone,
    /// It could not be removed.
    Failed,
    /// The prune was stopped before it came to it.
    NotReached,
    /// A leftover of a killed prune, and whether it was removed.
    Leftover(bool),
    /// It does not belong to the cache; its kind.
    Foreign(&'static str),
}

impl Entry {
    const fn fate(&self) -> &'static str {
        match self.end {
            End::Removed(_) | End::Leftover(true) if self.is_dry_run => "would_remove",
            End::Removed(_) | End::Leftover(true) => "removed",
            End::Kept(_) | End::Leftover(false) => "kept",
            End::Gone => "gone",
            End::Failed => "failed",
            End::NotReached => "not_reached",
            End::Foreign(_) => "foreign",
        }
    }
}

/// Why an entry was removed or kept, in JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Reason {
    Removed(Remove),
    Other(Option<&'static str>),
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let reason = match self.end {
            End::Removed(reason) => Reason::Removed(reason),
            End::Kept(reason) => Reason::Other(Some(reason.name())),
            End::Leftover(_) => Reason::Other(Some("leftover")),
            End::Foreign(kind) => Reason::Other(Some(kind)),
            End::Gone | End::Failed | End::NotReached => Reason::Other(None),
        };
        let mut object = serializer.serialize_struct("Entry", 5)?;
        object.serialize_field("path", &escape_path(&self.path))?;
        object.serialize_field("digest", &self.digest.as_ref().map(ToString::to_string))?;
        object.serialize_field("bytes", &self.bytes)?;
        object.serialize_field("fate", self.fate())?;
        object.serialize_field("reason", &reason)?;
        object.end()
    }
}

/// A result with its entries, if these are wanted.
#[derive(Serialize)]
pub(crate) struct WithEntries<'a, T> {
    #[serde(flatten)]
    pub(crate) result: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<Vec<Entry>>,
}

/// The entries of a plan after it was applied or previewed, by path.
pub(crate) fn entries(plan: &PrunePlan, report: &PruneReport) -> Vec<Entry> {
    let is_dry_run = report.dry_run;
    let one = |path, digest, bytes, end| Entry { path, digest, bytes, files: 1, end, is_dry_run };
    let mut entries = Vec::new();
    let mut exceptions = report.notes.exceptions.iter().peekable();
    for (index, (blob, fate)) in plan.blobs().enumerate() {
        let exception = exceptions.next_if(|(exception, _)| *exception == index).map(|(_, outcome)| *outcome);
        let path = plan.inventory().path_of(blob);
        entries.push(one(path, Some(blob.digest.clone()), blob.size_bytes, end(fate, exception)));
    }
    for (index, (partial, fate)) in plan.partials().enumerate() {
        let outcome = report.notes.partials.get(index).copied();
        entries.push(one(partial.path().to_owned(), None, partial.size_bytes(), end(fate, outcome)));
    }
    for leftover in plan.leftovers() {
        let went = report.notes.leftovers.iter().any(|path| path == leftover.path());
        let total = leftover.total();
        let entry = one(leftover.path().to_owned(), None, total.bytes, End::Leftover(went));
        entries.push(Entry { files: total.blobs, ..entry });
    }
    for foreign in plan.inventory().foreign() {
        entries.push(one(foreign.path.clone(), None, 0, End::Foreign(foreign.kind)));
    }
    entries.sort_by(|left, right| left.path.cmp(&right.path));
    entries
}

/// What became of one blob or partial. Without an outcome, it went as planned.
const fn end(fate: Fate, outcome: Option<Outcome>) -> End {
    match (outcome, fate) {
        (Some(Outcome::Kept(reason)), _) | (None | Some(Outcome::Removed), Fate::Keep(reason)) => {
            End::Kept(reason)
        }
        (None | Some(Outcome::Removed), Fate::Remove(reason) | Fate::Removed(reason)) => End::Removed(reason),
        (Some(Outcome::Gone), _) | (_, Fate::Gone) => End::Gone,
        (Some(Outcome::Failed), _) | (_, Fate::Failed) => End::Failed,
        (Some(Outcome::NotReached), _) => End::NotReached,
    }
}
