//! What a running prune or verification shows of itself, and the way to stop it.
//!
//! Guarantees: a stop takes effect between two entries: the one at hand is finished, and everything
//! done until then is counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Shared between the work and whoever watches or stops it from another thread.
#[derive(Default)]
pub struct Progress {
    /// Set it to stop the work; an `Arc`, so that a signal handler can hold it.
    pub stop: Arc<AtomicBool>,
    done: Count,
    total: Count,
    callback: Option<Box<dyn Fn(Advance) + Send + Sync>>,
}

/// How far the work is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advance {
    /// Blobs dealt with so far.
    pub blobs: u64,
    /// Their logical size, or how much of it was read, in bytes.
    pub bytes: u64,
    /// Blobs to deal with in all.
    pub total_blobs: u64,
    /// Their logical size, in bytes.
    pub total_bytes: u64,
}

#[derive(Debug, Default)]
struct Count {
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn set(&self, blobs: u64, bytes: u64) {
        self.blobs.store(blobs, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.blobs.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Progress {
    /// A progress that calls `callback` after each step, from whichever thread did it: often, so it should
    /// return at once.
    #[must_use]
    pub fn with_callback(callback: impl Fn(Advance) + Send + Sync + 'static) -> Self {
        Self { callback: Some(Box::new(callback)), ..Self::default() }
    }

    /// How far the work is. A prune to a goal begins anew with each round.
    #[must_use]
    pub fn advance(&self) -> Advance {
        let ((blobs, bytes), (total_blobs, total_bytes)) = (self.done.get(), self.total.get());
        Advance { blobs, bytes, total_blobs, total_bytes }
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Begins a piece of work of that size.
    pub(crate) fn begin(&self, total_blobs: u64, total_bytes: u64) {
        self.total.set(total_blobs, total_bytes);
        self.done.set(0, 0);
    }

    /// Counts what was done.
    pub(crate) fn add(&self, blobs: u64, bytes: u64) {
        self.done.blobs.fetch_add(blobs, Ordering::Relaxed);
        self.done.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(callback) = &self.callback {
            callback(self.advance());
        }
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

impl fmt::Debug for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Progress");
        debug.field("stop", &self.is_stopped()).field("advance", &self.advance()).finish_non_exhaustive()
    }
}
