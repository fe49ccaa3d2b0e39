//! What a dry run can know of leftovers that could not be removed.
//!
//! Guarantees: as [`crate::plan::foresight`].

use std::os::fd::AsFd as _;

use crate::cache::leftover::Leftover;
use crate::error::Failure;
use crate::os::access::Removals;
use crate::os::status::Status;

impl Leftover {
    /// Why its files could not be removed.
    pub(crate) fn foresee_files(&self) -> Option<Failure> {
        let Ok(Removals::None(errno)) = self.open().map(|opened| Removals::from(opened.as_fd())) else {
            return None;
        };
        (self.total.blobs > 0).then(|| Failure::new("remove", self.path.clone(), errno))
    }

    /// Why its directory could not be removed, once it is empty.
    pub(crate) fn foresee_directory(&self) -> Option<Failure> {
        let status = || Status::of_entry(self.parent(), &self.name);
        let errno = Removals::from(self.parent()).refuse(status)?;
        Some(Failure::new("remove old oci cache", self.path.clone(), errno))
    }
}
