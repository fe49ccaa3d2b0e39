//! Applies a policy to an inventory: filters limit what may be removed, goals stop the prune.
//!
//! Guarantees: [`select`] is pure once the references are read: it uses no clock and no disk. The same
//! inventory, references, policy, time and space give the same plan, in whatever order the scan found
//! the entries. An entry must pass all filters to be a candidate. Candidates are removed in order of
//! last use, the least recent first; on a tie the larger first, then the one with the smaller digest. So
//! if a layer exists both compressed and uncompressed, and each can be rebuilt from the other, the
//! larger copy is removed. Without a goal, all candidates are removed; with several goals, candidates
//! are removed until all goals are met. In an OCI image layout an image is removed as a whole or not at
//! all, and a blob that any other image references stays. An image was last used when its manifests, or the
//! blobs that no other image leads to, were last used.

use std::time::Duration;

use crate::cache::cache_dir::Space;
use crate::cache::finding::Finding;
use crate::cache::inventory::{Blob, Inventory, Tree};
use crate::cache::references::Image;
use crate::error::Error;
use crate::os::status::Timestamp;
use crate::plan::candidate::{Candidate, What};
use crate::plan::fate::{Fate, Keep, Remove};
use crate::plan::foresight::Foresight;
use crate::plan::policy::Policy;
use crate::plan::settled::Settled;
use crate::plan::take::take_until_met;
use crate::plan::{IndexChange, PrunePlan};
use crate::scan::references::read_references;

/// How long an unreferenced blob is spared after it was written: a pull writes blobs first, the index last.
const NOT_YET_ENTERED: Duration = Duration::from_secs(3600);

/// Decides for each entry of the inventory whether it goes or stays, as of `now` and with such space.
///
/// Reads the index's references first, if the policy depends on them and they were not read yet, and asks what cannot be
/// removed. From then on it is pure.
///
/// # Errors
///
/// [`Error::NoIndex`] if the policy removes only unreferenced blobs and there is no index.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use oci_cache::{CacheDir, Fate, Keep, Policy, scan, select};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
/// # let now = std::time::SystemTime::now().into();
/// let cache = CacheDir::open(path, &[])?;
/// let mut policy = Policy::default();
/// policy.older_than = Some(Duration::from_secs(3600));
/// let plan = select(scan(&cache)?, &policy, now, cache.space()?)?;
/// // The blob was written just now.
/// assert!(plan.blobs().all(|(_, fate)| fate == Fate::Keep(Keep::Recent)));
/// assert_eq!(plan.total().blobs, 0);
/// # Ok(())
/// # }
/// ```
pub fn select(
    mut inventory: Inventory,
    policy: &Policy,
    now: Timestamp,
    space: Space,
) -> Result<PrunePlan, Error> {
    let foresight = Foresight::of(&inventory);
    // If something cannot be removed, the images that need it stay.
    if policy.wants_references() || !foresight.is_clear() {
        read_references(&mut inventory);
    }
    select_around(inventory, policy, &foresight, &Settled::default(), now, space)
}

/// As [`select`], as if every entry could be removed, by whomever.
///
/// # Errors
///
/// As [`select`].
pub fn estimate(
    mut inventory: Inventory,
    policy: &Policy,
    now: Timestamp,
    space: Space,
) -> Result<PrunePlan, Error> {
    if policy.wants_references() {
        read_references(&mut inventory);
    }
    select_around(inventory, policy, &Foresight::default(), &Settled::default(), now, space)
}

