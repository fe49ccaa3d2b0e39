//! Reads when a file was made: the birth time, which no call can set.
//!
//! Guarantees: as [`crate::os::status`]. A file made anew has another birth time, even if it gets the inode number of an
//! old one and its other times are set to those of the old one.
//!
//! What it does not guarantee: that the file system keeps birth times. ext4 with inodes of 128 bytes, NFS and most FUSE
//! file systems do not. Two files made within the same tick of the kernel's clock, 1 to 10 milliseconds, may have the same
//! one.
//!
//! Source: `statx(2)`, `STATX_BTIME`.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::Errno;

use crate::os::status::{Status, Timestamp};

/// The status of the entry `name` of `directory`, and when it was made, if the file system tells.
pub(crate) fn status_and_birth(
    directory: BorrowedFd<'_>,
    name: &CStr,
) -> Result<(Status, Option<Timestamp>), Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let statx = rustix::io::retry_on_intr(|| statx(directory, name, flags, wanted))?;
    let is_told = StatxFlags::from_bits_retain(statx.stx_mask).contains(StatxFlags::BTIME);
    Ok((Status::from(&statx), is_told.then(|| Timestamp::from_statx(statx.stx_btime))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, FileTimes};
    use std::os::fd::AsFd as _;
    use std::time::{Duration, SystemTime};

    #[test]
    fn no_call_moves_it() {
        let directory = tempfile::tempdir().unwrap();
        let (root, path) = (File::open(directory.path()).unwrap(), directory.path().join("blob"));
        let before = tempfile::tempfile_in(directory.path()).unwrap();
        let before = Status::of_descriptor(before.as_fd()).unwrap().changed;
        fs::write(&path, "content").unwrap();
        let read = || status_and_birth(root.as_fd(), c"blob").unwrap();
        // Not every file system keeps it.
        let (status, born) = read();
        assert!(
            born.is_none_or(|born| born >= before && born <= status.changed),
            "{before:?} {born:?} {status:?}"
        );
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let times = FileTimes::new().set_accessed(then).set_modified(then);
        File::open(&path).unwrap().set_times(times).unwrap();
        fs::hard_link(&path, directory.path().join("other")).unwrap();
        let (status, again) = read();
        assert_eq!((status.modified, again), (then.into(), born));
        std::os::unix::fs::symlink("blob", directory.path().join("link")).unwrap();
        let (link, _) = status_and_birth(root.as_fd(), c"link").unwrap();
        assert_ne!(link.id, status.id, "no link is followed");
    }
}
