//! The change times that this process's own removals have set.
//!
//! Guarantees: removing or renaming one name of a file moves the change time of the file. Such a time is no sign that
//! another file took the place of its other names. A change by anybody else afterwards sets another time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::os::status::Timestamp;

/// The last change time that an own removal set, by inode; only of files that had other names.
#[derive(Debug, Default)]
pub(crate) struct OwnChanges(Mutex<HashMap<u64, Timestamp>>);

impl OwnChanges {
    /// Records the change time that a file has after one of its names was removed or renamed.
    pub(crate) fn record(&self, inode: u64, changed: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(inode, changed);
    }

    /// Whether an own removal set this change time.
    pub(crate) fn explain(&self, inode: u64, changed: Timestamp) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&inode) == Some(&changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_own_change_of_the_file_is_explained() {
        let changes = OwnChanges::default();
        changes.record(7, Timestamp(1));
        changes.record(7, Timestamp(2));
        let explained = [(7, 2), (7, 1), (7, 3), (8, 2)];
        let explained = explained.map(|(inode, changed)| changes.explain(inode, Timestamp(changed)));
        assert_eq!(explained, [true, false, false, false]);
    }
}
