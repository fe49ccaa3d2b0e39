//! A directory tree as it is on the disk: to tell later what went, what changed and what came.
//!
//! Guarantees: links are not followed, and no access time moves. Of each entry everything that a prune could change
//! is kept: name, inode, size, mode, owner, links, times and content.
//!
//! What it does not guarantee: of a large file only the first mebibyte is read.

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

/// The most that is read of a file.
const MAX_BYTES: u64 = 1 << 20;

/// The directory itself, with an empty path, and what is below it, by relative path.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
}

/// One of them.
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

/// What is in a file, or where a link leads.
#[derive(Clone, Default, PartialEq, Eq)]
struct Content(Vec<u8>);

impl Debug for Content {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes read", self.0.len())
    }
}

impl Tree {
    /// Takes in the tree at `root`. Nothing may change meanwhile.
    ///
    /// # Errors
    ///
    /// If something cannot be read.
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

    /// The names of files that are gone in `later`, of those that `select` picks. Files are told by inode: one that
    /// was renamed is not gone.
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

    /// The files that have no name in `later` that they have here. Files are told by name: one that was replaced is
    /// not gone, and an inode that is used again does not count.
    pub(crate) fn names_gone_from(&self, later: &Self) -> Total {
        self.total_of(|path| !later.entries.contains_key(path))
    }

    /// The files that `select` picks, in sum.
    pub(crate) fn total_of(&self, select: impl Fn(&Path) -> bool) -> Total {
        let mut total = Total::default();
        for (_, entry) in self.entries.iter().filter(|(path, entry)| !entry.is_directory && select(path)) {
            total += entry.total();
        }
        total
    }

    /// The first entry that `select` picks that is not what it was.
    pub(crate) fn first_change(&self, later: &Self, select: impl Fn(&Path) -> bool) -> Option<String> {
        let mut picked = self.entries.iter().filter(|(path, _)| select(path));
        picked.find_map(|(path, entry)| match later.entries.get(path) {
            None => Some(format!("{} is gone", path.display())),
            Some(after) if !entry.is_same(after) => Some(format!("{} changed", path.display())),
            Some(_) => None,
        })
    }

    /// The first entry of `later` that is not here.
    pub(crate) fn first_new<'a>(&self, later: &'a Self, select: impl Fn(&Path) -> bool) -> Option<&'a Path> {
        let is_new = |path: &&Path| !self.entries.contains_key(*path) && select(path);
        later.entries.keys().map(PathBuf::as_path).find(is_new)
    }

    /// The first entry that is touched in `later`, as `is_touched` decides, or that is new.
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

    /// What is there, without what every run does anew: inodes and times.
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

    /// Whether it is the same with the same content. Another name for it may have come or gone.
    pub(crate) fn is_same(&self, after: &Self) -> bool {
        let size_bytes = |entry: &Self| if entry.is_directory { 0 } else { entry.size_bytes };
        self.is_same_place(after)
            && size_bytes(self) == size_bytes(after)
            && self.modified == after.modified
            && self.content == after.content
    }

    /// Whether it is the same, whatever is in it by now.
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
        let difference = before.first_difference(&tree(), is_touched).unwrap();
        assert!(difference.starts_with("a: before Some(Entry") && difference.contains("2 bytes read"));
        fs::write(path("cache/c"), "").unwrap();
        assert_eq!(before.first_change(&tree(), |_| true).unwrap(), " changed");
    }
}
