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
