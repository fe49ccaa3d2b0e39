//! Applies the goals of a policy: takes candidates in order until all goals are met.
//!
//! Guarantees: asks only whether entries can be removed, and changes nothing. What is known not to be removable is passed
//! over and told. What brings no unmet goal nearer is passed over too. All names of a file are taken together, because
//! only the last of them frees anything. An image is taken as a whole; of its blobs, those go that no remaining image
//! references.

use std::collections::HashMap;

use crate::cache::cache_dir::Space;
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
            What::Blob(_) | What::Partial(_) => taking.file(plan, candidate),
            What::Image(index) => taking.image(plan, index),
        }
    }
    // The other name of such a file may have gone with an image meanwhile.
    for candidate in candidates {
        if let What::Blob(index) = candidate.what
            && plan.blob_fates[index] == Fate::Keep(Keep::FreesNothing)
            && !taking.meter.is_met()
        {
            taking.names(plan, &[candidate.what]);
        }
    }
}

struct Taking<'a> {
    meter: Meter,
    /// For each blob, how many images lead to it that are not taken.
    counts: Vec<u32>,
    /// The candidates that are names of the same file, by its inode. Those that are decided are left out.
    names: HashMap<u64, Vec<What>>,
    removal: Fate,
    foresight: &'a Foresight,
    policy: &'a Policy,
}

impl Taking<'_> {
    /// Takes a blob or a partial, with the other names of its file.
    fn file(&mut self, plan: &mut PrunePlan, candidate: &Candidate) {
        let what = candidate.what;
        if !candidate.has_other_names {
            self.names(plan, &[what]);
        } else if let Some(names) = what.file(plan).and_then(|(inode, _)| self.names.remove(&inode)) {
            self.names(plan, &names);
        }
        // Otherwise, the file was decided on with its first name.
    }

    /// Takes names that stay or go together, with the companions of blobs.
    fn names(&mut self, plan: &mut PrunePlan, names: &[What]) {
        if self.meter.is_met() {
            // With a goal, most names of a large cache end here: their blobs are not looked at.
            names.iter().for_each(|what| set_fate(plan, *what, Fate::Keep(Keep::GoalMet)));
            return;
        }
        let companions = &plan.inventory.tree.companions;
        let (mut blobs, mut partials) = (Vec::new(), Vec::new());
        for what in names {
            match *what {
                What::Blob(index) => blobs.extend(companions.unit(index)),
                What::Partial(index) => partials.push(index),
                What::Image(_) => {}
            }
        }
        if self.cannot_go(plan, &blobs, &partials) {
            return;
        }
        let takes = self.meter.take(plan, &blobs, &partials);
        let fate = if takes { self.removal } else { Fate::Keep(Keep::FreesNothing) };
        names.iter().for_each(|what| set_fate(plan, *what, fate));
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

/// Sets the fate of a partial, or of a blob and its companions.
fn set_fate(plan: &mut PrunePlan, what: What, fate: Fate) {
    match what {
        What::Blob(index) => {
            let unit = plan.inventory.tree.companions.unit(index);
            unit.for_each(|index| plan.blob_fates[index] = fate);
        }
        What::Partial(index) => plan.partial_fates[index] = fate,
        What::Image(_) => {}
    }
}

/// The candidates whose files have several names, by inode.
fn names_of_files(plan: &PrunePlan, candidates: &[Candidate]) -> HashMap<u64, Vec<What>> {
    let mut names: HashMap<u64, Vec<What>> = HashMap::new();
    for candidate in candidates.iter().filter(|candidate| candidate.has_other_names) {
        if let Some((inode, _)) = candidate.what.file(plan) {
            names.entry(inode).or_default().push(candidate.what);
        }
    }
    names
}
