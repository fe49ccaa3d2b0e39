//! Snapshots of directory trees, and their differences.
//!
//! Guarantees: links are not followed, and access times do not change. A snapshot has everything that a prune
//! could change: names, inodes, sizes, modes, owners, link counts, times and contents.
//!
//! What it does not guarantee: a change beyond the first mebibyte of a file's content is seen only by size
//! and times. Nothing else may change the tree while the snapshot is taken.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Debug, Formatter};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::OFlags;
use walkdir::WalkDir;

use crate::kit::process::while_none_starts;
use crate::kit::total::Total;

/// How much of a file is read.
const MAX_BYTES: u64 = 1 << 20;

/// The directory itself, under the empty path, and everything below it, by relative path.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
}

/// A file, directory, link or other entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) inode: u64,
    pub(crate) is_file: bool,
    pub(crate) is_directory: bool,
    pub(crate) size_bytes: u64,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) links: u64,
    modified: (i64, i64),
    status_changed: (i64, i64),
    content: Content,
}

/// The content of a file, or the target of a link.
#[derive(Clone, Default, PartialEq, Eq)]
struct Content(Vec<u8>);

impl Debug for Content {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes read", self.0.len())
    }
}

impl Tree {
    /// Takes a snapshot of the tree at `root`.
    ///
    /// # Errors
    ///
    /// If anything cannot be read.
    pub(crate) fn of(root: &Path) -> anyhow::Result<Self> {
        let context = || format!("list {}", root.display());
        let mut tree = Self::default();
        for found in WalkDir::new(root) {
            let found = found.with_context(context)?;
            let metadata = found.metadata().with_context(context)?;
            let content = while_none_starts(|| content_of(found.path(), &metadata)).with_context(context)?;
            let path = found.path().strip_prefix(root).with_context(context)?;
            tree.entries.insert(path.to_owned(), Entry::new(&metadata, content));
        }
        Ok(tree)
    }

    /// Totals the selected files that are gone in `later`. Files are identified by inode: a renamed file is
    /// not gone.
    pub(crate) fn gone_from(&self, later: &Self, select: impl Fn(&Path) -> bool) -> Total {
        let mut left: HashMap<u64, u64> = HashMap::new();
        for entry in later.entries.values().filter(|entry| entry.is_file) {
            *left.entry(entry.inode).or_default() += 1;
        }
        let mut gone = Total::default();
        for (_, entry) in self.entries.iter().filter(|(path, entry)| entry.is_file && select(path)) {
            match left.get_mut(&entry.inode) {
                Some(names @ 1..) => *names -= 1,
                _ => gone += entry.total(),
            }
        }
        gone
    }

    /// Totals the files whose names are gone in `later`. Files are identified by name: a replaced file is not
    /// gone, and reuse of an inode does not matter.
    pub(crate) fn names_gone_from(&self, later: &Self) -> Total {
        self.total_of(|path| !later.entries.contains_key(path))
    }

    /// Totals the selected files.
    pub(crate) fn total_of(&self, select: impl Fn(&Path) -> bool) -> Total {
        let mut total = Total::default();
        for (_, entry) in self.entries.iter().filter(|(path, entry)| !entry.is_directory && select(path)) {
            total += entry.total();
        }
        total
    }

    /// Describes the first selected entry that is gone or changed in `later`.
    pub(crate) fn first_change(&self, later: &Self, select: impl Fn(&Path) -> bool) -> Option<String> {
        let mut picked = self.entries.iter().filter(|(path, _)| select(path));
        picked.find_map(|(path, entry)| match later.entries.get(path) {
            None => Some(format!("{} is gone", path.display())),
            Some(after) if !entry.is_same(after) => Some(format!("{} changed", path.display())),
            Some(_) => None,
        })
    }

