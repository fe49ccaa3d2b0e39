//! Others who take the cache's lock during a prune: beside readers who share it, or while the prune watches first.
//!
//! Guarantees: once a lock shows that is not one of those readers', nothing more is removed, whatever its age. The prune
//! looks under the lease of each blob, before each partial and before it changes the index.
//!
//! What it does not guarantee: of what a puller looks up without opening it, within microseconds after it took the lock,
//! one blob for each thread may go. An index that is being changed at that moment changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::os::readers::Readers;

/// Looks out for others who take the lock, if readers share it with this prune.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    readers: Option<Arc<Readers>>,
    have_come: AtomicBool,
}

impl Newcomers {
    /// Looks out for others than these readers.
    pub(crate) fn beside(readers: Option<Arc<Readers>>) -> Self {
        Self { readers, have_come: AtomicBool::new(false) }
    }

    /// Notes that somebody else has taken the lock.
    pub(crate) fn note(&self) {
        self.have_come.store(true, Ordering::Relaxed);
    }

    /// Whether readers share the lock with this prune.
    pub(crate) const fn are_looked_for(&self) -> bool {
        self.readers.is_some()
    }

    /// Looks whether somebody else has taken the lock. Returns whether anybody ever had.
    pub(crate) fn look(&self) -> bool {
        if self.readers.as_deref().is_some_and(Readers::has_newcomer) {
            self.note();
        }
        self.have_come()
    }

    /// Whether somebody else had taken the lock at the last look.
    pub(crate) fn have_come(&self) -> bool {
        self.have_come.load(Ordering::Relaxed)
    }
}
