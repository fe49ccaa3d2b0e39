//! Removes blobs with their companions.
//!
//! Guarantees: a blob stays if a process has one of its companions open. Companions go last, and only if their blob is
//! gone; otherwise they share its outcome. A prune that is killed in between leaves companions without their blob,
//! which the next prune removes. Everything else: as [`crate::prune::removal`].

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;

use crate::cache::inventory::Tree;
use crate::os::lease::{Probe, probe_patiently};
use crate::plan::fate::Keep;
use crate::progress::Progress;
use crate::prune::beside::OpenFiles;
use crate::prune::removal::remove_each;
use crate::prune::removed::Removal;
use crate::prune::report::Outcome;

/// Removes the blobs of `tree` at the indexes `doomed`: companions last, and only if their blob is gone.
pub(crate) fn remove_blobs(
    tree: &Tree,
    mut doomed: Vec<usize>,
    open_files: OpenFiles<'_>,
    progress: &Progress,
) -> Removal {
    let companions: Vec<usize> =
        doomed.extract_if(.., |index| tree.companions.owner(*index).is_some()).collect();
    if companions.is_empty() {
        let mut removal = remove_each(tree, doomed, open_files, progress);
        removal.exceptions.sort_unstable_by_key(|(index, _)| *index);
        return removal;
    }
    let settle = |removal: &mut Removal, index: usize, outcome| {
        let size_bytes = tree.blobs[index].size_bytes;
        removal.settle(index, outcome, size_bytes);
        progress.add(1, size_bytes);
    };
    let in_use: HashSet<usize> = companions
        .iter()
        .filter(|companion| is_in_use(tree, **companion, open_files))
        .filter_map(|companion| tree.companions.owner(*companion))
        .collect();
    doomed.retain(|index| !in_use.contains(index));
    let mut removal = remove_each(tree, doomed, open_files, progress);
    for &blob in &in_use {
        settle(&mut removal, blob, Outcome::Kept(Keep::InUse));
    }
    let outcomes: HashMap<usize, Outcome> = removal.exceptions.iter().copied().collect();
    let outcome_of_blob = |index: &usize| outcomes.get(&tree.companions.owner(*index)?).copied();
    let is_gone = |index: &usize| matches!(outcome_of_blob(index), None | Some(Outcome::Gone));
    let (doomed, left): (Vec<_>, Vec<_>) = companions.into_iter().partition(is_gone);
    removal.merge(remove_each(tree, doomed, open_files, progress));
    for index in left {
        settle(&mut removal, index, outcome_of_blob(&index).unwrap_or(Outcome::Gone));
    }
    removal.exceptions.sort_unstable_by_key(|(index, _)| *index);
    removal
}

/// Whether a process has the blob open, and that matters.
fn is_in_use(tree: &Tree, index: usize, open_files: OpenFiles<'_>) -> bool {
    let OpenFiles::Spare(beside) = open_files else { return false };
    let blob = &tree.blobs[index];
    let watch = beside.and_then(|beside| beside.pulls.watch_of(blob.directory));
    let directory = tree.directory(blob.directory).descriptor.as_fd();
    let name = blob.digest.file_name(blob.spelling);
    matches!(probe_patiently(directory, name.as_c_str(), watch), Probe::InUse(_) | Probe::Leased)
}
