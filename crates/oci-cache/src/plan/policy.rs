//! The policy: filters that limit what may be removed, and goals at which the prune stops.

use std::time::Duration;

use crate::cache::references::Image;
use crate::os::status::Timestamp;
use crate::plan::amount::Amount;
use crate::plan::fate::Remove;
use crate::plan::pins::Pins;

/// The usual value of [`Policy::grace`]: an ordinary pull is shorter.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(3600);

/// Which entries may be removed, and when to stop. By default, all are removed.
///
/// Start from [`Policy::default`] and set what is wanted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// Remove only entries that were neither written nor read for at least this long.
    pub older_than: Option<Duration>,
    /// Remove only blobs that the layout's index does not reference. Unless [`older_than`](Self::older_than) is set,
    /// keep those that were written within the last hour: a pull may not have entered them into the index yet.
    pub unreferenced: bool,
    /// Remove only blobs that [`crate::verify()`] found corrupt; none if the inventory was not verified.
    /// Index entries that reference a corrupt blob are removed from the layout's index; the other blobs
    /// of those images stay.
    pub corrupt: bool,
    /// Keep what these pin.
    pub keep: Pins,
    /// Remove only images that one of these names, or is the digest of their manifest, index or config; with `untagged`,
    /// or images without a name. Leftovers, partials and unreferenced blobs stay.
    pub images: Pins,
    /// Remove only images without a name, and those in `images`.
    pub untagged: bool,
    /// Stop when the total logical size of the cache's files is at most this.
    pub max_used: Option<Amount>,
    /// Stop when the file system has at least this much free space.
    pub min_free: Option<Amount>,
    /// While a pull is under way, remove only entries that have certainly been idle for this long: neither written
    /// nor read, where a read would have been recorded. With zero, keep only files that are open, or that are used
    /// from the moment when the prune begins to look for pulls.
    pub grace: Duration,
    /// Remove nothing on trust. What cannot be probed for users stays, and so do its companions and images. The prune
    /// looks for pulls in any case, and refuses to begin if the kernel cannot confine it.
    pub strict: bool,
    /// Watch the cache for the grace before anything is removed. What nobody uses meanwhile has certainly been idle for so
    /// long, whatever the mount records. Without need, or where a watch does not see every use, the prune does not wait.
    pub watch_first: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            older_than: None,
            unreferenced: false,
            corrupt: false,
            keep: Pins::default(),
            images: Pins::default(),
            untagged: false,
            max_used: None,
            min_free: None,
            grace: DEFAULT_GRACE,
            strict: false,
            watch_first: false,
        }
    }
}

impl Policy {
    /// Whether the policy removes everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        let has_filter =
            self.older_than.is_some() || self.unreferenced || self.corrupt || self.selects_images();
        !has_filter && self.keep.is_empty() && !self.has_goal()
    }

    /// Whether the policy removes only certain images.
    #[must_use]
    pub fn selects_images(&self) -> bool {
        self.untagged || !self.images.is_empty()
    }

    /// Whether the policy may remove this image.
    pub(crate) fn selects(&self, image: &Image) -> bool {
        !self.selects_images() || self.images.mean(image) || self.untagged && image.names().next().is_none()
    }

    /// Whether the policy has a goal.
    #[must_use]
    pub const fn has_goal(&self) -> bool {
        self.max_used.is_some() || self.min_free.is_some()
    }

    /// Whether the policy depends on the index's references. A prune of everything does not.
    pub(crate) fn wants_references(&self) -> bool {
        !self.is_everything()
    }

    /// Whether an entry used at this time stays for its age.
    pub(crate) fn is_too_recent(&self, last_used: Timestamp, now: Timestamp) -> bool {
        self.older_than.is_some_and(|age| last_used > now.before(age))
    }

    /// Why an entry goes, if no goal stops it.
    pub(crate) fn reason(&self) -> Remove {
        if self.corrupt {
            Remove::Corrupt
        } else if self.max_used.is_some() {
            Remove::OverBudget
        } else if self.min_free.is_some() {
            Remove::LowSpace
        } else if self.unreferenced {
            Remove::Unreferenced
        } else if self.selects_images() {
            Remove::Selected
        } else if self.older_than.is_some() {
            Remove::Old
        } else {
            Remove::Everything
        }
    }
}
