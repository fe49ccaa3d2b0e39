//! The threads of a removal that stand by until they are needed.
//!
//! Guarantees: they take part once a thread has seen that the disk makes it wait, and end when the removal does, even if
//! another thread panics.
//!
//! Why: where no removal waits for the disk, more threads than cores only get into each other's way. Where removals wait,
//! as with ext4's `discard`, more threads save most of the time.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::os::sys::times_waited;

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

/// A thread that takes part in a removal. When the first such thread is done, so is the removal.
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

    /// Runs `work`, which closes so many files, and calls the reserve if the thread waits about once for each.
    pub(crate) fn watch(&self, files: usize, work: impl FnOnce()) {
        let before = times_waited();
        work();
        if 2 * times_waited().saturating_sub(before) > files as u64 {
            self.settle(Need::Needed);
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
        let reserve = Reserve::new();
        let wait = |times: usize| (0..times).for_each(|_| thread::sleep(Duration::from_millis(1)));
        reserve.watch(32, || wait(4));
        assert_eq!(*reserve.need.lock().unwrap(), Need::NotYet);
        reserve.watch(32, || wait(32));
        drop(reserve.on_duty());
        assert!(reserve.is_needed());
    }

    #[test]
    fn the_reserve_ends_with_the_removal() {
        let reserve = Reserve::new();
        thread::scope(|scope| {
            let standing_by = scope.spawn(|| reserve.is_needed());
            let panicking = scope.spawn(|| {
                let _on_duty = reserve.on_duty();
                panic!("in the middle of a removal");
            });
            assert!(panicking.join().is_err() && !standing_by.join().unwrap());
        });
        reserve.call();
        assert!(!reserve.is_needed());
    }
}
