//! The access times that this process's own reads have set.
//!
//! Guarantees: such a time is no sign that somebody else used the blob. It is not the blob's last use either, so plans do
//! not see it. A read by anybody else afterwards sets another time, if the mount records it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::os::status::{Status, Timestamp};

/// The last access time that an own read set, by the index of the blob.
#[derive(Debug, Default)]
pub(crate) struct OwnReads(Mutex<HashMap<usize, Timestamp>>);

impl OwnReads {
    /// Records that this process has read a blob, if that moved its access time from `before`.
    pub(crate) fn record(&self, blob: usize, before: Timestamp, after: &Status) {
        if after.accessed != before {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(blob, after.accessed);
        }
    }

    /// Whether an own read set this access time.
    pub(crate) fn explain(&self, blob: usize, accessed: Timestamp) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&blob) == Some(&accessed)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::os::fd::AsFd as _;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_later_read_by_somebody_else_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        fs::write(&path, "content").unwrap();
        let file = File::open(&path).unwrap();
        let read_at = |seconds| {
            let accessed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            file.set_times(FileTimes::new().set_accessed(accessed)).unwrap();
            Status::of_descriptor(file.as_fd()).unwrap()
        };
        let (before, own, other) = (read_at(1), read_at(2), read_at(3));
        let reads = OwnReads::default();
        reads.record(7, before.accessed, &before);
        assert!(!reads.explain(7, before.accessed));
        reads.record(7, before.accessed, &own);
        assert!(reads.explain(7, own.accessed));
        assert!(!reads.explain(7, other.accessed) && !reads.explain(8, own.accessed));
    }
}
