//! The one place that reads the clock.

use std::time::SystemTime;

use oci_cache::Timestamp;

/// The current time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Timestamp {
    SystemTime::now().into()
}
