//! The policy: what makes an entry go.
//!
//! Guarantees: [`select`] is pure. It reads no clock and no disk; the same inventory, policy and time
//! give the same plan.

use crate::inventory::Inventory;
use crate::plan::{Fate, PrunePlan, Remove};
use crate::status::Timestamp;

/// What makes an entry go. The default: everything goes.
#[derive(Clone, Debug, Default)]
pub struct Policy {}

/// Decides for each entry of the inventory whether it goes or stays, as of `now`.
#[must_use]
pub fn select(inventory: Inventory, _policy: &Policy, now: Timestamp) -> PrunePlan {
    let blob_fates = vec![Fate::Remove(Remove::Everything); inventory.tree.blobs.len()];
    let partial_fates = vec![Fate::Remove(Remove::Everything); inventory.tree.partials.len()];
    PrunePlan { inventory, planned_at: now, blob_fates, partial_fates }
}
