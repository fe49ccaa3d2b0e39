//! What earlier rounds of a prune have settled.
//!
//! Guarantees: pure. What went stays gone, and what could not go is not tried again.

use crate::plan::fate::Fate;

/// The fates that are decided already, by index into the inventory.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    blobs: Vec<Option<Fate>>,
    partials: Vec<Option<Fate>>,
    /// Whether leftovers are done with.
    pub(crate) are_leftovers_done: bool,
}

impl Settled {
    /// The fate of a blob.
    pub(crate) fn blob(&self, index: usize) -> Option<Fate> {
        self.blobs.get(index).copied().flatten()
    }

    /// The fate of a partial.
    pub(crate) fn partial(&self, index: usize) -> Option<Fate> {
        self.partials.get(index).copied().flatten()
    }

    /// Settles the fate of a blob, unless it is settled.
    pub(crate) fn settle_blob(&mut self, index: usize, fate: Fate) {
        settle(&mut self.blobs, index, fate);
    }

    /// Settles the fate of a partial, unless it is settled.
    pub(crate) fn settle_partial(&mut self, index: usize, fate: Fate) {
        settle(&mut self.partials, index, fate);
    }
}

fn settle(fates: &mut Vec<Option<Fate>>, index: usize, fate: Fate) {
    if fates.len() <= index {
        fates.resize(index + 1, None);
    }
    fates[index].get_or_insert(fate);
}
