//! Writes files that the user names for output: plans, metrics and summaries.
//!
//! Guarantees: only a regular file is written, replaced or read again, in a directory that is held from the start of the
//! run on, and that nobody but root and the user can change ([`walk`], [`trust`]). It is replaced as a whole or not at
//! all. The new file keeps the permissions and, for root, the owner. Nothing is written into the cache.

mod trust;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use anyhow::{Context as _, anyhow};
use oci_cache::escape_path;
use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, openat, renameat, unlinkat};

use crate::exit::UsageError;
use crate::output_file::walk::Place;

/// The mode of a new file: readable by all, because another user collects the metrics.
const MODE: u32 = 0o644;
/// The maximum size of a file to read again, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A file to write, which may not exist yet.
#[derive(Debug)]
pub(crate) struct OutputFile(Place);

impl OutputFile {
    /// Finds the file. Writes nothing. `doing` is what an error says first, followed by the path.
    ///
    /// # Errors
    ///
    /// A [`UsageError`] if it is inside the cache, if it is no regular file, or if others could make its path lead
    /// elsewhere. Errors of the file system.
    pub(crate) fn find(path: &Path, cache: Option<&Path>, doing: &str) -> anyhow::Result<Self> {
        let context = || format!("{doing} `{}`", escape_path(path));
        let place = Place::find(path).with_context(context)?;
        if cache.is_some_and(|cache| is_inside(&place.directory, cache)) {
            let why = format!("`{}` is inside the cache: choose a file outside it", escape_path(path));
            return Err(anyhow!(UsageError(why)));
        }
        place.look().with_context(context)?;
        Ok(Self(place))
    }

    /// Replaces the file.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find). The file is then unchanged.
    pub(crate) fn write(&self, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
        let found = self.0.look()?;
        let (temporary, mut file) = Temporary::new(&self.0.directory)?;
        if let Some(found) = found {
            // Only root can give files away. For other users the file already is theirs, or becomes theirs.
            let _ = fchown(&file, Some(found.st_uid), Some(found.st_gid));
        }
        let mode = found.map_or(MODE, |found| found.st_mode & 0o777);
        file.set_permissions(Permissions::from_mode(mode))?;
        let mut writer = BufWriter::new(&mut file);
        content(&mut writer)?;
        writer.flush()?;
        drop(writer);
        Ok(temporary.replace(&self.0)?)
    }

    /// Reads what an earlier run wrote; `None` if that is not a small file of text.
    pub(crate) fn read_again(&self) -> Option<String> {
        let file = self.open(OFlags::RDONLY).ok()??;
        let mut text = String::new();
        (file.metadata().ok()?.len() <= MAX_BYTES).then_some(())?;
        file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Opens the file for appending, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(crate) fn append(&self) -> anyhow::Result<File> {
        let to_append = OFlags::WRONLY | OFlags::APPEND;
        if let Some(file) = self.open(to_append)? {
            return Ok(file);
        }
        let created = create(&self.0.directory, &self.0.name, to_append, MODE);
        created.context("create it")
    }

    /// Opens the file as it is; `None` if it does not exist.
    fn open(&self, flags: OFlags) -> anyhow::Result<Option<File>> {
        let Some(seen) = self.0.look()? else { return Ok(None) };
        // It is looked at again, because by now it may be another one, such as a FIFO, or somebody else's file through a
        // hard link that is gone again.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&self.0.directory, &self.0.name, flags, Mode::empty())?;
        let opened = fstat(&file)?;
        self.0.check(&opened)?;
        if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino) {
            return Err(anyhow!(UsageError(
                "another file took its place meanwhile: run it again".to_owned()
            )));
        }
        Ok(Some(file.into()))
    }
}

/// A new file beside the one to replace, removed unless it takes that one's place.
struct Temporary<'a> {
    directory: &'a OwnedFd,
    name: OsString,
    is_in_place: bool,
}

impl<'a> Temporary<'a> {
    fn new(directory: &'a OwnedFd) -> io::Result<(Self, File)> {
        loop {
            let random = RandomState::new().hash_one(());
            let name = OsString::from(format!(".tmp{random:016x}"));
            match create(directory, &name, OFlags::WRONLY, 0o600) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return Ok((Self { directory, name, is_in_place: false }, created?)),
            }
        }
    }

    fn replace(mut self, place: &Place) -> io::Result<()> {
        renameat(self.directory, &self.name, &place.directory, &place.name)?;
        self.is_in_place = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_in_place {
            // The write has failed already, and that is told.
            let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Creates a file, which must not exist.
fn create(directory: &OwnedFd, name: &OsStr, flags: OFlags, mode: u32) -> io::Result<File> {
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::from_raw_mode(mode))?.into())
}

