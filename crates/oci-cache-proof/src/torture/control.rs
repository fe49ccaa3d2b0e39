//! Runs attempts on several threads.
//!
//! Guarantees: each item is tried once. If one cannot be tried, the part ends with its error.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::anyhow;

use crate::torture::row::Row;

/// Tries every item on `threads` threads, and adds the counts to `total`.
pub(crate) fn try_all<T: Sync>(
    things: &[T],
    threads: usize,
    total: &mut Row,
    attempt: impl Fn(&T) -> anyhow::Result<Row> + Sync,
) -> anyhow::Result<()> {
    let (next, sum) = (AtomicUsize::new(0), Mutex::new(Row::default()));
    let work = || -> anyhow::Result<()> {
        while let Some(thing) = things.get(next.fetch_add(1, Ordering::Relaxed)) {
            let row = attempt(thing).inspect_err(|_| next.store(things.len(), Ordering::Relaxed))?;
            sum.lock().unwrap_or_else(PoisonError::into_inner).merge(row);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    total.merge(sum.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}
