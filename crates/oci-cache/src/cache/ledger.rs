//! Counts of removed and kept blobs, and the disk space they occupy.
//!
//! Guarantees: sums saturate and never wrap. The disk space of a file with several hard links counts
//! once, and as freed only if all its links are removed. What a file uses counts once, however many names of it are in
//! the cache.

use std::collections::HashMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// A count of blobs and their logical size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The number of blobs.
    pub blobs: u64,
    /// Their total logical size, in bytes.
    pub bytes: u64,
}

impl Tally {
    /// Adds one blob.
    pub fn add(&mut self, size_bytes: u64) {
        *self += Self { blobs: 1, bytes: size_bytes };
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.blobs = self.blobs.saturating_add(other.blobs);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Predicts the disk space that removing names frees.
#[derive(Debug, Default)]
pub(crate) struct DiskLedger {
    freed_bytes: u64,
    /// For files with several hard links, by inode: the number of links left, and the space occupied on
    /// disk.
    linked: HashMap<u64, (u32, u64)>,
}

impl DiskLedger {
    /// Removes one name of the file `inode`, which has `links` names and occupies `disk_bytes`.
    pub(crate) fn remove_name(&mut self, inode: u64, links: u32, disk_bytes: u64) {
        if links > 1 {
            let (names_left, _) = self.linked.entry(inode).or_insert((links, disk_bytes));
            let is_last = *names_left == 1;
            *names_left = names_left.saturating_sub(1);
            if !is_last {
                return;
            }
        }
        self.freed_bytes = self.freed_bytes.saturating_add(disk_bytes);
    }

    /// Takes [`remove_name`](Self::remove_name) back.
    pub(crate) fn restore_name(&mut self, inode: u64, links: u32, disk_bytes: u64) {
        if links > 1 {
            let (names_left, _) = self.linked.entry(inode).or_insert((links, disk_bytes));
            *names_left += 1;
            if *names_left > 1 {
                return;
            }
        }
        self.freed_bytes = self.freed_bytes.saturating_sub(disk_bytes);
    }

    /// The disk space of all files that lost a name, each counted once, whether or not a name is left.
    pub(crate) fn occupied_bytes(&self) -> u64 {
        let left = self.linked.values().filter(|(names_left, _)| *names_left > 0);
        left.fold(self.freed_bytes, |sum, (_, disk_bytes)| sum.saturating_add(*disk_bytes))
    }

    /// The disk space that is free once the names are removed.
    pub(crate) const fn freed_bytes(&self) -> u64 {
        self.freed_bytes
    }
}

/// Sums up what files use: each file once, however many names it has.
#[derive(Debug, Default)]
pub(crate) struct UsedLedger {
    used_bytes: u64,
    /// For files with several hard links, by inode: how many of the names were added.
    linked: HashMap<u64, u32>,
}

impl UsedLedger {
    /// Adds one name of the file `inode`, which has `links` names and uses `used_bytes`.
    pub(crate) fn add_name(&mut self, inode: u64, links: u32, used_bytes: u64) {
        if links > 1 {
            let names = self.linked.entry(inode).or_default();
            *names += 1;
            if *names > 1 {
                return;
            }
        }
        self.used_bytes = self.used_bytes.saturating_add(used_bytes);
    }

    /// Removes a name that was added.
    pub(crate) fn remove_name(&mut self, inode: u64, links: u32, used_bytes: u64) {
        if links > 1 {
            let names = self.linked.entry(inode).or_default();
            *names = names.saturating_sub(1);
            if *names > 0 {
                return;
            }
        }
        self.used_bytes = self.used_bytes.saturating_sub(used_bytes);
    }

    /// How many of a file's names are left, if it has several links.
    pub(crate) fn names_of(&self, inode: u64) -> u32 {
        self.linked.get(&inode).copied().unwrap_or(0)
    }

    /// What the files use that have a name left, in bytes.
    pub(crate) const fn used_bytes(&self) -> u64 {
        self.used_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_freed_with_its_last_name() {
        let mut ledger = DiskLedger::default();
        ledger.remove_name(1, 1, 4096);
        ledger.remove_name(2, 2, 8192);
        assert_eq!(ledger.freed_bytes(), 4096);
        ledger.remove_name(2, 2, 8192);
        assert_eq!(ledger.freed_bytes(), 4096 + 8192);
    }

    #[test]
    fn what_is_taken_back_counts_no_more() {
        let mut ledger = DiskLedger::default();
        for (inode, links) in [(1, 1), (2, 2), (2, 2)] {
            ledger.remove_name(inode, links, 4096);
        }
        ledger.restore_name(2, 2, 4096);
        assert_eq!((ledger.freed_bytes(), ledger.occupied_bytes()), (4096, 8192));
        ledger.restore_name(1, 1, 4096);
        ledger.remove_name(2, 2, 4096);
        assert_eq!(ledger.freed_bytes(), 4096);
        // A name that freed nothing takes nothing with it.
        ledger.remove_name(3, 2, 4096);
        ledger.restore_name(3, 2, 4096);
        assert_eq!(ledger.freed_bytes(), 4096);
    }

    #[test]
    fn a_file_is_used_as_long_as_it_has_a_name() {
        let mut ledger = UsedLedger::default();
        let used = |ledger: &UsedLedger| ledger.used_bytes();
        ledger.add_name(1, 1, 10);
        ledger.add_name(2, 3, 100);
        ledger.add_name(2, 3, 100);
        assert_eq!(used(&ledger), 110);
        ledger.remove_name(2, 3, 100);
        assert_eq!(used(&ledger), 110);
        ledger.remove_name(2, 3, 100);
        assert_eq!(used(&ledger), 10);
        ledger.add_name(3, 1, u64::MAX);
        assert_eq!(used(&ledger), u64::MAX);
    }

    #[test]
    fn sums_saturate() {
        let mut tally = Tally { blobs: u64::MAX, bytes: u64::MAX };
        tally.add(1);
        assert_eq!(tally, Tally { blobs: u64::MAX, bytes: u64::MAX });
    }
}
