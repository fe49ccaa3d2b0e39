//! Changes an OCI image layout's `index.json`.
//!
//! Guarantees: the new index is written and synced under a temporary name, then [takes the old one's place](exchange)
//! unless another process changed the index meanwhile. A reader sees either the whole old index or the whole new one.
//! It keeps [all bytes but the entries that go](spliced), and [owner, mode, access control list and extended
//! attributes](copy_attributes). If the disk is full and no new file can be written, an index that would become empty is
//! removed, so that it does not reference blobs that will be removed; the next pull writes it again. An index that keeps
//! images stays.
//!
//! Source: OCI image specification, `image-layout.md` ("index.json file") and `image-index.md`.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::cache::names::{INDEX, random_index};
use crate::os::attributes::copy_attributes;
use crate::os::errno_of;
use crate::os::status::Status;
use crate::os::watch::{Announced, Watch};
use crate::plan::IndexChange;
use crate::prune::index_exchange::{Draft, exchange, take_away};
use crate::prune::index_splice::{NoIndex, is_empty, spliced};
use crate::scan::index::{Index, read_index};

/// The result of a change.
#[derive(Debug)]
pub(crate) enum Changed {
    /// The index is as requested, with this status; `None` if it had to be removed.
    To(Option<Status>),
    /// The index is not the one that was seen, or is about to be changed, and was left alone.
    NotTheOneSeen,
}

/// A change of the index that is ready to be made.
#[derive(Debug)]
pub(crate) struct Rewrite<'w> {
    /// Dropped before the old index is closed.
    announced: Option<Announced<'w>>,
    old: Index,
    next: Next,
}

/// What takes the old index's place.
#[derive(Debug)]
enum Next {
    /// It stays as it is.
    Same,
    Draft(Draft),
    /// Nothing: the disk is full, and the index would be empty.
    Nothing,
}

