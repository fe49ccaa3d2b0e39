//! The threads of a removal that stand by until they are needed.
//!
//! Guarantees: they take part once a thread has seen that the disk makes it wait, and end when the removal does, even if
//! another thread panics.
//!
//! Why: where no removal waits for the disk, more threads than cores only get into each other's way. Where removals wait,
//! as with ext4's `discard`, more threads save most of the time.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::os::sys::times_waited;

/// Fewer waits say nothing: any close of a large file may wait for a lock.
const FEWEST_WAITS: u64 = 4;

/// Whether the reserve is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    NotYet,
    Needed,
    /// The removal ends.
    NoMore,
}

/// The threads that stand by.
#[derive(Debug)]
pub(crate) struct Reserve {
    need: Mutex<Need>,
    changed: Condvar,
}

/// A thread that takes part in a removal. When the first such thread is done, nothing is left in the queue.
#[derive(Debug)]
pub(crate) struct OnDuty<'a>(&'a Reserve);

impl Reserve {
    pub(crate) fn new() -> Self {
        Self { need: Mutex::new(Need::NotYet), changed: Condvar::new() }
    }

    /// Makes the calling thread one that takes part.
    pub(crate) fn on_duty(&self) -> OnDuty<'_> {
        OnDuty(self)
    }

    /// Waits until the reserve is needed. Returns false if it never is.
    pub(crate) fn is_needed(&self) -> bool {
        let need = self.need.lock().unwrap_or_else(PoisonError::into_inner);
        let need = self.changed.wait_while(need, |need| *need == Need::NotYet);
        *need.unwrap_or_else(PoisonError::into_inner) == Need::Needed
    }

    /// Runs `work`, which closes so many files, and calls the reserve if the thread waits for more than every second, or if
    /// nobody knows how often it waits.
    pub(crate) fn watch(&self, files: usize, work: impl FnOnce()) {
        let before = times_waited();
        work();
        let waits = times_waited().zip(before).map(|(after, before)| after.saturating_sub(before));
        if waits.is_none_or(|waits| waits >= FEWEST_WAITS && 2 * waits > files as u64) {
            self.call();
        }
    }

    /// Calls the reserve.
    pub(crate) fn call(&self) {
        self.settle(Need::Needed);
    }

    fn settle(&self, need: Need) {
        let mut known = self.need.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == Need::NotYet {
            *known = need;
            self.changed.notify_all();
        }
    }
}

impl Drop for OnDuty<'_> {
    fn drop(&mut self) {
        self.0.settle(Need::NoMore);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn only_who_waits_often_calls_the_reserve() {
        let wait = |times: usize| (0..times).for_each(|_| thread::sleep(Duration::from_millis(1)));
        let calls = |files, waits| {
            let reserve = Reserve::new();
            reserve.watch(files, || wait(waits));
            drop(reserve.on_duty());
            reserve.is_needed()
        };
        assert_eq!([calls(32, 0), calls(32, 12), calls(1, 1)], [false; 3]);
        assert_eq!([calls(32, 20), calls(8, 8)], [true; 2]);
    }

    /// What three threads that stand by learn from what happens meanwhile.
    fn standing_by(reserve: &Reserve, meanwhile: impl FnOnce()) -> [bool; 3] {
        thread::scope(|scope| {
            let threads = [(); 3].map(|()| scope.spawn(|| reserve.is_needed()));
            // They wait by now, or will find out at once.
            thread::sleep(Duration::from_millis(20));
            meanwhile();
            threads.map(|thread| thread.join().unwrap())
        })
    }

    #[test]
    fn all_of_the_reserve_ends_with_the_removal() {
        let reserve = Reserve::new();
        let panic = || {
            let _on_duty = reserve.on_duty();
            panic!("in the middle of a removal");
        };
        let panics = || assert!(thread::scope(|scope| scope.spawn(panic).join().is_err()));
        assert_eq!(standing_by(&reserve, panics), [false; 3]);
        reserve.call();
        assert!(!reserve.is_needed());
    }

    #[test]
    fn all_of_the_reserve_comes() {
        let reserve = Reserve::new();
        assert_eq!(standing_by(&reserve, || reserve.call()), [true; 3]);
    }
}
