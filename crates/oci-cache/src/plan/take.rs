//! Applies the goals of a policy: takes candidates in order until all goals are met.
//!
//! Guarantees: asks only whether entries can be removed, and changes nothing. What is known not to be removable is passed
//! over and told. What brings no unmet goal nearer is passed over too. All names of a file are taken together, because
//! only the last of them frees anything. An image is taken as a whole; of its blobs, those go that no remaining image
//! references.

use std::collections::HashMap;

use crate::cache::cache_dir::Space;
use crate::cache::inventory::Blob;
use crate::plan::PrunePlan;
use crate::plan::candidate::{Candidate, What};
use crate::plan::fate::{Fate, Keep};
use crate::plan::foresight::Foresight;
use crate::plan::meter::Meter;
use crate::plan::policy::Policy;

/// Sets the fates of the candidates.
pub(crate) fn take_until_met(
    plan: &mut PrunePlan,
    candidates: &[Candidate],
    policy: &Policy,
    foresight: &Foresight,
    space: Space,
) {
    let mut taking = Taking {
        meter: Meter::of(plan, policy, space),
        counts: plan.inventory.references.counts(plan.blob_fates.len()),
        names: names_of_files(plan, candidates),
        removal: Fate::Remove(policy.reason()),
        foresight,
        policy,
    };
    for candidate in candidates {
        match candidate.what {
            What::Partial(index) => taking.file(plan, Name::Partial(index)),
            What::Blob(index) => taking.file(plan, Name::Blob(index)),
            What::Image(index) => taking.image(plan, index),
        }
    }
    // The other name of such a file may have gone with an image meanwhile.
    for candidate in candidates {
        if let What::Blob(index) = candidate.what
            && plan.blob_fates[index] == Fate::Keep(Keep::FreesNothing)
            && !taking.meter.is_met()
        {
            taking.names(plan, &[Name::Blob(index)]);
        }
    }
}

struct Taking<'a> {
    meter: Meter,
    /// For each blob, how many images lead to it that are not taken.
    counts: Vec<u32>,
    /// The candidates that are names of the same file, by its inode. Those that are decided are left out.
    names: HashMap<u64, Vec<Name>>,
    removal: Fate,
    foresight: &'a Foresight,
    policy: &'a Policy,
}

/// A candidate that is a name of a file.
#[derive(Clone, Copy)]
enum Name {
    Blob(usize),
    Partial(usize),
}

impl Taking<'_> {
    fn file(&mut self, plan: &mut PrunePlan, name: Name) {
        let (inode, links) = identity(plan, name);
        let names = match links {
            0 | 1 => vec![name],
            // With its first name, the file was decided on.
            _ => self.names.remove(&inode).unwrap_or_default(),
        };
        self.names(plan, &names);
    }

    /// Takes names that stay or go together, with the companions of blobs.
    fn names(&mut self, plan: &mut PrunePlan, names: &[Name]) {
        let companions = &plan.inventory.tree.companions;
        let (mut blobs, mut partials) = (Vec::new(), Vec::new());
        for name in names {
            match name {
                Name::Blob(index) => blobs.extend(companions.unit(*index)),
                Name::Partial(index) => partials.push(*index),
            }
        }
        if !self.meter.is_met() && self.cannot_go(plan, &blobs, &partials) {
            return;
        }
        let fate = self.fate_of(plan, &blobs, &partials);
        partials.into_iter().for_each(|index| plan.partial_fates[index] = fate);
        blobs.into_iter().for_each(|index| plan.blob_fates[index] = fate);
    }

    fn image(&mut self, plan: &mut PrunePlan, index: usize) {
        let blobs = plan.inventory.references.images[index].blobs.clone();
        let is_pinned = |plan: &PrunePlan, blob: usize| plan.blob_fates[blob] == Fate::Keep(Keep::Pinned);
        let may_go = |taking: &Self, blob: usize| !is_pinned(plan, blob) && !taking.is_recent(plan, blob);
        let mine: Vec<usize> = blobs.iter().copied().filter(|&blob| may_go(self, blob)).collect();
        let own: Vec<usize> = mine.iter().copied().filter(|&blob| self.counts[blob] == 1).collect();
        let fate = if self.meter.is_met() {
            Fate::Keep(Keep::GoalMet)
        } else if self.cannot_go(plan, &own, &[]) {
            Fate::Keep(Keep::Referenced)
        } else if self.meter.take(plan, &own, &[]) || self.meter.could_help(plan, &mine) {
            // What it shares with others frees something once these go too.
            self.removal
        } else {
            Fate::Keep(Keep::FreesNothing)
        };
        for blob in blobs {
            if fate.goes() {
                self.counts[blob] -= 1;
            }
            let is_settled = is_pinned(plan, blob) || plan.blob_fates[blob] == Fate::Failed;
            if is_settled || fate.goes() && self.counts[blob] > 0 {
                continue;
            }
            // A layer that was read recently stays, even if all its images go.
            plan.blob_fates[blob] = if self.is_recent(plan, blob) { Fate::Keep(Keep::Recent) } else { fate };
        }
    }

    /// Takes blobs and partials that stay or go together.
    fn fate_of(&mut self, plan: &PrunePlan, blobs: &[usize], partials: &[usize]) -> Fate {
        if self.meter.is_met() {
            Fate::Keep(Keep::GoalMet)
        } else if self.meter.take(plan, blobs, partials) {
            self.removal
        } else {
            Fate::Keep(Keep::FreesNothing)
        }
    }

    /// Whether it is known that some of these cannot be removed. These are told; the others stay with them.
    fn cannot_go(&self, plan: &mut PrunePlan, blobs: &[usize], partials: &[usize]) -> bool {
        if self.foresight.is_clear() && partials.is_empty() {
            return false;
        }
        let refused = blobs.iter().filter(|index| plan.is_blob_refused(**index, self.foresight)).count()
            + partials.iter().filter(|index| plan.is_partial_refused(**index, self.foresight)).count();
        if refused > 0 {
            blobs.iter().for_each(|&index| plan.blob_fates[index].stay(Keep::Referenced));
            partials.iter().for_each(|&index| plan.partial_fates[index].stay(Keep::Referenced));
        }
        refused > 0
    }

    fn is_recent(&self, plan: &PrunePlan, index: usize) -> bool {
        let last_used = plan.inventory.tree.blobs[index].last_used();
        self.policy.is_too_recent(last_used.min(plan.planned_at), plan.planned_at)
    }
}

/// The inode of a candidate's file, and how many names it has. Of a partial with several files, only its own number.
fn identity(plan: &PrunePlan, name: Name) -> (u64, u32) {
    match name {
        Name::Blob(index) => {
            let Blob { inode, links, .. } = plan.inventory.tree.blobs[index];
            (inode, links)
        }
        Name::Partial(index) => {
            let status = &plan.inventory.tree.partials[index].status;
            (status.id.inode, if status.is_directory() { 1 } else { status.links })
        }
    }
}

/// The candidates whose files have several names, by inode.
fn names_of_files(plan: &PrunePlan, candidates: &[Candidate]) -> HashMap<u64, Vec<Name>> {
    let mut names: HashMap<u64, Vec<Name>> = HashMap::new();
    for candidate in candidates {
        let name = match candidate.what {
            What::Blob(index) => Name::Blob(index),
            What::Partial(index) => Name::Partial(index),
            What::Image(_) => continue,
        };
        if let (inode, 2..) = identity(plan, name) {
            names.entry(inode).or_default().push(name);
        }
    }
    names
}
