//! How old a file may seem to a prune.
//!
//! Guarantees: in doubt it is old: then a pull that finds it gone blames itself.

use std::time::Duration;

use oci_cache::Timestamp;
use oci_cache_cli::clock;

/// How far behind the clock a file's times may be: the kernel takes them from the last tick
/// (`CLOCK_REALTIME_COARSE`, `clock_gettime(2)`), and the slowest has 100 a second.
const TICK: Duration = Duration::from_millis(10);

/// How long ago that was by the clock from which files have their times, its steps included.
pub(crate) fn since(time: Timestamp) -> Duration {
    time.age_at(clock::now())
}

/// Whether a file that was last used at that time may count as so old.
pub(crate) fn is_older_than(used: Timestamp, age: Duration) -> bool {
    since(used) + TICK >= age
}