/// Whether the directory is the cache, or inside it.
fn is_inside(directory: &OwnedFd, cache: &Path) -> bool {
    let Ok(cache) = fs::metadata(cache) else { return false };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let id = |found: &Stat| (found.st_dev, found.st_ino);
    let mut below = None;
    let mut here = openat(directory, ".", flags, Mode::empty());
    // The root is its own parent.
    while let Ok(found) = here.as_ref().map_err(|error| *error).and_then(fstat) {
        if id(&found) == (cache.dev(), cache.ino()) {
            return true;
        }
        if below.replace(id(&found)) == Some(id(&found)) {
            return false;
        }
        here = here.and_then(|directory| openat(directory, "..", flags, Mode::empty()));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "before").unwrap();
        let file = OutputFile::find(&path, None, "write").unwrap();
        let failed = file.write(|writer| {
            writer.write_all(b"half")?;
            Err(io::Error::from(rustix::io::Errno::IO))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        file.write(|writer| writer.write_all(b"whole")).unwrap();
        assert_eq!(file.read_again().unwrap(), "whole");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_directory_that_was_found_is_the_one_that_is_written() {
        let base = tempfile::tempdir().unwrap();
        let [directory, moved] = ["directory", "moved"].map(|name| base.path().join(name));
        fs::create_dir(&directory).unwrap();
        let file = OutputFile::find(&directory.join("file"), None, "write").unwrap();
        fs::rename(&directory, &moved).unwrap();
        fs::create_dir(&directory).unwrap();
        file.write(|writer| writer.write_all(b"here")).unwrap();
        assert_eq!(fs::read_to_string(moved.join("file")).unwrap(), "here");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        // Nor is what took the file's place in the meantime.
        fs::rename(moved.join("file"), base.path().join("victim")).unwrap();
        std::os::unix::fs::symlink("../victim", moved.join("file")).unwrap();
        assert!(file.write(|writer| writer.write_all(b"there")).is_err());
        assert!(file.append().is_err());
        assert_eq!(file.read_again(), None);
        assert_eq!(fs::read_to_string(base.path().join("victim")).unwrap(), "here");
    }

    #[test]
    fn the_file_keeps_its_owner_and_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "before").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        // Only root can do that.
        let _ = std::os::unix::fs::chown(&path, Some(4711), Some(4712));
        let of = || fs::metadata(&path).map(|found| (found.uid(), found.gid(), found.mode())).unwrap();
        let before = of();
        let file = OutputFile::find(&path, None, "write").unwrap();
        file.write(|writer| writer.write_all(b"after")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(of(), before);
    }

    #[test]
    fn no_file_is_written_anywhere_in_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let below = cache.path().join("blobs/sha256");
        fs::create_dir_all(&below).unwrap();
        for directory in [cache.path(), &below] {
            let error = OutputFile::find(&directory.join("file"), Some(cache.path()), "write").unwrap_err();
            assert!(error.is::<UsageError>(), "{error:?}");
        }
        let outside = tempfile::tempdir().unwrap();
        OutputFile::find(&outside.path().join("file"), Some(cache.path()), "write").unwrap();
    }

    #[test]
    fn where_others_can_make_links_a_file_with_another_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "before").unwrap();
        fs::hard_link(&path, directory.path().join("other")).unwrap();
        OutputFile::find(&path, None, "write").unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).unwrap();
        let error = OutputFile::find(&path, None, "write").unwrap_err();
        assert!(format!("{error:#}").contains("has other names"), "{error:#}");
        unlinkat(rustix::fs::CWD, directory.path().join("other"), AtFlags::empty()).unwrap();
        OutputFile::find(&path, None, "write").unwrap();
    }

    #[test]
    fn a_directory_that_an_access_control_list_lets_others_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        // User 65534 may write, and others may not: `struct posix_acl_xattr_entry` in Linux's
        // `include/uapi/linux/posix_acl_xattr.h`.
        let entries =
            [(1_u8, 7_u8, u32::MAX), (2, 7, 65534), (4, 0, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)];
        let entries = entries.map(|(tag, may, id)| [&[tag, 0, may, 0][..], &id.to_le_bytes()].concat());
        let list = [&[2, 0, 0, 0][..], &entries.concat()].concat();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(directory.path(), "system.posix_acl_access", &list, flags).unwrap();
        let error = OutputFile::find(&directory.path().join("file"), None, "write").unwrap_err();
        assert!(error.is::<UsageError>(), "{error:?}");
    }
}
