//! Takes the cache's lock, and waits while another prune holds it.

use std::path::Path;

use anyhow::anyhow;
use oci_cache::{CacheDir, Error, Lock, Progress, escape_path};

use crate::cli::CacheArguments;
use crate::output;

/// Waits until this is the only prune of the cache. Returns `None` if a signal arrives first.
pub(crate) fn wait(
    cache: &mut CacheDir,
    arguments: &CacheArguments,
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
    let lock = match cache.lock(arguments.wait_timeout, progress, on_wait) {
        Err(Error::Locked { .. }) => {
            let holder = cache.opened_by().map_or_else(String::new, |process| {
                let name = escape_path(Path::new(&process.name));
                format!("; {name} (pid {}) has the directory open", process.pid)
            });
            return Err(anyhow!(
                "lock oci cache `{path}`: another process still holds the lock after {limit}{holder}"
            ));
        }
        lock => lock?,
    };
    if lock.as_ref().is_some_and(|lock| !lock.is_exclusive()) && !arguments.quiet {
        output::complain(
            "note: this file system does not support locks: another prune could run at the same time",
        );
    }
    Ok(lock)
}
