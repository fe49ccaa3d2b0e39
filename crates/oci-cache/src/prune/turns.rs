//! The threads of a removal take turns in each directory, because the kernel does too.
//!
//! Guarantees: one thread at a time has the turn in a directory. A thread that holds a lease waits for its turn only
//! [briefly](BRIEFLY), so that it can release the lease first: where an unlink takes long, as on a frozen file system, no
//! process waits for more than one file of a directory for longer than that, and for as long as the thread itself waits for
//! a core.

use std::hint;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rustix::fs::FsWord;

use crate::cache::inventory::Tree;

/// For how long a thread asks for its turn while it holds a lease, and whoever opens its file waits with it: about as long
/// as the unlinks of all other threads take, where none of them waits for a disk. To give up costs a second probe of the
/// file. It does not offer its core to others meanwhile: it might get it back only after milliseconds.
pub(crate) const BRIEFLY: Duration = Duration::from_micros(200);
/// Pauses of the processor between two questions: below a microsecond.
const PAUSES: u32 = 20;
/// `TMPFS_MAGIC` in Linux's `include/uapi/linux/magic.h`.
const TMPFS: FsWord = 0x0102_1994;

/// Whose turn it is in each directory of a tree.
#[derive(Debug)]
pub(crate) struct Turns(Vec<Mutex<()>>);

/// A turn; it ends on drop.
#[derive(Debug)]
pub(crate) struct Turn<'a>(#[expect(dead_code, reason = "held for its drop")] Option<MutexGuard<'a, ()>>);

impl Turns {
    /// On a tmpfs, all threads have their turn at once: it cannot be frozen, and never waits for a disk.
    pub(crate) fn in_directories_of(tree: &Tree, file_system: FsWord) -> Self {
        let directories = if file_system == TMPFS { 0 } else { tree.directories.len() };
        Self((0..directories).map(|_| Mutex::default()).collect())
    }

    /// Takes the turn in the directory at this position, if it comes within this time.
    pub(crate) fn take_within(&self, directory: usize, time: Duration) -> Option<Turn<'_>> {
        let Some(turn) = self.0.get(directory) else { return Some(Turn(None)) };
        if let Some(taken) = try_take(turn) {
            return Some(taken);
        }
        let since = Instant::now();
        while since.elapsed() < time {
            (0..PAUSES).for_each(|_| hint::spin_loop());
            if let Some(taken) = try_take(turn) {
                return Some(taken);
            }
        }
        None
    }

    /// Waits for the turn in the directory at this position.
    pub(crate) fn wait(&self, directory: usize) -> Turn<'_> {
        Turn(self.0.get(directory).map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn try_take(turn: &Mutex<()>) -> Option<Turn<'_>> {
    match turn.try_lock() {
        Ok(guard) => Some(Turn(Some(guard))),
        Err(TryLockError::Poisoned(poisoned)) => Some(Turn(Some(poisoned.into_inner()))),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn whoever_is_not_served_briefly_can_wait() {
        let turns = Turns(vec![Mutex::default(), Mutex::default()]);
        let turn = turns.take_within(0, BRIEFLY).unwrap();
        assert!(turns.take_within(1, BRIEFLY).is_some());
        let times = (0..10).map(|_| {
            let since = Instant::now();
            assert!(turns.take_within(0, BRIEFLY).is_none());
            since.elapsed()
        });
        let shortest = times.min().unwrap();
        assert!((BRIEFLY..Duration::from_millis(10)).contains(&shortest), "{shortest:?}");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(turns.wait(0)));
            drop(turn);
            waiting.join().unwrap();
        });
        assert!(turns.take_within(0, BRIEFLY).is_some());
    }

    #[test]
    fn a_turn_that_comes_in_time_is_taken() {
        let turns = Turns(vec![Mutex::default()]);
        let turn = turns.take_within(0, BRIEFLY).unwrap();
        thread::scope(|scope| {
            let (asks, is_asking) = mpsc::channel();
            let asking = scope.spawn({
                let turns = &turns;
                move || {
                    asks.send(()).unwrap();
                    turns.take_within(0, Duration::from_secs(60)).is_some()
                }
            });
            is_asking.recv().unwrap();
            thread::sleep(Duration::from_millis(5));
            drop(turn);
            assert!(asking.join().unwrap());
        });
    }

    #[test]
    fn a_thread_that_panicked_holds_nobody_up() {
        let turns = Turns(vec![Mutex::default()]);
        thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _turn = turns.take_within(0, BRIEFLY).unwrap();
                panic!("in the middle of a turn");
            });
            assert!(panicking.join().is_err());
        });
        assert!(turns.take_within(0, Duration::ZERO).is_some());
    }
}
