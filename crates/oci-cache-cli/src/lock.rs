//! Takes the cache's lock, and waits while another prune holds it.

use std::path::Path;

use anyhow::anyhow;
use oci_cache::{CacheDir, Error, Lock, Process, Progress, escape_path};

use crate::cli::CacheArguments;
use crate::held_off::LockTimeout;
use crate::output;

/// Waits until this is the only prune of the cache. A prune that watches first may go on beside readers that hold the
/// lock. Returns `None` if a signal arrives first.
pub(crate) fn wait(
    cache: &mut CacheDir,
    arguments: &CacheArguments,
    watches_first: bool,
    progress: &Progress,
) -> anyhow::Result<Option<Lock>> {
    let path = escape_path(cache.path());
    let limit = humantime::format_duration(arguments.wait_timeout);
    let on_wait = || {
        if !arguments.quiet {
            output::complain(&format!(
                "waiting up to {limit}: another prune or a puller holds the lock of `{path}`"
            ));
        }
    };
    let lock = match watches_first {
        true => cache.lock_beside_readers(arguments.wait_timeout, progress, on_wait),
        false => cache.lock(arguments.wait_timeout, progress, on_wait),
    };
    let lock = match lock {
        Err(Error::Locked { .. }) => {
            let holder = cache.opened_by().map_or_else(String::new, |process| {
                format!("; {} has the directory open: run the prune again once it has ended", name(&process))
            });
            let message = format!(
                "lock oci cache `{path}`: another process still holds the lock after {limit}{holder}"
            );
            return Err(anyhow!(LockTimeout { message, held_off: None }));
        }
        lock => lock?,
    };
    if !arguments.quiet {
        output::complain_all(lock.as_ref().and_then(note));
    }
    Ok(lock)
}

/// What people should know about the lock.
fn note(lock: &Lock) -> Option<String> {
    if lock.gave_index_back() {
        return Some("note: gave index.json back the place that a killed prune had taken from it".to_owned());
    }
    if let Some(reader) = lock.reader() {
        let reader = name(reader);
        return Some(format!(
            "note: {reader} holds the cache's lock, but cannot write to the cache: goes on beside it, after the watch"
        ));
    }
    let why = "note: this file system does not support locks: another prune could run at the same time";
    (!lock.is_exclusive()).then(|| why.to_owned())
}

/// A process by its name, its ID and its user.
fn name(process: &Process) -> String {
    let user = process.user().map_or_else(String::new, |user| format!(" of user {user}"));
    format!("{} (pid {}){user}", escape_path(Path::new(&process.name)), process.pid)
}
