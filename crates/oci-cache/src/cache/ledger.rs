//! Counts of what goes and what stays, and the disk space behind them.
//!
//! Guarantees: sums saturate, they never wrap. A file with several names is counted on disk once, and
//! only when all its names go.

use std::collections::HashMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// A count of blobs and their logical size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub blobs: u64,
    /// Their logical size together, in bytes.
    pub bytes: u64,
}

impl Tally {
    /// Counts one more.
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

/// What the removal of names frees on disk, foretold.
#[derive(Debug, Default)]
pub(crate) struct DiskLedger {
    freed_bytes: u64,
    /// For files of several names, by inode: how many names are still to go, and what it occupies.
    linked: HashMap<u64, (u32, u64)>,
}

impl DiskLedger {
    /// Takes one name of the file `inode` off, which has `links` names and occupies `disk_bytes`.
    pub(crate) fn remove_name(&mut self, inode: u64, links: u32, disk_bytes: u64) {
        if links > 1 {
            let (names_left, _) = self.linked.entry(inode).or_insert((links, disk_bytes));
            *names_left = names_left.saturating_sub(1);
        } else {
            self.freed_bytes = self.freed_bytes.saturating_add(disk_bytes);
        }
    }

    /// What the files occupy of which names were taken off, each file once, whether or not all its names
    /// were.
    pub(crate) fn occupied_bytes(&self) -> u64 {
        self.linked.values().fold(self.freed_bytes, |sum, (_, disk_bytes)| sum.saturating_add(*disk_bytes))
    }

    /// The bytes on disk that are free once all names taken off are gone.
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
