//! The lower limit: only `unlinkat`, for names that are already in memory.
//!
//! Guarantees: only the system calls are timed. Listing and sorting come before. There is no check whether a
//! blob is in use, or whether a name still leads to the same file. No pruner can be faster without giving up
//! a guarantee.

use std::fs::{self, File};
use std::os::unix::fs::DirEntryExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use rustix::fs::{AtFlags, unlinkat};

/// The order of the names, and the number of threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnlinkLoop {
    /// By inode number, otherwise in the directory's order.
    pub(crate) by_inode: bool,
    pub(crate) threads: usize,
}

impl UnlinkLoop {
    /// Unlinks every file in a flat directory.
    pub(crate) fn run(self, directory: &Path) -> anyhow::Result<Duration> {
        let context = || format!("list `{}`", directory.display());
        let descriptor = File::open(directory).with_context(context)?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).with_context(context)? {
            let entry = entry.with_context(context)?;
            entries.push((entry.ino(), entry.file_name()));
        }
        if self.by_inode {
            entries.sort_unstable_by_key(|(inode, _)| *inode);
        }
        let share = entries.len().div_ceil(self.threads).max(1);
        let unlink = |names: &[(u64, _)]| {
            names.iter().try_for_each(|(_, name)| unlinkat(&descriptor, name, AtFlags::empty()))
        };
        let started = Instant::now();
        let done = thread::scope(|scope| {
            let threads: Vec<_> =
                entries.chunks(share).map(|names| scope.spawn(move || unlink(names))).collect();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Result<Vec<_>, _>>()
        });
        let elapsed = started.elapsed();
        let done = done.map_err(|_| anyhow!("a thread of the loop panicked"))?;
        let failed = || format!("unlink in `{}`", directory.display());
        done.into_iter().collect::<Result<(), _>>().with_context(failed)?;
        Ok(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn every_file_goes_and_nothing_beside_the_directory() {
        for (by_inode, threads) in [(true, 1), (true, 2), (false, 1)] {
            let home = TempDir::new().unwrap();
            let directory = home.path().join("cache");
            fs::create_dir(&directory).unwrap();
            fs::write(home.path().join("outside"), "").unwrap();
            for name in ["a", "b", "c"] {
                fs::write(directory.join(name), "").unwrap();
            }
            UnlinkLoop { by_inode, threads }.run(&directory).unwrap();
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
            assert!(home.path().join("outside").exists());
        }
    }
}