/// As [`select`], for an inventory whose references have been read; it fails in the same case. What is settled stays so.
pub(crate) fn select_around(
    inventory: Inventory,
    policy: &Policy,
    foresight: &Foresight,
    settled: &Settled,
    now: Timestamp,
    space: Space,
) -> Result<PrunePlan, Error> {
    if policy.unreferenced && !inventory.references.has_index && inventory.exists() {
        return Err(Error::NoIndex { path: inventory.path });
    }
    let mut plan = PrunePlan::keeping(inventory, now, Keep::Unlisted);
    plan.goal = policy.has_goal().then(|| policy.clone());
    plan.blob_fates.fill(Fate::Remove(Remove::Everything));
    plan.partial_fates.fill(Fate::Remove(Remove::Everything));
    plan.leftovers_go.fill(!settled.are_leftovers_done);
    plan.index_change = IndexChange::Empty;
    plan.grace = policy.grace;
    plan.strict = policy.strict;
    plan.watch_first = policy.watch_first;
    plan.space = space;
    // The next prune with such a policy judges what stays by its last use.
    plan.arms = policy.has_goal() || policy.older_than.is_some();
    if policy.is_everything() && foresight.is_clear() {
        return Ok(plan);
    }
    let mut candidates = Selection { plan: &mut plan, policy, settled, now }.candidates();
    if policy.has_goal() {
        candidates.sort_unstable_by(|left, right| left.compare(right, &plan));
    }
    take_until_met(&mut plan, &candidates, policy, foresight, space);
    plan.index_change = plan.entries_without_their_blobs();
    if policy.selects_images() {
        // An entry may have all its blobs in common with others.
        let selected = candidates.iter().filter_map(|candidate| match candidate.what {
            What::Image(index) => Some(index),
            What::Blob(_) | What::Partial(_) => None,
        });
        if !policy.has_goal() {
            plan.drop_entries(selected.collect());
        }
    }
    // A prune of corrupt blobs removes nothing else, and does not need all references.
    if policy.corrupt {
        let images = plan.inventory.references.images.iter().enumerate();
        let dangling =
            images.filter(|(_, image)| image.is_dangling() && !policy.keep.need(image, &plan.inventory));
        plan.drop_entries(dangling.map(|(index, _)| index).collect());
        plan.leftovers_go.fill(false);
    }
    if policy.selects_images() {
        plan.leftovers_go.fill(false);
    }
    plan.unmatched = policy.keep.unmatched(&plan.inventory);
    plan.unmatched += policy.images.unmeant(&plan.inventory.references.images);
    plan.needs_all_references = !policy.corrupt || policy.unreferenced;
    Ok(plan)
}

/// Applies the filters.
struct Selection<'a> {
    plan: &'a mut PrunePlan,
    policy: &'a Policy,
    settled: &'a Settled,
    now: Timestamp,
}

