//! The turn of a command: waiting for another prune of the same cache.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use oci_cache::{CacheDir, Progress, escape_path};

use crate::cli::CacheArguments;
use crate::output;

/// How often the lock is asked for.
const POLL: Duration = Duration::from_millis(20);

/// Waits to become the one prune of the cache. Returns `false` if a signal came meanwhile.
pub(crate) fn wait(
    cache: &mut CacheDir,
    arguments: &CacheArguments,
    progress: &Progress,
) -> anyhow::Result<bool> {
    let started = Instant::now();
    let mut has_told = false;
    while !cache.try_lock()? {
        if progress.is_stopped() {
            return Ok(false);
        }
        let path = escape_path(cache.path());
        let limit = humantime::format_duration(arguments.wait_timeout);
        if started.elapsed() >= arguments.wait_timeout {
            return Err(anyhow!("lock oci cache `{path}`: still locked by another process after {limit}"));
        }
        if !has_told && !arguments.quiet {
            output::complain(&format!(
                "waiting up to {limit} for the lock of `{path}`, which another prune or a puller holds"
            ));
        }
        has_told = true;
        thread::sleep(POLL);
    }
    if cache.has_no_locks() && !arguments.quiet {
        output::complain(
            "note: this file system has no locks: nothing keeps another prune from running beside this one",
        );
    }
    Ok(true)
}
