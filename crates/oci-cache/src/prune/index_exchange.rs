//! Puts a new `index.json` in the old one's place, unless somebody else does so at the same moment.
//!
//! Guarantees: no other process's index is lost. The two files exchange their names at once (`renameat2(2)`,
//! `RENAME_EXCHANGE`), and what comes out is compared with what was seen. If it is another index, it gets its name back;
//! if yet another one has taken that place meanwhile, the last one stays, as if this process had done nothing. Whoever
//! begins to write into the old file, or to open the new one, waits until that is decided: both are leased. If the
//! exchange is undone, whoever waits for the new file, or for one that had the name again only for a moment, reads the
//! index's content in it.
//!
//! If the process is killed meanwhile, or the file system fails, the next prune gives the index back: see
//! [`crate::cache::displaced_index`].
//!
//! What it does not guarantee: without leases (`CAP_LEASE`, or files of one's own), a process that opened the old file
//! for writing may write into it after it has lost its name. A process that found the name of the old file, and did not
//! run on in the kernel until this is over, is in the same position. Where names cannot be exchanged, there is an error.
//!
//! Source: `renameat2(2)`; Linux's `fs/open.c` (`do_dentry_open` counts the writer, then waits for leases).

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, fdatasync, ftruncate, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::{Errno, pwrite};

use crate::cache::names::{INDEX, index_draft, random_index};
use crate::os::attributes::copy_attributes;
use crate::os::birth::status_and_birth;
use crate::os::lease::{
    self, is_awaited, is_awaited_by_writer, is_written, lease_against_all, lease_against_writers,
    release_lease,
};
use crate::os::status::{FileId, Status};
use crate::scan::index::{Index, read_index};

/// How long to wait for somebody who found the old file's name before it was exchanged, and has not opened it yet.
const PATIENCE: Duration = Duration::from_millis(2);
/// How often to give those who wait for the new file what the index is, while others keep changing it.
const ATTEMPTS: usize = 64;

/// A file that is to take the index's place, under a temporary name beside it.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) name: CString,
    pub(crate) file: File,
    pub(crate) id: FileId,
}

/// Puts the draft in the old index's place. Returns false if the index is not the old one any more, or is about to be
/// changed: then it is as others left it. The temporary name goes in any case.
///
/// # Errors
///
/// `EINVAL` where names cannot be exchanged. If a file cannot be given its name back, the next prune does that; after any
/// other error, the index is as others left it.
pub(crate) fn exchange(root: BorrowedFd<'_>, old: &Index, draft: &Draft) -> Result<bool, Errno> {
    let is_leased = match lease_against_writers(old.file.as_fd()) {
        Ok(()) => true,
        Err(Errno::WOULDBLOCK) => {
            draft.discard(root);
            return Ok(false);
        }
        Err(_) => false,
    };
    let is_draft_leased = lease_against_all(draft.file.as_fd()).is_ok();
    let exchanged = exchange_leased(root, old, draft, is_leased, is_draft_leased);
    release_lease(draft.file.as_fd());
    release_lease(old.file.as_fd());
    exchanged
}

/// As [`exchange`], under the leases that could be had: one on the old index, one on the draft.
fn exchange_leased(
    root: BorrowedFd<'_>,
    old: &Index,
    draft: &Draft,
    is_leased: bool,
    is_draft_leased: bool,
) -> Result<bool, Errno> {
    if let Err(errno) = swap(root, draft) {
        draft.discard(root);
        return if errno == Errno::NOENT { Ok(false) } else { Err(errno) };
    }
    let came_out = Status::of_entry(root, &draft.name);
    let is_the_old_one = came_out.is_ok_and(|status| status.is_same_content(&old.status)) && {
        thread::sleep(PATIENCE);
        !(is_leased && is_written(old.file.as_fd())) && old.is_as_read()
    };
    if is_the_old_one {
        return draft.discard_displaced(root).map(|()| true);
    }
    give_back(root, draft)?;
    let served = if is_draft_leased { serve_waiting(root, draft) } else { Ok(()) };
    // After an error, the temporary name may be that of somebody's index.
    if served.is_ok() || Status::of_entry(root, &draft.name).is_ok_and(|status| status.id == draft.id) {
        draft.discard(root);
    }
    served.map(|()| false)
}

