//! Shows the progress of a prune or a verification, and stops it.
//!
//! Guarantees: a stop takes effect between two entries. The current entry is finished, and everything
//! done so far is counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What is called while an operation runs.
type Callback = Box<dyn Fn(&Progress) + Send + Sync>;

/// How often the callback is called.
const TICK: Duration = Duration::from_millis(50);

/// Progress of one operation, shared with the threads that watch or stop it.
#[derive(Default)]
pub struct Progress {
    /// Set this to stop the operation. It is an `Arc` so that a signal handler can hold it.
    pub stop: Arc<AtomicBool>,
    done: Count,
    total: Count,
    /// The stage, as its number.
    stage: AtomicU8,
    callback: Option<Callback>,
}

/// What an operation does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has not begun.
    #[default]
    Waiting,
    /// It hashes blobs.
    Hashing,
    /// It watches the cache for the length of the grace, before it removes anything.
    Watching,
    /// It looks for pulls.
    Looking,
    /// It removes.
    Removing,
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advance {
    /// Blobs processed so far.
    pub blobs: u64,
    /// Their logical size, or the part of it that was read so far, in bytes.
    pub bytes: u64,
    /// Blobs to process in total.
    pub total_blobs: u64,
    /// Logical size of those blobs, in bytes.
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
    /// Creates a progress that calls `callback` while an operation runs, about 20 times a second, and once
    /// when it ends. The callback runs on the thread that called the operation. It may set
    /// [`stop`](Self::stop).
    #[must_use]
    pub fn with_callback(callback: impl Fn(&Self) + Send + Sync + 'static) -> Self {
        Self { callback: Some(Box::new(callback)), ..Self::default() }
    }

    /// Returns how far the operation has come. A prune to a goal restarts from zero in each round.
    #[must_use]
    pub fn advance(&self) -> Advance {
        let ((blobs, bytes), (total_blobs, total_bytes)) = (self.done.get(), self.total.get());
        Advance { blobs, bytes, total_blobs, total_bytes }
    }

    /// What the operation does at the moment.
    #[must_use]
    pub fn stage(&self) -> Stage {
        let number = self.stage.load(Ordering::Relaxed);
        let stages = [Stage::Hashing, Stage::Watching, Stage::Looking, Stage::Removing];
        stages.into_iter().find(|stage| *stage as u8 == number).unwrap_or_default()
    }

    /// Whether a stop was requested.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Goes on to another stage.
    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Starts an operation of the given size.
    pub(crate) fn begin(&self, stage: Stage, total_blobs: u64, total_bytes: u64) {
        self.enter(stage);
        self.total.set(total_blobs, total_bytes);
        self.done.set(0, 0);
    }

    /// Adds to the work done.
    pub(crate) fn add(&self, blobs: u64, bytes: u64) {
        self.done.blobs.fetch_add(blobs, Ordering::Relaxed);
        self.done.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether there is a callback.
    pub(crate) const fn has_callback(&self) -> bool {
        self.callback.is_some()
    }

    /// Calls the callback until other threads are done: they may lack this process's rights and open files.
    pub(crate) fn tell_until(&self, is_done: impl Fn() -> bool) {
        let Some(callback) = &self.callback else { return };
        while !is_done() {
            thread::park_timeout(TICK);
            callback(self);
        }
        callback(self);
    }

    /// Waits for the whole duration, or until a stop is requested.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_told() {
        let progress = Progress::default();
        assert_eq!(progress.stage(), Stage::Waiting);
        for stage in [Stage::Hashing, Stage::Watching, Stage::Looking, Stage::Removing, Stage::Waiting] {
            progress.enter(stage);
            assert_eq!(progress.stage(), stage);
        }
        progress.add(1, 10);
        progress.begin(Stage::Removing, 3, 30);
        let begun = Advance { blobs: 0, bytes: 0, total_blobs: 3, total_bytes: 30 };
        assert_eq!((progress.stage(), progress.advance()), (Stage::Removing, begun));
    }
}
