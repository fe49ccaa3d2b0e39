//! What a running prune shows of itself, and the way to stop it.
//!
//! Guarantees: a stop takes effect between two entries: the one at hand is finished, and everything
//! done until then is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Shared between a prune and whoever watches it from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Set it to stop the prune; an `Arc`, so that a signal handler can hold it.
    pub stop: Arc<AtomicBool>,
    /// Blobs dealt with so far.
    pub blobs: AtomicU64,
    /// Their logical size, in bytes.
    pub bytes: AtomicU64,
}

impl Progress {
    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self, blobs: u64, bytes: u64) {
        self.blobs.fetch_add(blobs, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits for the whole duration, or until a stop is asked for.
    pub(crate) fn wait(&self, duration: Duration) {
        const SLICE: Duration = Duration::from_millis(10);
        let mut left = duration;
        while !left.is_zero() && !self.is_stopped() {
            let slice = left.min(SLICE);
            thread::sleep(slice);
            left -= slice;
        }
    }
}