    /// The first selected entry that only `later` has.
    pub(crate) fn first_new<'a>(&self, later: &'a Self, select: impl Fn(&Path) -> bool) -> Option<&'a Path> {
        let is_new = |path: &&Path| !self.entries.contains_key(*path) && select(path);
        later.entries.keys().map(PathBuf::as_path).find(is_new)
    }

    /// Describes the first entry that `is_touched` picks, or that only `later` has.
    pub(crate) fn first_difference(
        &self,
        later: &Self,
        is_touched: impl Fn(&Path, &Entry, Option<&Entry>) -> bool,
    ) -> Option<String> {
        let mut entries = self.entries.iter();
        let touched = entries.find(|(path, entry)| is_touched(path, entry, later.entries.get(*path)));
        let path = touched.map(|(path, _)| path.as_path()).or_else(|| self.first_new(later, |_| true))?;
        let (before, after) = (self.entries.get(path), later.entries.get(path));
        Some(format!("{}: before {before:?}, after {after:?}", path.display()))
    }

    /// Describes the first entry that is gone, changed or new in `later`, before and after.
    pub(crate) fn any_difference(&self, later: &Self) -> Option<String> {
        self.first_difference(later, |_, before, after| after.is_none_or(|after| !before.is_same(after)))
    }

    /// Lists the entries without what differs in every run: inodes and times.
    pub(crate) fn outline(&self) -> Vec<String> {
        let line = |(path, entry): (&PathBuf, &Entry)| {
            let content = String::from_utf8_lossy(&entry.content.0);
            format!("{} {:o} {:?} {content:?}", path.display(), entry.mode, entry.owner)
        };
        self.entries.iter().map(line).collect()
    }
}

impl Entry {
    fn new(metadata: &Metadata, content: Vec<u8>) -> Self {
        Self {
            inode: metadata.ino(),
            is_file: metadata.is_file(),
            is_directory: metadata.is_dir(),
            size_bytes: metadata.size(),
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            links: metadata.nlink(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            status_changed: (metadata.ctime(), metadata.ctime_nsec()),
            content: Content(content),
        }
    }

    /// Whether it is the same entry with the same content. Its link count may differ.
    pub(crate) fn is_same(&self, after: &Self) -> bool {
        let size_bytes = |entry: &Self| if entry.is_directory { 0 } else { entry.size_bytes };
        self.is_same_place(after)
            && size_bytes(self) == size_bytes(after)
            && self.modified == after.modified
            && self.content == after.content
    }

    /// Whether it is the same entry, with any content.
    pub(crate) fn is_same_place(&self, after: &Self) -> bool {
        let identity = |entry: &Self| (entry.inode, entry.mode, entry.owner);
        identity(self) == identity(after)
    }

    const fn total(&self) -> Total {
        Total { blobs: 1, bytes: self.size_bytes }
    }
}

fn content_of(path: &Path, metadata: &Metadata) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if metadata.is_symlink() {
        content = fs::read_link(path)?.into_os_string().into_encoded_bytes();
    } else if metadata.is_file() {
        let flags = (OFlags::NOATIME | OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        file.take(MAX_BYTES).read_to_end(&mut content)?;
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_inode() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["a", "b", "c"] {
            fs::write(path(name), "12").unwrap();
        }
        let before = Tree::of(directory.path()).unwrap();
        fs::rename(path("a"), path("z")).unwrap();
        fs::rename(path("c"), path("b")).unwrap();
        let after = Tree::of(directory.path()).unwrap();
        assert_eq!(before.gone_from(&after, |_| true), Total { blobs: 1, bytes: 2 });
        assert_eq!(before.first_change(&after, |path| path == "a").unwrap(), "a is gone");
        assert_eq!(before.first_change(&after, |path| path == "b").unwrap(), "b changed");
        assert_eq!(before.first_new(&after, |_| true), Some(Path::new("z")));
        // The directory itself, first.
        assert!(before.any_difference(&after).unwrap().starts_with(": before Some(Entry"));
        assert_eq!(before.names_gone_from(&after), Total { blobs: 2, bytes: 4 });
        assert_eq!(before.total_of(|path| path.starts_with("a")), Total { blobs: 1, bytes: 2 });
        assert!(before.outline()[1].starts_with("a 100"), "{:?}", before.outline());
    }

    #[test]
    fn another_name_is_no_change_but_is_a_difference() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("cache")).unwrap();
        fs::write(path("cache/a"), "12").unwrap();
        let tree = || Tree::of(&path("cache")).unwrap();
        let before = tree();
        let is_touched = |_: &Path, entry: &Entry, after: Option<&Entry>| after != Some(entry);
        assert_eq!(before.first_difference(&tree(), is_touched), None);
        fs::hard_link(path("cache/a"), path("b")).unwrap();
        assert_eq!(before.first_change(&tree(), |_| true), None);
        assert_eq!(before.any_difference(&tree()), None);
        let difference = before.first_difference(&tree(), is_touched).unwrap();
        assert!(difference.starts_with("a: before Some(Entry") && difference.contains("2 bytes read"));
        fs::write(path("cache/c"), "").unwrap();
        assert_eq!(before.first_change(&tree(), |_| true).unwrap(), " changed");
    }
}
