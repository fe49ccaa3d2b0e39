//! Gives a layout's `index.json` back to another process, if a prune was killed right after it had taken its place.
//!
//! Guarantees: a prune exchanges its new index with the old one, then looks at what came out, under a name that tells which
//! file is the new one. If it was killed, or failed, before it could give back an index of another process, the file of
//! that name is that index, or the old one. No blob was removed that either leads to, so it gets its place back. If another
//! process has replaced the new index since, nothing happens. Nobody else prunes meanwhile: this needs the cache's lock.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::cache::names::{INDEX, index_draft};
use crate::os::birth::status_and_birth;
use crate::os::status::Status;

/// Gives an index its place back. Returns whether there was one.
pub(crate) fn give_back(root: BorrowedFd<'_>) -> Result<bool, Errno> {
    let (status, born) = match status_and_birth(root, INDEX) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    let name = index_draft(status.id.inode, born);
    match Status::of_entry(root, &name) {
        Ok(displaced) if displaced.is_regular_file() => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    let swap = || renameat_with(root, &name, root, INDEX, RenameFlags::EXCHANGE);
    swap()?;
    if Status::of_entry(root, &name)?.id != status.id {
        // At this very moment, another process has replaced it.
        swap()?;
        return Ok(false);
    }
    unlinkat(root, &name, AtFlags::empty())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn only_what_the_new_index_has_displaced_gets_its_place_back() {
        let directory = tempfile::tempdir().unwrap();
        let (root, index) = (File::open(directory.path()).unwrap(), directory.path().join("index.json"));
        let give_back = || give_back(root.as_fd()).unwrap();
        assert!(!give_back());
        fs::write(&index, "new").unwrap();
        let (status, born) = status_and_birth(root.as_fd(), INDEX).unwrap();
        let name = index_draft(status.id.inode, born);
        let displaced = directory.path().join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        fs::write(&displaced, "displaced").unwrap();
        assert!(give_back() && !give_back());
        assert_eq!(fs::read_to_string(&index).unwrap(), "displaced");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

        // Another process has replaced the new one since.
        fs::write(&displaced, "superseded").unwrap();
        assert!(!give_back());
        assert_eq!(fs::read_to_string(&index).unwrap(), "displaced");

        // A link is no index.
        let (status, born) = status_and_birth(root.as_fd(), INDEX).unwrap();
        let name = index_draft(status.id.inode, born);
        let link = directory.path().join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        std::os::unix::fs::symlink(&displaced, link).unwrap();
        assert!(!give_back());
        assert_eq!(fs::read_to_string(&index).unwrap(), "displaced");
    }
}