/// Takes the old index away, without another in its place. Returns false if it is not the old one any more, or is about
/// to be changed: then it is as others left it.
pub(crate) fn take_away(root: BorrowedFd<'_>, old: &Index, name: CString) -> Result<bool, Errno> {
    let is_leased = match lease_against_writers(old.file.as_fd()) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        leased => leased.is_ok(),
    };
    match renameat_with(root, INDEX, root, &name, RenameFlags::NOREPLACE) {
        Err(Errno::NOENT) => return Ok(false),
        taken => taken?,
    }
    thread::sleep(PATIENCE);
    let came_out = Status::of_entry(root, &name);
    let is_the_old_one = came_out.is_ok_and(|status| status.is_same_content(&old.status))
        && !(is_leased && is_written(old.file.as_fd()))
        && old.is_as_read();
    if !is_the_old_one {
        match renameat_with(root, &name, root, INDEX, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(false),
            // A newer one is there by now.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    if let Err(errno) = unlinkat(root, &name, AtFlags::empty()) {
        // Its entries lead to blobs that stay now.
        let _ = renameat_with(root, &name, root, INDEX, RenameFlags::NOREPLACE);
        return Err(errno);
    }
    Ok(is_the_old_one)
}

fn swap(root: BorrowedFd<'_>, draft: &Draft) -> Result<(), Errno> {
    renameat_with(root, &draft.name, root, INDEX, RenameFlags::EXCHANGE)
}

/// If somebody waits for the draft, they found it under the index's name, so it becomes a copy of the index. A process
/// that waits to write into it needs more: the draft also gets the index's name again, unless another process has replaced
/// it there.
fn serve_waiting(root: BorrowedFd<'_>, draft: &Draft) -> Result<(), Errno> {
    // Somebody may have found the name, and not have opened the file yet.
    thread::sleep(PATIENCE);
    for _ in 0..ATTEMPTS {
        if !is_awaited(draft.file.as_fd()) {
            break;
        }
        let Some(index) = read_index(root)? else { break };
        draft.become_copy(&index)?;
        let is_draft_there = Status::of_entry(root, &draft.name)?.id == draft.id;
        if is_draft_there && is_awaited_by_writer(draft.file.as_fd()) {
            swap(root, draft)?;
            // From here on, the draft's temporary name is that of the file that came out.
            if Status::of_entry(root, &draft.name)?.is_same_content(&index.status) {
                break;
            }
            give_back(root, draft)?;
        } else if Status::of_entry(root, INDEX).is_ok_and(|status| status.is_same_content(&index.status)) {
            break;
        }
    }
    Ok(())
}

/// Gives the file under the temporary name the index's name. If somebody has replaced the index meanwhile, theirs stays.
fn give_back(root: BorrowedFd<'_>, draft: &Draft) -> Result<(), Errno> {
    let (mut expected, mut exposed) = (draft.id, Vec::new());
    loop {
        let theirs = Exposed::open(root, &draft.name)?;
        let id = theirs.id;
        if let Err(errno) = swap(root, draft) {
            // The index was removed meanwhile, or the file system fails: this needs less of it.
            match renameat_with(root, &draft.name, root, INDEX, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                // A newer one is there by now.
                Err(Errno::EXIST) if errno == Errno::NOENT => continue,
                Err(_) => return Err(errno),
            }
        }
        exposed.push(theirs);
        if Status::of_entry(root, &draft.name)?.id == expected {
            break;
        }
        // That one was newer: it must have the name.
        expected = id;
    }
    // The last one is the index now. Whoever found an earlier one must not go on with that.
    exposed.pop();
    exposed.iter().try_for_each(|superseded| superseded.serve_waiting(root))
}

/// Another process's index that has the index's name again, perhaps only for a moment. While it is held, whoever opens it
/// waits, where it can be leased. No other file gets its inode number.
struct Exposed {
    file: OwnedFd,
    id: FileId,
    is_leased: bool,
}

impl Exposed {
    fn open(root: BorrowedFd<'_>, name: &CStr) -> Result<Self, Errno> {
        let open = |flags| openat(root, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let file = match open(OFlags::RDWR | OFlags::NONBLOCK) {
            Err(Errno::NOENT) => return Err(Errno::NOENT),
            Err(_) => open(OFlags::PATH)?,
            Ok(file) => file,
        };
        let id = Status::of_descriptor(file.as_fd())?.id;
        let started = Instant::now();
        let is_leased = loop {
            match lease_against_all(file.as_fd()) {
                // Whoever reads it closes it in a moment.
                Err(Errno::WOULDBLOCK) if started.elapsed() < lease::PATIENCE => thread::sleep(PATIENCE / 4),
                leased => break leased.is_ok(),
            }
        };
        Ok(Self { file, id, is_leased })
    }

    /// If somebody waits for it, they get the content of the index that has superseded it. A file with other names, such as
    /// that of a backup, stays as it is.
    fn serve_waiting(&self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.is_leased
            && is_awaited(self.file.as_fd())
            && Status::of_descriptor(self.file.as_fd())?.links <= 1
            && let Some(index) = read_index(root)?
        {
            write_content(self.file.as_fd(), &index.content)?;
        }
        Ok(())
    }
}

fn write_content(file: BorrowedFd<'_>, content: &[u8]) -> Result<(), Errno> {
    let mut written = 0;
    while written < content.len() {
        written += rustix::io::retry_on_intr(|| pwrite(file, &content[written..], written as u64))?;
    }
    ftruncate(file, content.len() as u64)
}

impl Draft {
    /// Takes the name by which the next prune sees, if this one is killed, whether the draft has taken the index's place.
    pub(crate) fn take_telling_name(&mut self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let (status, born) = status_and_birth(root, &self.name)?;
        let name = index_draft(status.id.inode, born);
        renameat(root, &self.name, root, &name)?;
        self.name = name;
        Ok(())
    }

