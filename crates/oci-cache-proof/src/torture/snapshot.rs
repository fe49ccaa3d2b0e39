//! Everything in a directory, as it is on disk: to tell what went, what changed and what came.
//!
//! Guarantees: links are not followed, no access time moves. Files are told by inode, so one that was
//! renamed is not taken for one that went.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::OFlags;

use crate::kit::process::while_none_starts;
use crate::kit::total::Total;

/// The most that is read of a file.
const MAX_BYTES: u64 = 1 << 20;

/// The entries below a directory, by relative path.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) inode: u64,
    pub(crate) is_file: bool,
    pub(crate) size_bytes: u64,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    /// Of a file, what is in it; of a link, where it leads.
    content: Vec<u8>,
}

impl Snapshot {
    /// Takes in what is below `root`.
    ///
    /// # Errors
    ///
    /// If something cannot be read.
    pub(crate) fn of(root: &Path) -> anyhow::Result<Self> {
        let mut snapshot = Self::default();
        snapshot.add(root, Path::new("")).with_context(|| format!("list {}", root.display()))?;
        Ok(snapshot)
    }

    fn add(&mut self, root: &Path, below: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let path = below.join(entry?.file_name());
            let full = root.join(&path);
            let metadata = fs::symlink_metadata(&full)?;
            let entry = Entry {
                inode: metadata.ino(),
                is_file: metadata.is_file(),
                size_bytes: if metadata.is_dir() { 0 } else { metadata.size() },
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                content: while_none_starts(|| content_of(&full, &metadata))?,
            };
            self.entries.insert(path.clone(), entry);
            if metadata.is_dir() {
                self.add(root, &path)?;
            }
        }
        Ok(())
    }

    /// The names of files that are gone in `later`, of those that `select` picks, wherever what is left
    /// of them is now.
    pub(crate) fn gone_from(&self, later: &Self, select: impl Fn(&Path) -> bool) -> Total {
        let mut left: HashMap<u64, u64> = HashMap::new();
        for entry in later.entries.values().filter(|entry| entry.is_file) {
            *left.entry(entry.inode).or_default() += 1;
        }
        let mut gone = Total::default();
        for (_, entry) in self.entries.iter().filter(|(path, entry)| entry.is_file && select(path)) {
            match left.get_mut(&entry.inode) {
                Some(names @ 1..) => *names -= 1,
                _ => gone += Total { blobs: 1, bytes: entry.size_bytes },
            }
        }
        gone
    }

    /// The first entry that `select` picks that is not as it was.
    pub(crate) fn first_change(&self, later: &Self, select: impl Fn(&Path) -> bool) -> Option<String> {
        let mut picked = self.entries.iter().filter(|(path, _)| select(path));
        picked.find_map(|(path, entry)| match later.entries.get(path) {
            None => Some(format!("{} is gone", path.display())),
            Some(after) if after != entry => Some(format!("{} changed", path.display())),
            Some(_) => None,
        })
    }

    /// What is there, without what every run does anew: inodes and times.
    pub(crate) fn outline(&self) -> Vec<String> {
        let line = |(path, entry): (&PathBuf, &Entry)| {
            let content = String::from_utf8_lossy(&entry.content);
            format!("{} {:o} {:?} {content:?}", path.display(), entry.mode, entry.owner)
        };
        self.entries.iter().map(line).collect()
    }

    /// The paths that hold a name of what a killed prune leaves.
    pub(crate) fn leftovers(&self) -> impl Iterator<Item = &Path> {
        let is_leftover = |path: &&PathBuf| path.to_string_lossy().contains(".pruning-");
        self.entries.keys().filter(is_leftover).map(PathBuf::as_path)
    }
}

fn content_of(path: &Path, metadata: &fs::Metadata) -> std::io::Result<Vec<u8>> {
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

/// Where two outlines first differ.
pub(crate) fn first_difference(expected: &[String], found: &[String]) -> Option<String> {
    let missing = expected.iter().find(|line| !found.contains(line)).map(|line| format!("missing {line}"));
    missing.or_else(|| {
        found.iter().find(|line| !expected.contains(line)).map(|line| format!("unexpected {line}"))
    })
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
        let before = Snapshot::of(directory.path()).unwrap();
        fs::rename(path("a"), path("z")).unwrap();
        fs::rename(path("c"), path("b")).unwrap();
        let after = Snapshot::of(directory.path()).unwrap();
        assert_eq!(before.gone_from(&after, |_| true), Total { blobs: 1, bytes: 2 });
        assert_eq!(before.first_change(&after, |path| path == "a").unwrap(), "a is gone");
        assert_eq!(before.first_change(&after, |path| path == "b").unwrap(), "b changed");
        assert!(first_difference(&before.outline(), &after.outline()).unwrap().starts_with("missing a"));
    }
}
