//! Counts of removed and kept blobs, and the disk space they occupy.
//!
//! Guarantees: sums saturate and never wrap. The disk space of a file with several hard links counts
//! once, and as freed only if all its links are removed.

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
            *names_left = names_left.saturating_sub(1);
        } else {
            self.freed_bytes = self.freed_bytes.saturating_add(disk_bytes);
        }
    }

    /// The disk space of all files that lost a name, each counted once, whether or not a name is left.
    pub(crate) fn occupied_bytes(&self) -> u64 {
        self.linked.values().fold(self.freed_bytes, |sum, (_, disk_bytes)| sum.saturating_add(*disk_bytes))
    }

    /// The disk space that is free once the names are removed.
    pub(crate) fn freed_bytes(&self) -> u64 {
        let last_names = self.linked.values().filter(|(names_left, _)| *names_left == 0);
        last_names.fold(self.freed_bytes, |sum, (_, disk_bytes)| sum.saturating_add(*disk_bytes))
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
    fn sums_saturate() {
        let mut tally = Tally { blobs: u64::MAX, bytes: u64::MAX };
        tally.add(1);
        assert_eq!(tally, Tally { blobs: u64::MAX, bytes: u64::MAX });
    }
}
