//! The threads of a removal take turns in each directory, because the kernel does too.
//!
//! Guarantees: one thread at a time has the turn in a directory. A thread that holds a lease gives up waiting [soon](SOON),
//! so that it can release the lease first: where an unlink takes long, as on a frozen file system, no process waits for
//! more than one file of a directory.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{hint, thread};

use rustix::fs::FsWord;

use crate::cache::inventory::Tree;

/// For how long a thread asks for its turn before it gives up, and whoever opens its file waits with it: about as long as
/// all threads need, one after the other, where no unlink waits for a disk. To give up costs a second probe of the file.
const SOON: Duration = Duration::from_micros(200);
/// How often to ask before the core is offered to a thread that may have the turn: about as long as a few unlinks.
const ATTEMPTS: u32 = 1000;
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

    /// Takes the turn in the directory at this position, if it comes [soon](SOON).
    pub(crate) fn take_soon(&self, directory: usize) -> Option<Turn<'_>> {
        let Some(turn) = self.0.get(directory) else { return Some(Turn(None)) };
        let since = Instant::now();
        loop {
            for _ in 0..ATTEMPTS {
                if let Ok(guard) = turn.try_lock() {
                    return Some(Turn(Some(guard)));
                }
                hint::spin_loop();
            }
            if since.elapsed() >= SOON {
                return None;
            }
            thread::yield_now();
        }
    }

    /// Waits for the turn in the directory at this position.
    pub(crate) fn wait(&self, directory: usize) -> Turn<'_> {
        Turn(self.0.get(directory).map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_served_soon_can_wait() {
        let turns = Turns(vec![Mutex::default(), Mutex::default()]);
        let turn = turns.take_soon(0).unwrap();
        assert!(turns.take_soon(0).is_none() && turns.take_soon(1).is_some());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(turns.wait(0)));
            drop(turn);
            waiting.join().unwrap();
        });
        assert!(turns.take_soon(0).is_some());
    }
}