impl Selection<'_> {
    /// Returns the entries that pass the filters; sets the fate of all others.
    fn candidates(mut self) -> Vec<Candidate> {
        let counts = self.plan.inventory.references.counts(self.plan.blob_fates.len());
        let all_known = self.plan.inventory.references.is_complete();
        let pinned = self.pinned_by_images(counts.len());
        let mut candidates = Vec::with_capacity(counts.len());
        for (index, count) in counts.iter().enumerate() {
            let Tree { blobs, companions, .. } = &self.plan.inventory.tree;
            if companions.owner(index).is_some() {
                continue;
            }
            if let Some(fate) = companions.unit(index).find_map(|index| self.settled.blob(index)) {
                let fates = &mut self.plan.blob_fates;
                companions
                    .unit(index)
                    .for_each(|index| fates[index] = self.settled.blob(index).unwrap_or(fate));
                continue;
            }
            let blob = &blobs[index];
            let unit = || companions.unit(index).map(|index| &blobs[index]);
            let last_used = unit().map(Blob::last_used).max().unwrap_or(self.now).min(self.now);
            let size_bytes = unit().map(|blob| blob.size_bytes).fold(0, u64::saturating_add);
            // If a manifest cannot be read, it may reference any blob of the layout.
            let is_referenced = *count > 0 || !all_known && self.plan.is_nested(blob);
            let keep = if pinned[index] || self.policy.keep.has_blob(&blob.digest) {
                Some(Keep::Pinned)
            } else if let Some(reason) = self.not_corrupt(index) {
                Some(reason)
            } else if is_referenced && (!self.policy.corrupt || self.policy.unreferenced) {
                Some(Keep::Referenced)
            } else if self.policy.selects_images() {
                Some(Keep::Unselected)
            } else if self.may_be_entered(blob) {
                Some(Keep::Recent)
            } else {
                self.too_recent(last_used)
            };
            match keep {
                Some(reason) => {
                    let fates = &mut self.plan.blob_fates;
                    companions.unit(index).for_each(|index| fates[index] = Fate::Keep(reason));
                }
                None => candidates.push(Candidate::new(self.plan, last_used, size_bytes, What::Blob(index))),
            }
        }
        self.add_partials(&mut candidates);
        if !self.policy.unreferenced && !self.policy.corrupt {
            self.add_images(&mut candidates);
        }
        candidates
    }

    /// For each blob, whether a pinned image needs it.
    fn pinned_by_images(&self, blobs: usize) -> Vec<bool> {
        let mut pinned = vec![false; blobs];
        let inventory = &self.plan.inventory;
        for image in
            inventory.references.images.iter().filter(|image| self.policy.keep.need(image, inventory))
        {
            image.blobs.iter().for_each(|&blob| pinned[blob] = true);
        }
        pinned
    }

    fn add_partials(&mut self, candidates: &mut Vec<Candidate>) {
        for index in 0..self.plan.partial_fates.len() {
            if let Some(fate) = self.settled.partial(index) {
                self.plan.partial_fates[index] = fate;
                continue;
            }
            let partial = &self.plan.inventory.tree.partials[index];
            let (last_used, size_bytes) = (partial.last_used().min(self.now), partial.size_bytes());
            let keep = if self.policy.corrupt {
                Some(Keep::Intact)
            } else if self.policy.selects_images() {
                Some(Keep::Unselected)
            } else {
                self.too_recent(last_used)
            };
            match keep {
                Some(reason) => self.plan.partial_fates[index] = Fate::Keep(reason),
                None => {
                    candidates.push(Candidate::new(self.plan, last_used, size_bytes, What::Partial(index)))
                }
            }
        }
    }

    /// Adds the images that pass the filters as a whole. An incomplete image is kept, because it is
    /// unknown which blobs belong to it. If the policy says that such an image stays, all others stay too: any blob
    /// may belong to it.
    fn add_images(&mut self, candidates: &mut Vec<Candidate>) {
        let references = &self.plan.inventory.references;
        let shared = references.shared(self.plan.blob_fates.len());
        let may_need_any =
            references.images.iter().any(|image| !image.is_complete && self.may_be_kept(image));
        for index in 0..references.images.len() {
            let image = &self.plan.inventory.references.images[index];
            let blobs = || image.blobs.iter().map(|&blob| &self.plan.inventory.tree.blobs[blob]);
            let size_bytes = blobs().map(|blob| blob.size_bytes).fold(0, u64::saturating_add);
            let last_used = self.plan.inventory.last_use_of(image, &shared);
            let last_used = last_used.map_or(Timestamp(i64::MIN), |last_used| last_used.min(self.now));
            let keep = if self.policy.keep.need(image, &self.plan.inventory) {
                Some(Keep::Pinned)
            } else if let Some(fate) = image.blobs.iter().find_map(|blob| self.settled.blob(*blob)) {
                Some(if let Fate::Keep(reason) = fate { reason } else { Keep::Referenced })
            } else if !self.policy.selects(image) {
                Some(Keep::Unselected)
            } else if !image.is_complete || may_need_any {
                Some(Keep::Referenced)
            } else {
                self.too_recent(last_used)
            };
            let Some(reason) = keep else {
                candidates.push(Candidate::new(self.plan, last_used, size_bytes, What::Image(index)));
                continue;
            };
            for &blob in &self.plan.inventory.references.images[index].blobs {
                let fate = &mut self.plan.blob_fates[blob];
                // The strongest reason wins: a pin, then recent use, then a reference.
                let is_pinned = reason == Keep::Pinned && self.settled.blob(blob).is_none();
                if *fate == Fate::Keep(Keep::Referenced) || is_pinned {
                    *fate = Fate::Keep(reason);
                }
            }
        }
    }

    /// Whether an incomplete image may be one that is pinned, or that the prune is not for.
    fn may_be_kept(&self, image: &Image) -> bool {
        let Policy { keep, .. } = self.policy;
        keep.has_digests() || keep.need(image, &self.plan.inventory) || !self.policy.selects(image)
    }

    /// If the policy removes only corrupt blobs, why this blob is not one of them.
    fn not_corrupt(&self, index: usize) -> Option<Keep> {
        if !self.policy.corrupt {
            return None;
        }
        match self.plan.inventory.findings.as_ref().map(|findings| findings.get(&index)) {
            Some(Some(Finding::Corrupt { .. })) => None,
            Some(Some(Finding::InUse)) => Some(Keep::InUse),
            Some(Some(Finding::Changed)) => Some(Keep::Changed),
            Some(None) => Some(Keep::Intact),
            Some(Some(Finding::Unread)) | None => Some(Keep::Unread),
        }
    }

    /// Whether a pull may have written the blob and not yet entered it into the index. An age in the policy decides
    /// instead.
    fn may_be_entered(&self, blob: &Blob) -> bool {
        let is_decided_by_age = !self.policy.unreferenced || self.policy.older_than.is_some();
        !is_decided_by_age && blob.modified > self.now.before(NOT_YET_ENTERED)
    }

    fn too_recent(&self, last_used: Timestamp) -> Option<Keep> {
        self.policy.is_too_recent(last_used, self.now).then_some(Keep::Recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PruneReport;
    use crate::cache::digest::Digest;
    use crate::cache::digest::Spelling;
    use crate::cache::idle::Idleness;
    use crate::cache::inventory::Directory;
    use crate::cache::names::Place;
    use crate::cache::references::References;
    use crate::os::status::Status;
    use crate::plan::amount::Amount;
    use crate::plan::pins::{Pin, Pins};
    use proptest::prelude::*;
    use std::os::fd::{AsFd as _, OwnedFd};

    const NOW: Timestamp = Timestamp(1_000_000);

    /// A flat cache with one blob for each last use and size.
    fn inventory(blobs: &[(i64, u64)]) -> Inventory {
        // It is gone at once, but stays open, and whoever runs this may write to it.
        let root = tempfile::tempdir().unwrap();
        let root = OwnedFd::from(std::fs::File::open(root.path()).unwrap());
        let status = Status::of_descriptor(root.as_fd()).unwrap();
        let blob = |(index, (used, size_bytes)): (usize, &(i64, u64))| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&index.to_be_bytes());
            Blob {
                digest: Digest::Sha256(digest),
                size_bytes: *size_bytes,
                disk_bytes: size_bytes.checked_next_multiple_of(4096).unwrap_or(u64::MAX),
                modified: Timestamp(*used),
                accessed: Timestamp(*used),
                changed: Timestamp(*used),
                inode: index as u64,
                links: 1,
                directory: 0,
                spelling: Spelling::Colon,
                is_lower: false,
            }
        };
        let blobs = blobs.iter().enumerate().map(blob).collect();
        let directories = vec![Directory { descriptor: root, path: "/".into(), place: Place::Root, status }];
        Inventory {
            path: "/".into(),
            tree: Tree { directories, blobs, ..Tree::default() },
            leftovers: Vec::new(),
            idleness: Idleness::default(),
            references: References::default(),
            findings: None,
        }
    }

    fn plan(blobs: &[(i64, u64)], policy: &Policy, space: Space) -> PrunePlan {
        select(inventory(blobs), policy, NOW, space).unwrap()
    }

    /// The indexes of the blobs to be removed.
    fn goes(plan: &PrunePlan) -> Vec<usize> {
        let fates = plan.blobs().enumerate();
        fates.filter(|(_, (_, fate))| fate.goes()).map(|(index, _)| index).collect()
    }

    fn budget(bytes: u64) -> Policy {
        Policy { max_used: Some(Amount::Bytes(bytes)), ..Policy::default() }
    }

    fn older_than(nanoseconds: u64) -> Policy {
        Policy { older_than: Some(Duration::from_nanos(nanoseconds)), ..Policy::default() }
    }

    #[test]
    fn an_age_is_met_exactly() {
        let blobs = [(999_900, 1), (999_899, 1), (999_901, 1), (1_000_000, 1), (2_000_000, 1), (i64::MAX, 1)];
        assert_eq!(goes(&plan(&blobs, &older_than(100), Space::default())), [0, 1]);
        assert_eq!(goes(&plan(&blobs, &older_than(0), Space::default())), [0, 1, 2, 3, 4, 5]);
        assert_eq!(goes(&plan(&blobs, &older_than(u64::MAX), Space::default())), [0; 0]);
    }

    #[test]
    fn a_budget_takes_the_least_recently_used_then_the_larger_then_by_digest() {
        let blobs = [(5, 10), (3, 10), (5, 20), (5, 10), (9, 10)];
        let order = [50, 40, 30, 10, 0]
            .map(|budget_bytes| goes(&plan(&blobs, &budget(budget_bytes), Space::default())));
        assert_eq!(order[0], [1]);
        assert_eq!(order[1], [1, 2]);
        assert_eq!(order[2], [1, 2]);
        assert_eq!(order[3], [0, 1, 2, 3]);
        assert_eq!(order[4], [0, 1, 2, 3, 4]);
        assert_eq!(goes(&plan(&blobs, &budget(60), Space::default())), [0; 0]);
        assert_eq!(goes(&plan(&[], &budget(0), Space::default())), [0; 0]);
        assert_eq!(goes(&plan(&[(0, u64::MAX), (1, u64::MAX)], &budget(u64::MAX), Space::default())), [0; 0]);
    }

    #[test]
    fn free_space_counts_what_is_freed_on_disk() {
        let blobs = [(1, 1), (2, 1), (3, 1)];
        let space = Space { available_bytes: 10_000, total_bytes: 100_000 };
        let free =
            |min_free| goes(&plan(&blobs, &Policy { min_free: Some(min_free), ..Policy::default() }, space));
        assert_eq!(free(Amount::Bytes(10_000)), [0; 0]);
        assert_eq!(free(Amount::Bytes(10_001)), [0]);
        assert_eq!(free(Amount::Bytes(14_096)), [0]);
        assert_eq!(free(Amount::Bytes(14_097)), [0, 1]);
        assert_eq!(free(Amount::Percent(10)), [0; 0]);
        assert_eq!(free(Amount::Percent(15)), [0, 1]);
        assert_eq!(free(Amount::Percent(100)), [0, 1, 2]);
    }

    #[test]
    fn a_share_of_the_file_system_is_a_budget_too() {
        let blobs = [(1, 100), (2, 100), (3, 100)];
        let space = Space { available_bytes: 0, total_bytes: 1000 };
        let used = |percent| {
            let policy = Policy { max_used: Some(Amount::Percent(percent)), ..Policy::default() };
            goes(&plan(&blobs, &policy, space))
        };
        assert_eq!(used(30), [0; 0]);
        assert_eq!(used(29), [0]);
        assert_eq!(used(10), [0, 1]);
        assert_eq!(used(0), [0, 1, 2]);
    }

    #[test]
    fn hard_links_free_nothing_until_the_last_goes() {
        let mut inventory = inventory(&[(1, 1), (2, 1), (3, 1)]);
        for blob in &mut inventory.tree.blobs[..2] {
            (blob.inode, blob.links) = (7, 2);
        }
        let space = Space { available_bytes: 0, total_bytes: 100_000 };
        let policy = Policy { min_free: Some(Amount::Bytes(1)), ..Policy::default() };
        assert_eq!(goes(&select(inventory, &policy, NOW, space).unwrap()), [0, 1]);
    }

    fn any_blobs() -> impl Strategy<Value = Vec<(i64, u64)>> {
        prop::collection::vec((0..1_000_100i64, 0..10_000u64), 0..40)
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        let age = prop::option::of(0..1_000_000u64);
        let free = prop::option::of(0..300_000u64);
        (age, prop::option::of(0..200_000u64), free, prop::bool::ANY).prop_map(|(age, used, free, pins)| {
            let mut keep = Pins::default();
            keep.extend(pins.then(|| Pin { digests: vec![Digest::Sha256([0; 32])], ..Pin::default() }));
            Policy {
                older_than: age.map(Duration::from_nanos),
                keep,
                max_used: used.map(Amount::Bytes),
                min_free: free.map(Amount::Bytes),
                ..Policy::default()
            }
        })
    }

    const SPACE: Space = Space { available_bytes: 50_000, total_bytes: 1_000_000 };

    proptest! {
        #[test]
        fn what_goes_and_what_stays_are_the_whole(blobs in any_blobs(), policy in any_policy()) {
            let PruneReport { kept, blobs_freed, bytes_freed, .. } = plan(&blobs, &policy, SPACE).preview();
            let tallies = kept.by_reason();
            let (kept_blobs, kept_bytes) = tallies.iter().fold((0, 0), |(blobs, bytes), (_, tally)| (blobs + tally.blobs, bytes + tally.bytes));
            prop_assert_eq!(kept_blobs + blobs_freed, blobs.len() as u64);
            prop_assert_eq!(kept_bytes + bytes_freed, blobs.iter().map(|(_, size)| size).sum::<u64>());
        }

        #[test]
        fn goals_are_met_and_not_overshot(blobs in any_blobs(), policy in any_policy()) {
            prop_assume!(policy.has_goal());
            let everything = plan(&blobs, &Policy { max_used: None, min_free: None, ..policy.clone() }, SPACE);
            let plan = plan(&blobs, &policy, SPACE);
            let used = |report: &PruneReport| blobs.iter().map(|(_, size)| size).sum::<u64>() - report.bytes_freed;
            let is_met = |report: &PruneReport| {
                policy.max_used.is_none_or(|max| used(report) <= max.bytes_of(SPACE))
                    && policy.min_free.is_none_or(|free| SPACE.available_bytes + report.disk_bytes_freed >= free.bytes_of(SPACE))
            };
            let preview = plan.preview();
            prop_assert_eq!(is_met(&preview), is_met(&everything.preview()), "met exactly when it can be");
            // If the last blob were not removed, the goal would not be met.
            let last = goes(&plan).into_iter().max_by_key(|&index| {
                let blob = &plan.inventory.tree.blobs[index];
                (blob.last_used().min(NOW), std::cmp::Reverse(blob.size_bytes), blob.digest.clone())
            });
            if let Some(last) = last {
                let blob = &plan.inventory.tree.blobs[last];
                let mut before = preview;
                before.bytes_freed -= blob.size_bytes;
                before.disk_bytes_freed -= blob.disk_bytes;
                prop_assert!(!is_met(&before));
            }
        }

        #[test]
        fn the_order_of_the_scan_does_not_matter(blobs in any_blobs(), policy in any_policy(), seed in any::<u64>()) {
            let straight = plan(&blobs, &policy, SPACE);
            let mut shuffled = inventory(&blobs);
            shuffled.tree.blobs.sort_by_key(|blob| blob.inode.wrapping_add(1).wrapping_mul(seed | 1));
            let shuffled = select(shuffled, &policy, NOW, SPACE).unwrap();
            let digests = |plan: &PrunePlan| {
                let mut fates: Vec<_> = plan.blobs().map(|(blob, fate)| (blob.digest.clone(), fate)).collect();
                fates.sort_by(|left, right| left.0.cmp(&right.0));
                fates
            };
            prop_assert_eq!(digests(&straight), digests(&shuffled));
        }

        #[test]
        fn a_larger_budget_never_frees_more(blobs in any_blobs(), less in 0..200_000u64, more in 0..200_000u64) {
            let freed = |max| plan(&blobs, &budget(max), SPACE).preview().bytes_freed;
            prop_assert!(freed(less.max(more)) <= freed(less.min(more)));
        }

        #[test]
        fn a_met_goal_frees_nothing(blobs in any_blobs(), room in 0..1000u64) {
            let used = blobs.iter().map(|(_, size)| size).sum::<u64>();
            let policy = Policy { min_free: Some(Amount::Bytes(SPACE.available_bytes - room)), ..budget(used + room) };
            prop_assert_eq!(plan(&blobs, &policy, SPACE).preview().blobs_freed, 0);
        }
    }
}
