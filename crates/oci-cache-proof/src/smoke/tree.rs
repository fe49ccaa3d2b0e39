//! A directory tree as it is on disk, to compare with what it is later.
//!
//! Guarantees: links are not followed; everything that a prune could change is compared: names, inodes,
//! sizes, modes, owners, links and times of change.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::kit::total::Total;

/// The entries below a directory, and the directory itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    root: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    size_bytes: u64,
    is_directory: bool,
    content_changed: (i64, i64),
    status_changed: (i64, i64),
}

impl Tree {
    /// Lists the tree at `root`.
    ///
    /// # Errors
    ///
    /// If a directory cannot be listed; nothing may change meanwhile.
    pub(crate) fn list(root: &Path) -> anyhow::Result<Self> {
        let mut tree = Self { root: root.to_owned(), entries: BTreeMap::new() };
        tree.add(root).with_context(|| format!("failed to list {}", root.display()))?;
        Ok(tree)
    }

    /// The first entry that is not the same in `later`.
    pub(crate) fn first_difference(&self, later: &Self) -> Option<String> {
        let changed = self.entries.iter().find(|(path, entry)| later.entries.get(*path) != Some(entry));
        let added = later.entries.iter().find(|(path, _)| !self.entries.contains_key(*path));
        changed.or(added).map(|(path, _)| {
            let (before, after) = (self.entries.get(path), later.entries.get(path));
            format!("{}: before {before:?}, after {after:?}", path.display())
        })
    }

    /// What must be as it was after a prune, as the first difference from that: the directories stay,
    /// but for their times and sizes; no entry is new; what `is_blob` does not pick stays untouched.
    pub(crate) fn first_damage(&self, later: &Self) -> Option<String> {
        let damaged = self.entries.iter().find(|(path, entry)| match later.entries.get(*path) {
            None => !self.is_blob(path),
            Some(after) if entry.is_directory => !entry.is_same_directory(after),
            Some(_) if self.is_index(path) => false,
            Some(after) => *entry != after,
        });
        let added = later.entries.iter().find(|(path, _)| !self.entries.contains_key(*path));
        damaged.or(added).map(|(path, _)| {
            let (before, after) = (self.entries.get(path), later.entries.get(path));
            format!("{}: before {before:?}, after {after:?}", path.display())
        })
    }

    /// The blobs.
    pub(crate) fn blobs(&self) -> Total {
        self.total_of(|path| self.is_blob(path))
    }

    /// The files that are not in `later`.
    pub(crate) fn gone_from(&self, later: &Self) -> Total {
        self.total_of(|path| !later.entries.contains_key(path))
    }

    fn total_of(&self, select: impl Fn(&Path) -> bool) -> Total {
        let files = self.entries.iter().filter(|(path, entry)| !entry.is_directory && select(path));
        files.fold(Total::default(), |total, (_, entry)| Total {
            blobs: total.blobs + 1,
            bytes: total.bytes + entry.size_bytes,
        })
    }

    /// Whether this is a blob of a flat cache or of an OCI image layout.
    fn is_blob(&self, path: &Path) -> bool {
        let Ok(relative) = path.strip_prefix(&self.root) else { return false };
        let text = relative.to_string_lossy();
        let digits = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("blobs/sha256/"));
        digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// Whether this is the one file that a prune may rewrite.
    fn is_index(&self, path: &Path) -> bool {
        path == self.root.join("index.json")
    }

    fn add(&mut self, path: &Path) -> std::io::Result<()> {
        let entry = Entry::from(&fs::symlink_metadata(path)?);
        let is_directory = entry.is_directory;
        self.entries.insert(path.to_owned(), entry);
        if is_directory {
            for below in fs::read_dir(path)? {
                self.add(&below?.path())?;
            }
        }
        Ok(())
    }
}

impl Entry {
    fn is_same_directory(&self, after: &Self) -> bool {
        let identity = |entry: &Self| (entry.is_directory, entry.inode, entry.mode, entry.owner, entry.links);
        identity(self) == identity(after)
    }
}

impl From<&Metadata> for Entry {
    fn from(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            links: metadata.nlink(),
            size_bytes: metadata.size(),
            is_directory: metadata.is_dir(),
            content_changed: (metadata.mtime(), metadata.mtime_nsec()),
            status_changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_prune_may_change_and_what_it_may_not() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let blob = root.join("blobs/sha256").join("0".repeat(64));
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        fs::write(&blob, "12345").unwrap();
        fs::write(root.join("index.json"), "{}").unwrap();
        fs::write(root.join("README"), "foreign").unwrap();
        let before = Tree::list(root).unwrap();
        assert_eq!(before.blobs(), Total { blobs: 1, bytes: 5 });
        assert_eq!(before.first_difference(&Tree::list(root).unwrap()), None);

        fs::rename(&blob, root.join("elsewhere")).unwrap();
        let later = Tree::list(root).unwrap();
        assert!(before.first_difference(&later).is_some());
        assert!(before.first_damage(&later).unwrap().contains("elsewhere"));

        let outside = tempfile::tempdir().unwrap();
        fs::rename(root.join("elsewhere"), outside.path().join("blob")).unwrap();
        fs::write(root.join("index.json"), "{\"manifests\":[]}").unwrap();
        let later = Tree::list(root).unwrap();
        assert_eq!(before.first_damage(&later), None);
        assert_eq!(before.gone_from(&later), Total { blobs: 1, bytes: 5 });
        assert_eq!(later.blobs(), Total::default());

        fs::write(root.join("README"), "touched").unwrap();
        assert!(before.first_damage(&Tree::list(root).unwrap()).unwrap().contains("README"));
    }
}