    /// Makes the draft a copy of the index.
    fn become_copy(&self, index: &Index) -> Result<(), Errno> {
        write_content(self.file.as_fd(), &index.content)?;
        fdatasync(&self.file)?;
        copy_attributes(index.file.as_fd(), &index.status, self.file.as_fd())
    }

    /// Removes the old index, which has the temporary name once the draft has taken its place. If its name cannot be removed,
    /// gives it one by which no prune takes it for an index that must come back. If that fails too, undoes the exchange.
    fn discard_displaced(&self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let Err(errno) = unlinkat(root, &self.name, AtFlags::empty()) else { return Ok(()) };
        if random_index().and_then(|name| renameat(root, &self.name, root, &name)).is_ok() {
            return Ok(());
        }
        give_back(root, self)?;
        Err(errno)
    }

    /// Removes the temporary name.
    pub(crate) fn discard(&self, root: BorrowedFd<'_>) {
        // If it stays, the next prune removes it as a partial.
        let _ = unlinkat(root, &self.name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Write as _, read_to_string};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use crate::os::lease::is_undisturbed;

    const OLD: &str = r#"{"manifests":["old"]}"#;
    const NEW: &str = r#"{"manifests":[]}"#;
    const THEIRS: &str = r#"{"manifests":["old","theirs"]}"#;

    /// A cache's directory with an index that was read, and a draft.
    struct Fixture {
        directory: tempfile::TempDir,
        root: File,
        old: Index,
        draft: Draft,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("index.json"), OLD).unwrap();
            let root = File::open(directory.path()).unwrap();
            let old = read_index(root.as_fd()).unwrap().unwrap();
            let path = directory.path().join("draft");
            fs::write(&path, NEW).unwrap();
            let file = File::options().read(true).write(true).open(path).unwrap();
            let id = Status::of_descriptor(file.as_fd()).unwrap().id;
            Self { directory, root, old, draft: Draft { name: CString::from(c"draft"), file, id } }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn exchange(&self) -> bool {
            exchange(self.root.as_fd(), &self.old, &self.draft).unwrap()
        }

        /// Another process replaces the index.
        fn replace(&self, content: &str) {
            fs::write(self.path("theirs"), content).unwrap();
            fs::rename(self.path("theirs"), self.path("index.json")).unwrap();
        }

        /// Another process writes into the index as many bytes as there are, and sets the time of the last write back.
        fn write_in_place(&self) -> String {
            let (path, other) = (self.path("index.json"), OLD.replace("old", "new"));
            let time = self.old.file.metadata().unwrap().modified().unwrap();
            fs::write(&path, &other).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            other
        }

        /// Checks that nothing but this index is left.
        fn check(&self, content: &str) {
            assert_eq!(fs::read_to_string(self.path("index.json")).unwrap(), content);
            assert_eq!(fs::read_dir(self.directory.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn the_draft_takes_the_place_of_the_index() {
        let fixture = Fixture::new();
        assert!(fixture.exchange());
        fixture.check(NEW);
    }

    #[test]
    fn an_index_that_another_process_wrote_stays() {
        let replaced = Fixture::new();
        replaced.replace(THEIRS);
        assert!(!replaced.exchange());
        replaced.check(THEIRS);

        let written = Fixture::new();
        let other = written.write_in_place();
        assert!(!written.exchange());
        written.check(&other);

        let open = Fixture::new();
        let writer = File::options().write(true).open(open.path("index.json")).unwrap();
        assert!(!open.exchange());
        open.check(OLD);
        drop(writer);

        let removed = Fixture::new();
        fs::rename(removed.path("index.json"), removed.path("away")).unwrap();
        assert!(!removed.exchange());
        assert!(!removed.path("index.json").exists() && !removed.path("draft").exists());
    }

    #[test]
    fn a_reader_does_not_stop_the_exchange() {
        let fixture = Fixture::new();
        let mut reader = File::open(fixture.path("index.json")).unwrap();
        assert!(fixture.exchange());
        fixture.check(NEW);
        assert_eq!(read_to_string(&mut reader).unwrap(), OLD);
    }

    #[test]
    fn the_last_of_those_who_replaced_the_index_stays() {
        let fixture = Fixture::new();
        fixture.replace("the first");
        swap(fixture.root.as_fd(), &fixture.draft).unwrap();
        fixture.replace(THEIRS);
        give_back(fixture.root.as_fd(), &fixture.draft).unwrap();
        fixture.draft.discard(fixture.root.as_fd());
        fixture.check(THEIRS);
        // Another removes what took its place.
        let removed = Fixture::new();
        removed.replace(THEIRS);
        swap(removed.root.as_fd(), &removed.draft).unwrap();
        fs::rename(removed.path("index.json"), removed.path("away")).unwrap();
        assert_eq!(give_back(removed.root.as_fd(), &removed.draft), Ok(()));
        assert_eq!(fs::read_to_string(removed.path("index.json")).unwrap(), THEIRS);
    }

    #[test]
    fn whoever_finds_an_index_that_is_back_only_for_a_moment_gets_the_last_one() {
        let fixture = Fixture::new();
        fixture.replace("the first, which is longer than the last one");
        swap(fixture.root.as_fd(), &fixture.draft).unwrap();
        let exposed = Exposed::open(fixture.root.as_fd(), &fixture.draft.name).unwrap();
        assert!(exposed.is_leased);
        swap(fixture.root.as_fd(), &fixture.draft).unwrap();
        let path = fixture.path("index.json");
        thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read_to_string(&path).unwrap());
            while is_undisturbed(exposed.file.as_fd()) {
                thread::yield_now();
            }
            fixture.replace(THEIRS);
            exposed.serve_waiting(fixture.root.as_fd()).unwrap();
            drop(exposed);
            assert_eq!(reader.join().unwrap(), THEIRS);
        });
        fixture.draft.discard(fixture.root.as_fd());
        fixture.check(THEIRS);
    }

    #[test]
    fn whoever_waits_for_the_draft_gets_the_index_that_came_back() {
        for writes in [false, true] {
            let fixture = Fixture::new();
            fixture.replace(THEIRS);
            let mode = fs::Permissions::from_mode(0o640);
            fs::set_permissions(fixture.path("index.json"), mode.clone()).unwrap();
            lease_against_all(fixture.draft.file.as_fd()).unwrap();
            swap(fixture.root.as_fd(), &fixture.draft).unwrap();
            let path = fixture.path("index.json");
            let use_index = || {
                if !writes {
                    assert_eq!(fs::read_to_string(&path).unwrap(), THEIRS);
                    return;
                }
                let mut file = File::options().append(true).open(&path).unwrap();
                file.write_all(b" and more").unwrap();
            };
            thread::scope(|scope| {
                let user = scope.spawn(use_index);
                while is_undisturbed(fixture.draft.file.as_fd()) {
                    thread::yield_now();
                }
                give_back(fixture.root.as_fd(), &fixture.draft).unwrap();
                serve_waiting(fixture.root.as_fd(), &fixture.draft).unwrap();
                fixture.draft.discard(fixture.root.as_fd());
                release_lease(fixture.draft.file.as_fd());
                user.join().unwrap();
            });
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode.mode());
            fixture.check(&if writes { format!("{THEIRS} and more") } else { THEIRS.to_owned() });
        }
    }

