//! Watches the cache for the grace before anything is removed, so that the prune can go on beside uses that never end.
//!
//! Guarantees: what nobody was seen to use meanwhile, and nobody has open, has certainly been idle for the grace,
//! whatever the mount records. The prune does not wait if everything that is to go has certainly been idle for so long
//! anyway, or if the watch would not see every use. A stop ends the watch at once; then nothing is certain.
//!
//! What it does not guarantee: uses that a watch does not show; see [`crate::os::watch`].

use std::time::Duration;

use crate::cache::SETTLE;
use crate::plan::PrunePlan;
use crate::progress::{Progress, Stage};
use crate::prune::pulls::Pulls;
use crate::prune::spare::Idle;

impl PrunePlan {
    /// Whether applying this plan begins with a watch that is as long as the grace; see
    /// [`Policy::watch_first`](crate::Policy::watch_first).
    #[must_use]
    pub fn will_watch_first(&self) -> bool {
        self.watch_first
            && self.grace > SETTLE
            && self.inventory.idleness.is_watchable
            && Idle::of(self).spares_any()
    }
}

impl Pulls<'_> {
    /// Watches for this long, whatever it sees. Returns whether it did so to the end.
    pub(crate) fn watch_for(&self, duration: Duration, progress: &Progress) -> bool {
        self.watch().is_some() && {
            progress.enter(Stage::Watching);
            self.wait(duration, true, progress);
            !progress.is_stopped()
        }
    }
}
