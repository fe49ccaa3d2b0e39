//! The last look at a blob: renames it to a hidden name, looks whether somebody opened it, and only then removes it.
//!
//! Guarantees: whoever found the name before it was hidden, and opens the file, waits for the lease. That is seen, and
//! the file gets its name back before the lease ends. Whoever looks the name up while it is hidden finds nothing, as
//! after the removal. A file that took the blob's place at the last moment gets its name back too. A prune that is
//! killed in between leaves the hidden name, which the next prune removes as a partial.
//!
//! What it does not guarantee: where the name cannot be hidden, as on a full disk or where renaming without replacing
//! is not supported, it is removed at once. So a process that had found the name, and was about to open the file, gets
//! it, but does not find the name again. A process that found the name and did not run on in the kernel until the
//! file was removed is in the same position.
//!
//! Source: Linux's `fs/open.c` (`do_dentry_open` counts the reader, then waits for leases) and `fs/locks.c`
//! (`check_conflicting_open`).

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::cache::names;
use crate::os::lease::is_awaited;
use crate::os::status::{FileId, Status};

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unlinked {
    Removed,
    /// Somebody opens the file, so it keeps the name.
    Opened,
    /// Another file has taken the place, and keeps the name.
    Replaced,
}

/// Removes the name of the file `id`, on which this process holds a write lease.
///
/// # Errors
///
/// If the name cannot be removed, or not be given back.
pub(crate) fn unlink(
    directory: BorrowedFd<'_>,
    name: &CStr,
    lease: BorrowedFd<'_>,
    id: FileId,
) -> Result<Unlinked, Errno> {
    let hidden = names::hidden(name, id.inode);
    match renameat_with(directory, name, directory, &hidden, RenameFlags::NOREPLACE) {
        Ok(()) => remove_hidden(directory, &hidden, name, lease, id),
        Err(Errno::NOENT) => Err(Errno::NOENT),
        Err(_) => unlinkat(directory, name, AtFlags::empty()).map(|()| Unlinked::Removed),
    }
}

/// Removes a hidden name, unless somebody opened the file by its own name.
fn remove_hidden(
    directory: BorrowedFd<'_>,
    hidden: &CStr,
    name: &CStr,
    lease: BorrowedFd<'_>,
    id: FileId,
) -> Result<Unlinked, Errno> {
    let reason = if Status::of_entry(directory, hidden).is_ok_and(|status| status.id != id) {
        Unlinked::Replaced
    } else if is_awaited(lease) {
        Unlinked::Opened
    } else {
        let removed = unlinkat(directory, hidden, AtFlags::empty());
        if let Err(errno) = removed {
            give_back(directory, hidden, name)?;
            return Err(errno);
        }
        return Ok(Unlinked::Removed);
    };
    match give_back(directory, hidden, name) {
        Ok(()) => Ok(reason),
        // A new file has this name by now.
        Err(Errno::EXIST) => unlinkat(directory, hidden, AtFlags::empty()).map(|()| Unlinked::Removed),
        Err(errno) => Err(errno),
    }
}