impl<'w> Rewrite<'w> {
    /// Makes the change ready, if the index's status is still `seen`: writes the new index under a temporary name.
    /// `None` if the index is not the one that was seen. If the cache's directory is watched, the watch must know.
    pub(crate) fn prepare(
        root: BorrowedFd<'_>,
        seen: &Status,
        change: &IndexChange,
        watch: Option<(&'w Watch, usize)>,
    ) -> Result<Option<Self>, Errno> {
        let announced = watch.and_then(|(watch, directory)| watch.announce(directory, INDEX));
        let old = match read_index(root) {
            Ok(Some(old)) => old,
            unread => {
                announced.into_iter().for_each(Announced::was_not_opened);
                return unread.map(|_| None);
            }
        };
        if !old.status.is_same_content(seen) {
            return Ok(None);
        }
        let next = match changed(&old, change)? {
            None => Next::Same,
            Some(content) => match write_draft(root, &content, &old) {
                // The new index would be empty, so remove the file instead: that needs no space.
                Err(Errno::NOSPC | Errno::DQUOT) if is_empty(&content) => Next::Nothing,
                draft => Next::Draft(draft?),
            },
        };
        Ok(Some(Self { announced, old, next }))
    }

    /// Makes the change.
    pub(crate) fn carry_out(self, root: BorrowedFd<'_>) -> Result<Changed, Errno> {
        let is_made = match &self.next {
            Next::Same => true,
            Next::Draft(draft) => exchange(root, &self.old, draft)?,
            Next::Nothing => take_away(root, &self.old, random_index()?)?,
        };
        if is_made && !matches!(self.next, Next::Same) {
            self.announced.into_iter().for_each(Announced::was_unlinked);
        }
        Ok(match self.next {
            _ if !is_made => Changed::NotTheOneSeen,
            Next::Same => Changed::To(Some(self.old.status)),
            Next::Draft(draft) => Changed::To(Some(Status::of_descriptor(draft.file.as_fd())?)),
            Next::Nothing => Changed::To(None),
        })
    }

    /// Does not make the change.
    pub(crate) fn discard(self, root: BorrowedFd<'_>) {
        if let Next::Draft(draft) = self.next {
            draft.discard(root);
        }
    }
}

/// Removes entries from the index, if its status is still `seen`.
pub(crate) fn change_index(
    root: BorrowedFd<'_>,
    seen: &Status,
    change: &IndexChange,
) -> Result<Changed, Errno> {
    let rewrite = Rewrite::prepare(root, seen, change, None)?;
    rewrite.map_or(Ok(Changed::NotTheOneSeen), |rewrite| rewrite.carry_out(root))
}

/// Whether the index has anything to change.
pub(crate) fn would_change(root: BorrowedFd<'_>, change: &IndexChange) -> Result<bool, Errno> {
    let index = read_index(root)?;
    Ok(index.map(|index| changed(&index, change)).transpose()?.flatten().is_some())
}

/// The content of the index after the change; `None` if it stays the same.
fn changed(index: &Index, change: &IndexChange) -> Result<Option<Vec<u8>>, Errno> {
    spliced(&index.content, change).map_err(|NoIndex| Errno::BADMSG)
}

/// Writes a draft under a name that tells which file it is; see [`crate::cache::displaced_index`].
fn write_draft(root: BorrowedFd<'_>, content: &[u8], old: &Index) -> Result<Draft, Errno> {
    // If the prune is killed here, the next one recognises this name as that of a partial.
    let name = random_index()?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::io::retry_on_intr(|| openat(root, &name, flags, Mode::RUSR | Mode::WUSR))?;
    let id = Status::of_descriptor(file.as_fd())?.id;
    let mut draft = Draft { name, file: File::from(file), id };
    let written = copy_attributes(old.file.as_fd(), &old.status, draft.file.as_fd()).and_then(|()| {
        let written = draft.file.write_all(content).and_then(|()| draft.file.sync_data());
        written.map_err(|error| errno_of(&error))
    });
    match written.and_then(|()| draft.take_telling_name(root)) {
        Ok(()) => Ok(draft),
        Err(errno) => {
            draft.discard(root);
            Err(errno)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use rustix::fs::{RenameFlags, renameat_with};

    use crate::cache::displaced_index::give_back;

    #[test]
    fn a_change_that_is_not_made_leaves_everything_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (path, text) = (directory.path().join("index.json"), r#"{"manifests":["a", "b"]}"#);
        fs::write(&path, text).unwrap();
        let root = File::open(directory.path()).unwrap();
        let seen = Status::of_entry(root.as_fd(), INDEX).unwrap();
        let prepare =
            |change: &IndexChange| Rewrite::prepare(root.as_fd(), &seen, change, None).unwrap().unwrap();
        let entries = || fs::read_dir(directory.path()).unwrap().count();
        prepare(&IndexChange::Empty).discard(root.as_fd());
        let same = prepare(&IndexChange::Drop(vec![])).carry_out(root.as_fd()).unwrap();
        assert!(matches!(same, Changed::To(Some(status)) if status.id == seen.id));
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), entries()), (text, 1));

        let changed = prepare(&IndexChange::Drop(vec![0])).carry_out(root.as_fd()).unwrap();
        let Changed::To(Some(status)) = changed else { panic!("{changed:?}") };
        assert!(Status::of_entry(root.as_fd(), INDEX).unwrap().is_same_content(&status));
        let left = fs::read_to_string(&path).unwrap();
        assert_eq!((left.as_str(), entries()), (r#"{"manifests":["b"]}"#, 1));
        let no_index = Rewrite::prepare(root.as_fd(), &seen, &IndexChange::Empty, None).unwrap();
        assert!(no_index.is_none(), "it is another one by now");
    }

    #[test]
    fn an_exchange_that_was_not_finished_is_undone_by_the_next_prune() {
        let directory = tempfile::tempdir().unwrap();
        let (path, text) = (directory.path().join("index.json"), r#"{"manifests":["a"]}"#);
        fs::write(&path, text).unwrap();
        let root = File::open(directory.path()).unwrap();
        let seen = Status::of_entry(root.as_fd(), INDEX).unwrap();
        let rewrite = Rewrite::prepare(root.as_fd(), &seen, &IndexChange::Empty, None).unwrap().unwrap();
        let Next::Draft(draft) = &rewrite.next else { panic!("{rewrite:?}") };
        renameat_with(&root, &draft.name, &root, INDEX, RenameFlags::EXCHANGE).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"manifests":[]}"#);
        assert_eq!(give_back(root.as_fd()), Ok(true));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_index_that_is_none_loses_no_entry() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("index.json"), "{").unwrap();
        let root = File::open(directory.path()).unwrap();
        let seen = Status::of_entry(root.as_fd(), INDEX).unwrap();
        let changed = change_index(root.as_fd(), &seen, &IndexChange::Drop(vec![0]));
        assert_eq!(changed.unwrap_err(), Errno::BADMSG);
        assert!(matches!(change_index(root.as_fd(), &seen, &IndexChange::Empty), Ok(Changed::To(Some(_)))));
    }
}
