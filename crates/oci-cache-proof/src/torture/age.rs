//! The age that a file may have for a prune.
//!
//! Guarantees: if in doubt, a file counts as old. Then a pull that finds it gone blames itself, not the
//! prune.

use std::time::Duration;

use oci_cache::Timestamp;
use oci_cache_cli::clock;

/// How far a file's times may lag behind the clock. The kernel takes them from the last tick
/// (`CLOCK_REALTIME_COARSE`, `clock_gettime(2)`), and there are at least 100 ticks a second.
const TICK: Duration = Duration::from_millis(10);

/// The time since `time`. Steps of the clock count, because files have their times from the same clock.
pub(crate) fn since(time: Timestamp) -> Duration {
    time.age_at(clock::now())
}

/// Whether a file that was last used at `used` may count as `age` old.
pub(crate) fn is_older_than(used: Timestamp, age: Duration) -> bool {
    since(used) + TICK >= age
}