fn give_back(directory: BorrowedFd<'_>, hidden: &CStr, name: &CStr) -> Result<(), Errno> {
    renameat_with(directory, hidden, directory, name, RenameFlags::NOREPLACE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::path::{Path, PathBuf};
    use std::thread;

    use crate::os::lease::{Probe, is_undisturbed, probe};

    const NAME: &CStr = c"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A directory with one blob, which is leased.
    struct Fixture {
        directory: tempfile::TempDir,
        root: File,
        path: PathBuf,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(NAME.to_str().unwrap());
            fs::write(&path, "content").unwrap();
            Self { root: File::open(directory.path()).unwrap(), directory, path }
        }

        fn status(&self) -> Status {
            Status::of_entry(self.root.as_fd(), NAME).unwrap()
        }

        fn hidden(&self) -> PathBuf {
            self.directory.path().join(names::hidden(NAME, self.status().id.inode).to_str().unwrap())
        }

        /// Takes the lease, lets `meanwhile` act, and removes the name.
        fn unlink(&self, meanwhile: impl FnOnce(BorrowedFd<'_>)) -> Result<Unlinked, Errno> {
            let id = self.status().id;
            let Probe::Idle(lease) = probe(self.root.as_fd(), NAME, None) else { panic!("it is idle") };
            meanwhile(lease.as_fd());
            unlink(self.root.as_fd(), NAME, lease.as_fd(), id)
        }

        fn files(&self) -> Vec<String> {
            let names = fs::read_dir(self.directory.path()).unwrap();
            let mut names: Vec<_> =
                names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort_unstable();
            names
        }
    }

    fn name_of(path: &Path) -> String {
        path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_name_that_nobody_opens_goes() {
        let fixture = Fixture::new();
        assert_eq!(fixture.unlink(|_| ()), Ok(Unlinked::Removed));
        assert_eq!(fixture.files(), [""; 0]);
        fs::write(&fixture.path, "content").unwrap();
        let gone = fixture.unlink(|_| unlinkat(&fixture.root, NAME, AtFlags::empty()).unwrap());
        assert_eq!(gone, Err(Errno::NOENT));
    }

    #[test]
    fn whoever_opens_the_file_finds_its_name_again() {
        let fixture = Fixture::new();
        let path = fixture.path.clone();
        thread::scope(|scope| {
            let unlinked = fixture.unlink(|lease| {
                scope.spawn(|| drop(File::open(&path).unwrap()));
                while is_undisturbed(lease) {
                    thread::yield_now();
                }
            });
            assert_eq!(unlinked, Ok(Unlinked::Opened));
        });
        assert_eq!(fixture.files(), [name_of(&path)]);
        assert_eq!(fs::read_to_string(path).unwrap(), "content");
    }

    #[test]
    fn a_file_that_took_the_place_stays() {
        let fixture = Fixture::new();
        let new = fixture.directory.path().join("new");
        fs::write(&new, "new content").unwrap();
        let unlinked = fixture.unlink(|_| fs::rename(&new, &fixture.path).unwrap());
        assert_eq!(unlinked, Ok(Unlinked::Replaced));
        assert_eq!(fixture.files(), [name_of(&fixture.path)]);
        assert_eq!(fs::read_to_string(&fixture.path).unwrap(), "new content");
    }

    #[test]
    fn a_name_that_cannot_be_hidden_goes_at_once() {
        let fixture = Fixture::new();
        let hidden = fixture.hidden();
        fs::write(&hidden, "somebody else's").unwrap();
        assert_eq!(fixture.unlink(|_| ()), Ok(Unlinked::Removed));
        assert_eq!(fixture.files(), [name_of(&hidden)]);
        assert_eq!(fs::read_to_string(hidden).unwrap(), "somebody else's");
    }

    #[test]
    fn a_name_is_not_given_back_over_a_new_file() {
        let fixture = Fixture::new();
        let (id, hidden) = (fixture.status().id, names::hidden(NAME, fixture.status().id.inode));
        thread::scope(|scope| {
            let Probe::Idle(lease) = probe(fixture.root.as_fd(), NAME, None) else { panic!("it is idle") };
            let opener = scope.spawn(|| fs::read_to_string(&fixture.path).unwrap());
            while is_undisturbed(lease.as_fd()) {
                thread::yield_now();
            }
            fs::rename(&fixture.path, fixture.hidden()).unwrap();
            fs::write(&fixture.path, "new content").unwrap();
            let unlinked = remove_hidden(fixture.root.as_fd(), &hidden, NAME, lease.as_fd(), id);
            assert_eq!(unlinked, Ok(Unlinked::Removed));
            drop(lease);
            assert_eq!(opener.join().unwrap(), "content", "the opener has the old file");
        });
        assert_eq!(fixture.files(), [name_of(&fixture.path)]);
        assert_eq!(fs::read_to_string(&fixture.path).unwrap(), "new content");
    }
}