    #[test]
    fn the_last_index_stays_though_somebody_waits_for_the_draft_that_it_replaced() {
        let fixture = Fixture::new();
        fixture.replace("the first");
        lease_against_all(fixture.draft.file.as_fd()).unwrap();
        swap(fixture.root.as_fd(), &fixture.draft).unwrap();
        let path = fixture.path("index.json");
        thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read_to_string(&path).unwrap());
            while is_undisturbed(fixture.draft.file.as_fd()) {
                thread::yield_now();
            }
            fixture.replace(THEIRS);
            give_back(fixture.root.as_fd(), &fixture.draft).unwrap();
            serve_waiting(fixture.root.as_fd(), &fixture.draft).unwrap();
            fixture.draft.discard(fixture.root.as_fd());
            release_lease(fixture.draft.file.as_fd());
            assert_eq!(reader.join().unwrap(), THEIRS);
        });
        fixture.check(THEIRS);
    }

    #[test]
    fn an_index_is_taken_away_unless_another_process_changed_it() {
        let fixture = Fixture::new();
        fixture.draft.discard(fixture.root.as_fd());
        let take = |fixture: &Fixture| {
            take_away(fixture.root.as_fd(), &fixture.old, CString::from(c"away")).unwrap()
        };
        assert!(take(&fixture));
        assert_eq!(fs::read_dir(fixture.directory.path()).unwrap().count(), 0);
        let replaced = Fixture::new();
        replaced.draft.discard(replaced.root.as_fd());
        replaced.replace(THEIRS);
        assert!(!take(&replaced));
        replaced.check(THEIRS);

        let written = Fixture::new();
        written.draft.discard(written.root.as_fd());
        let other = written.write_in_place();
        assert!(!take(&written));
        written.check(&other);

        let open = Fixture::new();
        open.draft.discard(open.root.as_fd());
        let writer = File::options().write(true).open(open.path("index.json")).unwrap();
        assert!(!take(&open));
        open.check(OLD);
        drop(writer);

        let removed = Fixture::new();
        removed.draft.discard(removed.root.as_fd());
        fs::rename(removed.path("index.json"), removed.path("elsewhere")).unwrap();
        assert!(!take(&removed));
    }

    #[test]
    fn an_index_that_takes_the_place_of_one_that_was_taken_away_stays() {
        let fixture = Fixture::new();
        fixture.draft.discard(fixture.root.as_fd());
        fixture.replace("the first");
        fs::write(fixture.path("theirs"), THEIRS).unwrap();
        thread::scope(|scope| {
            let puller = scope.spawn(|| {
                let started = Instant::now();
                while fixture.path("index.json").exists() && started.elapsed() < Duration::from_secs(10) {
                    thread::yield_now();
                }
                fs::rename(fixture.path("theirs"), fixture.path("index.json")).unwrap();
            });
            assert!(!take_away(fixture.root.as_fd(), &fixture.old, CString::from(c"away")).unwrap());
            puller.join().unwrap();
        });
        fixture.check(THEIRS);
    }

    #[test]
    fn who_begins_to_write_into_the_old_index_writes_into_the_index() {
        let fixture = Fixture::new();
        let (root, old) = (fixture.root.as_fd(), fixture.old.file.as_fd());
        lease_against_writers(old).unwrap();
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut file = File::options().append(true).open(fixture.path("index.json")).unwrap();
                file.write_all(b" and more").unwrap();
            });
            while !is_written(old) {
                thread::yield_now();
            }
            let exchanged = exchange_leased(root, &fixture.old, &fixture.draft, true, false);
            release_lease(old);
            writer.join().unwrap();
            assert_eq!(exchanged, Ok(false));
        });
        fixture.check(&format!("{OLD} and more"));
    }

    #[test]
    fn who_waits_for_a_draft_whose_exchange_is_undone_reads_the_index() {
        let fixture = Fixture::new();
        fixture.replace(THEIRS);
        let (root, draft) = (fixture.root.as_fd(), fixture.draft.file.as_fd());
        lease_against_all(draft).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read_to_string(fixture.path("draft")).unwrap());
            while is_undisturbed(draft) {
                thread::yield_now();
            }
            let exchanged = exchange_leased(root, &fixture.old, &fixture.draft, false, true);
            release_lease(draft);
            assert_eq!((exchanged, reader.join().unwrap().as_str()), (Ok(false), THEIRS));
        });
        fixture.check(THEIRS);
    }

    #[test]
    fn an_index_with_another_name_is_not_written_to_though_somebody_waits_for_it() {
        let fixture = Fixture::new();
        fixture.replace("the first");
        fs::hard_link(fixture.path("index.json"), fixture.path("backup")).unwrap();
        let exposed = Exposed::open(fixture.root.as_fd(), c"index.json").unwrap();
        assert!(exposed.is_leased);
        thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read_to_string(fixture.path("backup")).unwrap());
            while is_undisturbed(exposed.file.as_fd()) {
                thread::yield_now();
            }
            // It keeps both names: that of the backup, and one under which it is exposed.
            fs::rename(fixture.path("index.json"), fixture.path("exposed")).unwrap();
            fs::write(fixture.path("index.json"), THEIRS).unwrap();
            exposed.serve_waiting(fixture.root.as_fd()).unwrap();
            drop(exposed);
            assert_eq!(reader.join().unwrap(), "the first");
        });
        assert_eq!(fs::read_to_string(fixture.path("backup")).unwrap(), "the first");
    }
}
