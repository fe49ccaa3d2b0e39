//! Finds out whether a partial is idle, before it is removed.
//!
//! Guarantees: a partial is idle only if nobody has one of its files open, nobody holds its directory locked (umoci
//! does), and nothing of it changed since the scan. Nothing is followed.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::cache::partial::Partial;
use crate::os::directory::open_directory;
use crate::os::lease::{Probe, probe_patiently};
use crate::os::status::Status;
use crate::os::watch::Watch;

/// What [`Partial::look`] found.
#[derive(Debug)]
pub(crate) enum Look {
    /// It may go. If it is a directory, it is held open and, where that works, locked.
    Idle { opened: Option<OwnedFd>, unprobed: u64 },
    /// Somebody has it open or locked.
    InUse,
    /// It is not what the scan saw.
    Changed,
    /// It is not there any more.
    Gone,
    /// It could not be found out.
    Failed(Errno),
}

impl Partial {
    /// Finds out whether the partial is idle and still what the scan saw. The watch is that of the directory.
    pub(crate) fn look(&self, directory: BorrowedFd<'_>, watch: Option<(&Watch, usize)>) -> Look {
        match self.try_look(directory, watch) {
            Ok(look) => look,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Look::Gone,
            Err(errno) => Look::Failed(errno),
        }
    }

    fn try_look(&self, directory: BorrowedFd<'_>, watch: Option<(&Watch, usize)>) -> Result<Look, Errno> {
        if !self.status.is_directory() {
            let (looks, unprobed) = self.look_at_files(directory, watch)?;
            return Ok(looks.unwrap_or(Look::Idle { opened: None, unprobed }));
        }
        let (opened, status) = open_directory(directory, &self.name)?;
        if status.id != self.status.id || status.modified != self.status.modified {
            return Ok(Look::Changed);
        }
        if flock(&opened, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Ok(Look::InUse);
        }
        let (looks, unprobed) = self.look_at_files(opened.as_fd(), None)?;
        Ok(looks.unwrap_or(Look::Idle { opened: Some(opened), unprobed }))
    }

    /// The reason to keep the files, if there is one, and how many of them could not be probed.
    fn look_at_files(
        &self,
        holder: BorrowedFd<'_>,
        watch: Option<(&Watch, usize)>,
    ) -> Result<(Option<Look>, u64), Errno> {
        let mut unprobed = 0;
        for file in &self.files {
            let lease = match probe_patiently(holder, &file.name, watch) {
                Probe::Idle(lease) => Some(lease),
                Probe::Unknown => {
                    unprobed += 1;
                    None
                }
                Probe::InUse(_) | Probe::Leased => return Ok((Some(Look::InUse), 0)),
                Probe::Gone => return Ok((Some(Look::Gone), 0)),
                Probe::Failed(errno) => return Err(errno),
            };
            let now = Status::of_entry(holder, &file.name)?;
            drop(lease);
            if !is_same(&now, &file.status) {
                return Ok((Some(Look::Changed), 0));
            }
        }
        Ok((None, unprobed))
    }
}

/// Whether this is the scanned file, unchanged. A file that lost another of its names is the same: that moves its change
/// time too.
pub(crate) fn is_same(now: &Status, scanned: &Status) -> bool {
    let stamps = |status: &Status| (status.id, status.size_bytes, status.modified);
    stamps(now) == stamps(scanned) && (now.changed == scanned.changed || now.links < scanned.links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::status::Timestamp;

    #[test]
    fn only_a_read_leaves_a_file_the_same() {
        let scanned = Status::of_descriptor(tempfile::tempfile().unwrap().as_fd()).unwrap();
        let mut now = scanned;
        now.accessed = Timestamp(now.accessed.0 + 1);
        assert!(is_same(&now, &scanned));
        let changes: [fn(&mut Status); 5] = [
            |status| status.id.inode += 1,
            |status| status.id.device.1 += 1,
            |status| status.size_bytes += 1,
            |status| status.modified.0 += 1,
            |status| status.changed.0 += 1,
        ];
        for change in changes {
            let mut now = scanned;
            change(&mut now);
            assert!(!is_same(&now, &scanned), "{now:?}");
        }
    }
}
