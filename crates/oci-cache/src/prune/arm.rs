//! Arms files: makes the next read of a file that stays leave a trace.
//!
//! Guarantees: opens nothing. A file's change time moves, and no other time, its content, owner or group. Under
//! `relatime`, a read is recorded if the access time is not later than the change time. So an armed file records its
//! next read, and its last use is known to the interval between two prunes instead of to the day.
//!
//! What it does not guarantee: that it works everywhere. A failure leaves the file as it was. Like every `chown(2)`, it
//! clears set-user-ID and set-group-ID bits and file capabilities, which blobs do not have.
//!
//! Source: `chown(2)` ("if the owner or group is specified as -1, then that ID is not changed"); `mount(8)`,
//! `relatime`; Linux's `fs/open.c`, `chown_common`.

use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, chownat};

use crate::cache::idle::Times;
use crate::cache::names::INDEX;
use crate::plan::PrunePlan;
use crate::plan::fate::Fate;
use crate::prune::report::Outcome;
use crate::scan::index::index_status;

/// Arms a layout's index, so that the next prune can tell whether a pull has read it.
pub(crate) fn arm_index(plan: &PrunePlan) {
    let tree = &plan.inventory.tree;
    let Some(root) = tree.directories.first() else { return };
    // The index may be another one by now.
    if let Ok(Some(index)) = index_status(root.descriptor.as_fd())
        && index.is_regular_file()
        && plan.inventory.idleness.can_be_armed(Times::of(&index), plan.planned_at)
    {
        // If that fails, the next prune looks longer.
        let _ = chownat(&root.descriptor, INDEX, None, None, AtFlags::SYMLINK_NOFOLLOW);
    }
}

/// Arms the blobs that stay, by the plan or as an exception to it, and whose next read would leave no trace. Returns
/// how many it armed.
pub(crate) fn arm(plan: &PrunePlan, exceptions: &[(usize, Outcome)]) -> u64 {
    let (tree, idleness) = (&plan.inventory.tree, plan.inventory.idleness);
    let by_plan = plan.blobs().filter(|(_, fate)| matches!(fate, Fate::Keep(_))).map(|(blob, _)| blob);
    let kept = exceptions.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Kept(_)));
    let stays = by_plan.chain(kept.map(|(index, _)| &tree.blobs[*index]));
    let armed = stays.filter(|blob| idleness.can_be_armed(blob.times(), plan.planned_at)).filter(|blob| {
        let directory = tree.directory(blob.directory).descriptor.as_fd();
        let name = blob.digest.file_name(blob.spelling);
        chownat(directory, name.as_c_str(), None, None, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    });
    armed.count() as u64
}
